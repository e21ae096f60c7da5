"""Bradley-Terry strengths of a list's documents, fitted to the pair labels with the point labels as prior. All
functions are pure.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import rankdata

SMALLEST_VARIANCE = np.finfo(np.float64).tiny
PairLabel = tuple[int, int, float]  # positions i and j in the list, log-odds that i is the more relevant


class StrengthFit(NamedTuple):
    """The fitted strengths of n documents."""

    strengths: np.ndarray
    """(n,). strengths[i] - strengths[j] are the log-odds that document i is more relevant than document j."""
    covariance: np.ndarray
    """(n, n). The uncertainty of the strengths, by Laplace's approximation."""


def fit_strengths(
    points: Sequence[float | None], pairs: Sequence[PairLabel], temperature: float, precision: float
) -> StrengthFit:
    """Fit the strengths s of a list's documents.

    P is the teacher's probability that i is more relevant than j. The strengths maximise this sum over the pairs:
    P log sigmoid(s_i - s_j) + (1 - P) log sigmoid(s_j - s_i), minus a penalty, the prior:
    precision / 2 |s - points / temperature|^2.

    This is the model of Bradley and Terry (1952) with soft outcomes and a normal prior. Because of the prior the
    maximum is unique, whichever pairs were asked. A document without a point label gets the average label as its prior.
    """
    known = [point for point in points if point is not None]
    average = sum(known) / len(known) if known else 0.0
    prior = np.array([average if point is None else point for point in points]) / temperature
    targets = expit(np.array([log_odds for *_, log_odds in pairs]))
    differences = np.zeros((len(pairs), len(points)))  # @ s: s_i - s_j
    for row, (i, j, _) in enumerate(pairs):
        differences[row, i], differences[row, j] = 1, -1

    def loss(s: np.ndarray) -> float:
        log_odds = differences @ s
        cross_entropy = targets * np.logaddexp(0, -log_odds) + (1 - targets) * np.logaddexp(0, log_odds)
        return float(cross_entropy.sum() + precision / 2 * ((s - prior) ** 2).sum())

    def gradient(s: np.ndarray) -> np.ndarray:
        return precision * (s - prior) + differences.T @ (expit(differences @ s) - targets)

    def curvature(s: np.ndarray) -> np.ndarray:
        p = expit(differences @ s)
        return precision * np.eye(len(s)) + differences.T @ (differences * (p * (1 - p))[:, None])

    strengths = minimize(loss, prior, jac=gradient, hess=curvature, method="trust-exact", options={"gtol": 1e-6}).x
    return StrengthFit(strengths, np.linalg.inv(curvature(strengths)))


def most_informative(fitted: StrengthFit, count: int, excluded: Collection[tuple[int, int]]) -> list[tuple[int, int]]:
    """Choose the `count` pairs (i < j) whose answers should tell most about the strengths at the top of the list.

    Pairs are chosen one after the other. Each is the pair with the greatest gain times weight. The gain is P (1 - P)
    variance(s_i - s_j), by which the determinant of the precision grows (D-optimal design). The weight is the sum of
    both documents' discounts 1 / log2(1 + rank), as in nDCG.

    excluded: pairs that are never chosen, because they were asked before.
    """
    covariance = fitted.covariance.copy()
    gaps = np.abs(fitted.strengths[:, None] - fitted.strengths)
    weights = -gaps - 2 * np.log1p(np.exp(-gaps))  # log P (1 - P), computed so that it is finite for every gap
    weights[np.tril_indices_from(weights)] = -np.inf
    discounts = 1 / np.log2(1 + rankdata(-fitted.strengths, "ordinal"))
    log_discounts = np.log(discounts[:, None] + discounts)
    for i, j in excluded:
        weights[i, j] = -np.inf
    chosen: list[tuple[int, int]] = []
    while len(chosen) < count and np.isfinite(weights).any():
        variances = covariance.diagonal()
        gains = weights + np.log((variances[:, None] + variances - 2 * covariance).clip(SMALLEST_VARIANCE))
        i, j = map(int, np.unravel_index((gains + log_discounts).argmax(), gains.shape))
        chosen.append((i, j))
        direction = covariance[i] - covariance[j]
        covariance -= np.outer(direction, direction) * (np.exp(weights[i, j]) / (1 + np.exp(gains[i, j])))
        weights[i, j] = -np.inf
    return chosen


def contradictions(pairs: Sequence[PairLabel]) -> tuple[int, int]:
    """Return (cycles, triples). triples: the number of sets of three documents whose three pairs are all judged.
    cycles: how many of these are a cycle, a > b > c > a.
    """
    preferred = {(i, j) if log_odds > 0 else (j, i) for i, j, log_odds in pairs if log_odds}
    better: dict[int, set[int]] = {}
    neighbours: dict[int, set[int]] = {}
    for winner, loser in preferred:
        better.setdefault(winner, set()).add(loser)
        neighbours.setdefault(winner, set()).add(loser)
        neighbours.setdefault(loser, set()).add(winner)
    triples = cycles = 0
    for a, b in preferred:
        thirds = neighbours[a] & neighbours[b]
        triples += len(thirds)
        cycles += sum(1 for c in thirds if c in better.get(b, ()) and a in better.get(c, ()))
    return cycles // 3, triples // 3  # each was counted once for each of its three pairs
