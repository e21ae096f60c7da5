"""Export a student as an ONNX model."""

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
    """Computes the student's embeddings from token ids. This is the part that an ONNX graph can hold."""

    def __init__(self, model: Any, dense: bool):
        super().__init__()
        self.encoder = model[0].auto_model
        self.rest = nn.ModuleList(module for module in list(model)[1:] if type(module).__name__ not in MASKING_MODULES)
        self.dense = dense

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map token ids and mask (B, L) to embeddings (B, L, dim), or (B, dim) for a dense student."""
        tokens = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        features = {"token_embeddings": tokens, "attention_mask": attention_mask}
        for module in self.rest:
            features = module(features)
        return features["sentence_embedding" if self.dense else "token_embeddings"]


MASKING_MODULES = ("MultiVectorMask", "OneVector")  # they follow the embeddings and say which of them count


def save_onnx(model: Any, out: Path) -> None:
    """Write `model.onnx` to the folder `out`, which appears complete or not at all.

    The graph maps input_ids and attention_mask (B, L) int64 to embeddings (B, L, dim), or (B, dim) for a dense student.
    The folder also holds the tokenizer and `config_sentence_transformers.json` with the markers, the lengths and the
    list of skipped tokens.

    Raises ModelError if the packages are missing, or if torch cannot export this architecture.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise ModelError("The export to ONNX needs two more packages. Run `pip install 'pdadapt[onnx]'`.") from None
    dense = type(list(model)[-1]).__name__ == "OneVector"
    graph = _Embeddings(model.cpu(), dense).eval()
    ids, mask = torch.ones(2, 8, dtype=torch.long), torch.ones(2, 8, dtype=torch.long)  # one tensor would be one input
    sizes = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens")}
    with atomic_folder(out) as folder:
        (save_dense if dense else save_colbert)(model, folder / "model")
        for file in (folder / "model").glob("*.json"):
            file.rename(folder / file.name)
        try:
            torch.onnx.export(
                graph,
                (ids, mask),
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
        except Exception as error:  # the exporter's own errors, which are pages long
            name = type(model[0].auto_model).__name__
            raise ModelError(f"torch cannot export a {name} to ONNX. Export it with another --format.") from error
        shutil.rmtree(folder / "model")
