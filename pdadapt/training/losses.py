"""The losses of PairDistill: tensors in, a scalar out. A missing label is NaN, and is ignored."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F


def kd_loss(scores: Tensor, points: Tensor, temperature: float = 1.0, student_temperature: float = 1.0) -> Tensor:
    """L_KD (PairDistill equation 3): the mean over queries of KL(P_point || P).

    scores: (B, N) student scores. points: (B, N) teacher scores, NaN where missing. P is the softmax of scores /
    student_temperature over a query's labeled documents. P_point is the softmax of points / temperature. Queries with
    fewer than two labels are ignored. Returns a scalar, in nats.
    """
    labeled = ~points.isnan()
    counted = labeled.sum(1) > 1
    scores, points, labeled = scores[counted], points[counted], labeled[counted]
    if not len(scores):
        return scores.sum()
    lowest = torch.finfo(scores.dtype).min
    log_p = (scores / student_temperature).masked_fill(~labeled, lowest).log_softmax(1)
    log_t = (points.nan_to_num() / temperature).to(scores.dtype).masked_fill(~labeled, lowest).log_softmax(1)
    divergence = log_t.exp() * (log_t - log_p)
    return divergence.masked_fill(~labeled, 0.0).sum(1).mean()


def pair_loss(
    scores: Tensor,
    pairs: Tensor,
    log_odds: Tensor,
    reduction: Literal["mean", "sum"] = "mean",
    student_temperature: float = 1.0,
) -> Tensor:
    """L_pair (PairDistill equation 6): two-way KL(P_pair || P), where P(d_i > d_j) = sigmoid(s_i - s_j).

    scores: (B, N). pairs: (M, 3) int64 rows (query, i, j) into scores. log_odds: (M,), of the teacher's P_pair(d_i >
    d_j), NaN where missing. The reduction `mean` is over all pairs, as in the released code. `sum` adds up a query's
    pairs and takes the mean over the B queries, as in the paper. Returns a scalar, in nats.
    """
    labeled = ~log_odds.isnan()
    query, i, j = pairs[labeled].unbind(1)
    if not len(query):
        return scores.sum() * 0.0
    teacher = log_odds[labeled].to(scores.dtype)
    student = (scores[query, i] - scores[query, j]) / student_temperature
    target = teacher.sigmoid()
    divergence = target * (F.logsigmoid(teacher) - F.logsigmoid(student)) + (1 - target) * (
        F.logsigmoid(-teacher) - F.logsigmoid(-student)
    )
    return divergence.mean() if reduction == "mean" else divergence.sum() / len(scores)


def contrastive_loss(scores: Tensor, relevant: Tensor, counted: Tensor, student_temperature: float = 1.0) -> Tensor:
    """L_CL (InfoNCE; the supervised term of PairDistill): each relevant document against documents that are not
    relevant.

    scores: (B, N) student scores. relevant: (B, N) bool, documents labeled relevant. counted: (B, N) bool, documents
    that may be negatives. They come from the query's own list, from other queries' lists (as in the released code), or
    from both. The negatives of a relevant document are all counted documents that are not relevant. The loss is
    averaged over a query's relevant documents, then over the queries that have any. Returns a scalar, in nats.
    """
    labeled = relevant.any(1)
    scores, relevant, counted = scores[labeled] / student_temperature, relevant[labeled], counted[labeled]
    if not len(scores):
        return scores.sum()
    negatives = scores.masked_fill(relevant | ~counted, torch.finfo(scores.dtype).min).logsumexp(1, keepdim=True)
    each = F.softplus(negatives - scores).masked_fill(~relevant, 0.0)
    return (each.sum(1) / relevant.sum(1)).mean()
