"""A student as an ONNX model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pdadapt.errors import ModelError
from pdadapt.runtime.files import atomic_folder
from pdadapt.students.dense import save_dense
from pdadapt.students.pylate import save_colbert


class _Embeddings(nn.Module):
    """Token ids -> the student's embeddings: what a graph can hold."""

    def __init__(self, model: Any, dense: bool):
        super().__init__()
        self.encoder = model[0].auto_model
        self.rest = nn.ModuleList(module for module in list(model)[1:] if type(module).__name__ not in TAILS)
        self.dense = dense

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        tokens = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        features = {"token_embeddings": tokens, "attention_mask": attention_mask}
        for module in self.rest:
            features = module(features)
        return features["sentence_embedding" if self.dense else "token_embeddings"]


TAILS = ("MultiVectorMask", "OneVector")  # what follows the embeddings: which of them count


def save_onnx(model: Any, out: Path) -> None:
    """`model.onnx`: input_ids and attention_mask (B, L) int64 -> embeddings (B, L, dim), of a dense student (B, dim);
    beside it the tokenizer and `config_sentence_transformers.json`, which says markers, lengths and what is skipped.

    Raises ModelError when the packages lack, or torch cannot write such a student.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise ModelError("Exporting to ONNX needs two packages; run `pip install 'pdadapt[onnx]'`.") from None
    dense = type(list(model)[-1]).__name__ == "OneVector"
    graph = _Embeddings(model.cpu(), dense).eval()
    example = torch.ones(2, 8, dtype=torch.long), torch.ones(2, 8, dtype=torch.long)  # one tensor would be one input
    sizes = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens")}
    with atomic_folder(out) as folder:
        (save_dense if dense else save_colbert)(model, folder / "model")
        for file in (folder / "model").glob("*.json"):
            file.rename(folder / file.name)
        try:
            torch.onnx.export(
                graph,
                example,
                str(folder / "model.onnx"),
                input_names=["input_ids", "attention_mask"],
                output_names=["embeddings"],
                dynamic_shapes={"input_ids": sizes, "attention_mask": sizes},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except (OSError, MemoryError):
            raise
        except Exception as error:  # the exporter's own, of pages
            name = type(model[0].auto_model).__name__
            raise ModelError(f"torch cannot write a {name} as ONNX. Export it with another --format.") from error
        shutil.rmtree(folder / "model")
