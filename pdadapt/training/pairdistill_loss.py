"""The training objective on one batch: L_ZS = L_KD + lambda_pair L_pair, and L_CL if queries are labeled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.util import maxsim, maxsim_pairwise
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pdadapt.models.token_budget import slice_features
from pdadapt.settings.schema import TrainSettings
from pdadapt.training.distributed import gather_documents, is_distributed
from pdadapt.training.losses import contrastive_loss, kd_loss, pair_loss
from pdadapt.training.stored_tokens import after_encoder


class PairDistillLoss(nn.Module):
    """lambda_CL L_CL + lambda_KD L_KD + lambda_pair L_pair on a batch of ListCollator.

    Without L_CL this is L_ZS (PairDistill equation 7); with it, the supervised objective.
    """

    def __init__(self, model: MultiVectorEncoder, settings: TrainSettings):
        super().__init__()
        self.model = model
        self.settings = settings
        self.student_temperature = float(settings.student_temperature)  # `auto` is fitted before
        self.query_ids: list[str] = []  # of the current optimizer step
        self.parts = 1  # parts of this optimizer step's batch over all ranks; the Trainer sets it
        self.counts: Tensor | None = None  # sum of `count` over all parts; the Trainer sets it

    def forward(self, features: list[dict[str, Tensor]], labels: dict[str, Any]) -> dict[str, Tensor]:
        """Return the weighted terms by name. The Trainer adds them up and logs each."""
        settings = self.settings
        self.query_ids += labels["query_ids"]
        query, document = features
        query_out = self._run(self.model, query, "query")
        queries = query_out["token_embeddings"], query_out["attention_mask"].bool()
        tokens, mask = self.encode_documents(document)
        keys, rows, listed = labels["keys"], labels["documents"], labels["listed"]
        in_batch = settings.lambda_cl > 0 and settings.in_batch_negatives
        if in_batch:
            if is_distributed():
                tokens, mask, keys, first = gather_documents(tokens, mask, keys)
                rows = rows + first
            batch_scores = maxsim(queries[0], tokens, queries[1], mask)
            scores = batch_scores.gather(1, rows)
        else:
            scores = score_listed(queries, (tokens, mask), rows)
        relevant = (labels["relevant"][:, :, None] == keys).any(1)
        weight = self.weights(labels)
        terms: dict[str, Tensor] = {}
        if settings.lambda_cl:
            if in_batch:
                distinct = first_of_each(keys)
                counted = distinct.expand_as(relevant)
                if not settings.own_negatives:
                    counted = distinct & ~on_own_list(labels, keys)
                contrastive = contrastive_loss(batch_scores, relevant & distinct, counted, self.student_temperature)
            else:
                relevant = relevant.gather(1, rows) & listed
                contrastive = contrastive_loss(scores, relevant, listed, self.student_temperature)
            terms["cl"] = weight["cl"] * contrastive
        if settings.lambda_kd:
            kd = kd_loss(scores, labels["points"], settings.temperature, self.student_temperature)
            terms["kd"] = weight["kd"] * kd
        if settings.lambda_pair:
            pairwise = pair_loss(
                scores, labels["pairs"], labels["log_odds"], settings.pair_reduction, self.student_temperature
            )
            terms["pair"] = weight["pair"] * pairwise
        return terms

    def weights(self, labels: dict[str, Any]) -> dict[str, Tensor]:
        """Return the weight of each term: its lambda times this part's share of the batch's items of that term.

        With these weights the mean over the parts is the mean over the batch.
        """
        settings, counts = self.settings, self.count(labels)
        total = counts if self.counts is None else self.counts
        share = counts * self.parts / total.clamp(min=1)
        lambdas = share.new_tensor([settings.lambda_cl, settings.lambda_kd, settings.lambda_pair])
        return dict(zip(("cl", "kd", "pair"), lambdas * share, strict=True))

    def count(self, labels: dict[str, Any]) -> Tensor:
        """Count the items that each term averages over, (3,).

        They are the lists with a relevant document, the lists with points, and the pairs. If pair_reduction is not
        `mean`, the third count is the number of lists.
        """
        relevant = (labels["relevant"][:, :, None] == labels["keys"]).any(2).any(1)
        points = (~labels["points"].isnan()).sum(1) > 1
        pairs = ~labels["log_odds"].isnan() if self.settings.pair_reduction == "mean" else labels["listed"][:, 0]
        return torch.stack([counted.sum() for counted in (relevant, points, pairs)])

    def encode_documents(self, features: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the token embeddings (D, L, dim) and the mask (D, L) of D documents. The documents are encoded in
        chunks, the longest documents first.

        With gradient_cache, a chunk's activations are dropped. They are computed again for its gradient (Gao et al.
        2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"). The gradient is the same, and
        the memory is that of one chunk.
        """
        lengths = features["attention_mask"].sum(1).tolist()
        order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
        tokens: list[Tensor] = []
        masks: list[Tensor] = []
        for rows in document_chunks(order, lengths, self.settings.chunk_tokens):
            chunk = slice_features(features, rows, lengths[rows[0]])
            if self.settings.gradient_cache:
                encoded, mask = checkpoint(self._encode, chunk, use_reentrant=False)
            else:
                encoded, mask = self._encode(chunk)
            longest = tokens[0].shape[1] if tokens else encoded.shape[1]  # the first chunk is the longest
            padding = longest - encoded.shape[1]
            tokens.append(F.pad(encoded, (0, 0, 0, padding)))
            masks.append(F.pad(mask, (0, padding)))
        original = torch.tensor(order, device=tokens[0].device).argsort()
        return torch.cat(tokens).index_select(0, original), torch.cat(masks).index_select(0, original)

    def _encode(self, documents: dict[str, Any]) -> tuple[Tensor, Tensor]:
        encoder = getattr(self.model, "module", self.model)  # DDP's forward must not run again within backward
        output = self._run(encoder, dict(documents), "document")  # a copy, because the model changes its input
        return output["token_embeddings"], output["attention_mask"].bool()

    @staticmethod
    def _run(model: Any, features: dict[str, Any], task: str) -> dict[str, Any]:
        """Return the model's output. Features that hold the encoder's output already take what follows the encoder."""
        return after_encoder(model, features, task) if "token_embeddings" in features else model(features, task=task)


