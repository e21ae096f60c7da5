"""Encode documents in batches of a given number of tokens. Documents of a batch have similar lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from sentence_transformers import MultiVectorEncoder
from torch import Tensor

from pdadapt.models.token_budget import TokenBudget, slice_features

ENCODE_CPU_TOKENS, ENCODE_GPU_TOKENS = 2_048, 65_536  # tokens per batch: a CPU's caches hold them, a GPU is busy


def document_batches(
    model: MultiVectorEncoder, texts: Sequence[str], batch_tokens: int | None = None
) -> Iterator[tuple[list[int], list[Tensor]]]:
    """Yield batches (indices in `texts`, embeddings (tokens, dim) of each document), longest documents first.

    The embeddings equal those of sentence-transformers' `encode_document`, up to rounding.

    batch_tokens: tokens per batch, padding included. None means ENCODE_CPU_TOKENS or ENCODE_GPU_TOKENS. The number is
    halved when memory runs out.
    """
    model.eval()
    features = model.preprocess(list(texts), prompt=model.prompts.get("document"), task="document")
    lengths = features["attention_mask"].sum(1).tolist()
    order = sorted(range(len(texts)), key=lambda row: -lengths[row])
    budget = encode_budget(model, batch_tokens)

    def encode(batch: range) -> list[Tensor]:
        rows = order[batch.start : batch.stop]
        chunk = slice_features(features, rows, lengths[rows[0]])
        with torch.inference_mode():
            output = model(
                {key: value.to(model.device) if isinstance(value, Tensor) else value for key, value in chunk.items()},
                task="document",
            )
            masks = output["attention_mask"].bool()
            return [tokens[mask] for tokens, mask in zip(output["token_embeddings"], masks, strict=True)]

    for batch, matrices in budget.batches([lengths[row] for row in order], encode, padded=True):
        yield order[batch.start : batch.stop], matrices


def encode_budget(model: MultiVectorEncoder, batch_tokens: int | None = None) -> TokenBudget:
    """Return the number of tokens that the student encodes at once. batch_tokens: see document_batches."""
    default = ENCODE_GPU_TOKENS if model.device.type == "cuda" else ENCODE_CPU_TOKENS
    return TokenBudget("encode", batch_tokens or default)


def encode_documents(model: MultiVectorEncoder, texts: Sequence[str], batch_tokens: int | None = None) -> list[Tensor]:
    """Return the embeddings (tokens, dim) of each document, in the order of `texts`. batch_tokens: see above."""
    embeddings = {
        row: matrix
        for rows, matrices in document_batches(model, texts, batch_tokens)
        for row, matrix in zip(rows, matrices, strict=True)
    }
    return [embeddings[row] for row in range(len(texts))]
