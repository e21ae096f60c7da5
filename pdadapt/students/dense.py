"""The dense (DPR) student: one vector per text, from a sentence-transformers model or a plain encoder.

It is represented as a multi-vector student whose texts have one vector each. MaxSim of one query vector and one
document vector is their dot product, so retrieval, losses and engines are the same for both kinds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sentence_transformers import MultiVectorEncoder, SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.base.modules.module import Module
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor

from pdadapt.errors import ModelError
from pdadapt.models.device import set_compute_dtype
from pdadapt.models.source import has_modules, resolve_model, translate_errors
from pdadapt.runtime.files import atomic_folder
from pdadapt.students.colbert import set_lengths, settle_student

DOCUMENT_PROMPTS = ("document", "passage", "corpus")  # sentence-transformers tries these names in this order


class OneVector(Module):
    """Returns a text's pooled embedding as its only token embedding."""

    def forward(self, features: dict[str, Tensor], **kwargs: Any) -> dict[str, Tensor]:
        """Add `token_embeddings` (B, 1, dim) and their mask (B, 1) to the features."""
        vectors = features["sentence_embedding"].unsqueeze(1)
        mask = torch.ones(vectors.shape[:2], dtype=torch.long, device=vectors.device)
        return features | {"token_embeddings": vectors, "attention_mask": mask}

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Write the configuration. There are no weights."""
        self.save_config(output_path)


def load_dense(
    name: str,
    query_length: int | None = None,
    document_length: int | None = None,
    pooling: str | None = None,
    similarity: str | None = None,
    dtype: str = "float32",
) -> MultiVectorEncoder:
    """Load a dense student, ready to encode and to train.

    name: a model name (see models/source.py).
    query_length, document_length: tokens kept; None means as many as the encoder reads.
    pooling (`cls`, `mean`), similarity (`dot`, `cosine`): None means what the checkpoint says. For a plain encoder it
    means cls and dot, as in DPR (Karpukhin et al. 2020).
    dtype: the dtype of the encoder's multiplications (see models/device.py).
    Raises ModelError if the checkpoint cannot be loaded, or if it is not a transformer with a pooling.
    """
    source = resolve_model(name)
    weights = {"use_safetensors": True, "dtype": torch.float32}
    source.check()
    with translate_errors(f"Student {name!r} does not load as a dense model"), torch.random.fork_rng():
        torch.manual_seed(0)
        loaded = SentenceTransformer(source.place, revision=source.commit, model_kwargs=weights)
    modules = list(loaded)
    if len(modules) < 2 or not isinstance(modules[0], Transformer) or not isinstance(modules[1], Pooling):
        raise ModelError(
            f"Student {name!r} is not a dense model (a transformer with a pooling). Set student.kind=colbert, or name "
            "another model."
        )
    plain = not has_modules(source)
    if pooling or plain:
        modules[1] = Pooling(modules[1].embedding_dimension, pooling or "cls")
    chosen = similarity or ("dot" if plain else loaded.similarity_fn_name)
    normalizes = isinstance(modules[-1], Normalize)
    if chosen == "cosine" and not normalizes:
        modules.append(Normalize())
    elif chosen == "dot" and similarity and normalizes:
        modules.pop()
    document_prompts = (loaded.prompts.get(name) for name in DOCUMENT_PROMPTS)
    prompts = {"query": loaded.prompts.get("query") or "", "document": next(filter(None, document_prompts), "")}
    model = MultiVectorEncoder(modules=[*modules, OneVector()], prompts=prompts)
    settle_student(model, source)
    set_lengths(model, query_length, document_length)
    set_compute_dtype(model, dtype)
    return model


def save_dense(model: MultiVectorEncoder, folder: Path) -> None:
    """Write `model` as a SentenceTransformer (safetensors) to `folder`, which appears complete or not at all."""
    modules = list(model)[:-1]
    prompts = {task: text for task, text in model.prompts.items() if text}
    similarity: Any = "cosine" if isinstance(modules[-1], Normalize) else "dot"
    plain = SentenceTransformer(modules=modules, prompts=prompts, similarity_fn_name=similarity)
    with atomic_folder(folder) as out:
        plain.save_pretrained(str(out), create_model_card=False)