def score_listed(queries: tuple[Tensor, Tensor], documents: tuple[Tensor, Tensor], listed: Tensor) -> Tensor:
    """Return the MaxSim of each query with the documents of its own list, (B, N) float32.

    queries, documents: embeddings (B or D, L, dim) and masks (B or D, L). listed: (B, N) rows of `documents`.
    """
    scores = [
        maxsim_pairwise(
            tokens.expand(len(rows), -1, -1),
            documents[0].index_select(0, rows),
            mask.expand(len(rows), -1),
            documents[1].index_select(0, rows),
        )
        for tokens, mask, rows in zip(*queries, listed, strict=True)
    ]
    return torch.stack(scores)


def first_of_each(keys: Tensor) -> Tensor:
    """Return (D,) bool: the first document of each key. Padding rows (key -1) are False."""
    repeated = (keys[:, None] == keys).tril(-1).any(1)
    return ~repeated & (keys >= 0)


def on_own_list(labels: dict[str, Any], keys: Tensor) -> Tensor:
    """Return (B, D) bool: whether a document is on the query's own list. keys: (D,), of the documents of all ranks."""
    list_keys = labels["keys"][labels["documents"]].masked_fill(~labels["listed"], -1)
    return torch.stack([torch.isin(keys, query_keys) for query_keys in list_keys])


def document_chunks(order: Sequence[int], lengths: Sequence[int], most_tokens: int) -> Iterator[list[int]]:
    """Cut `order` into chunks. A chunk's rows times its greatest length are at most `most_tokens`, if it has two rows
    or more. order: longest first.
    """
    start = 0
    while start < len(order):
        end = start + max(1, most_tokens // lengths[order[start]])
        yield list(order[start:end])
        start = end
