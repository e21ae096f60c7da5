"""Documents -> embeddings, in batches of about so many tokens, whose documents are about of one length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from pdadapt.models.memory import TokenBudget, slice_features

CPU_BUDGET, GPU_BUDGET = 2_048, 65_536  # tokens at once: what stays in a CPU's caches, what fills a GPU


def document_batches(
    model: Any, texts: Sequence[str], batch_tokens: int | None = None
) -> Iterator[tuple[list[int], list[Tensor]]]:
    """A batch at a time, the longest documents first: their places in `texts`, and each one's embeddings (tokens, dim).

    What sentence-transformers' `encode_document` gives, up to rounding. batch_tokens: padding included; None means
    CPU_BUDGET or GPU_BUDGET; halved when memory runs out.
    """
    model.eval()
    features = model.preprocess(list(texts), prompt=model.prompts.get("document"), task="document")
    lengths = features["attention_mask"].sum(1).tolist()
    order = sorted(range(len(texts)), key=lambda row: -lengths[row])
    budget = TokenBudget("encode", batch_tokens or (GPU_BUDGET if model.device.type == "cuda" else CPU_BUDGET))

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


def encode_documents(model: Any, texts: Sequence[str], batch_tokens: int | None = None) -> list[Tensor]:
    """The embeddings (tokens, dim) of each document, in their order."""
    found = {
        row: matrix
        for rows, matrices in document_batches(model, texts, batch_tokens)
        for row, matrix in zip(rows, matrices, strict=True)
    }
    return [found[row] for row in range(len(texts))]
