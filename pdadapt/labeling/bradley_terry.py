"""Bradley-Terry strengths: what pairs say of a whole list, with the point labels as prior (pure)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import rankdata

TINY = np.finfo(np.float64).tiny
PairLabel = tuple[int, int, float]  # positions i and j in the list, log-odds that i is the more relevant


class Fit(NamedTuple):
    strengths: np.ndarray
    """(n,): the log-odds that document i is more relevant than j are strengths[i] - strengths[j]."""
    covariance: np.ndarray
    """(n, n): how far they are from certain, by Laplace's approximation."""


def fit(points: Sequence[float | None], pairs: Sequence[PairLabel], temperature: float, precision: float) -> Fit:
    """The strengths s that maximise the sum over pairs of P log sigmoid(s_i - s_j) + (1 - P) log sigmoid(s_j - s_i),
    where P is what the teacher said, minus precision / 2 |s - points / temperature|^2.

    Bradley and Terry (1952) with soft outcomes and a normal prior, so that there is one maximum whatever was asked. A
    document without a point label is taken for an average one.
    """
    known = [point for point in points if point is not None]
    average = sum(known) / len(known) if known else 0.0
    prior = np.array([average if point is None else point for point in points]) / temperature
    said = expit(np.array([log_odds for *_, log_odds in pairs]))
    differences = np.zeros((len(pairs), len(points)))  # @ s: s_i - s_j
    for row, (i, j, _) in enumerate(pairs):
        differences[row, i], differences[row, j] = 1, -1

    def loss(s: np.ndarray) -> float:
        found = differences @ s
        unlikely = said * np.logaddexp(0, -found) + (1 - said) * np.logaddexp(0, found)
        return float(unlikely.sum() + precision / 2 * ((s - prior) ** 2).sum())

    def gradient(s: np.ndarray) -> np.ndarray:
        return precision * (s - prior) + differences.T @ (expit(differences @ s) - said)

    def curvature(s: np.ndarray) -> np.ndarray:
        p = expit(differences @ s)
        return precision * np.eye(len(s)) + differences.T @ (differences * (p * (1 - p))[:, None])

    strengths = minimize(loss, prior, jac=gradient, hess=curvature, method="trust-exact", options={"gtol": 1e-6}).x
    return Fit(strengths, np.linalg.inv(curvature(strengths)))


def most_informative(found: Fit, count: int, left_out: Collection[tuple[int, int]]) -> list[tuple[int, int]]:
    """The `count` pairs (i < j) whose answers, one after the other, should tell most of the strengths at the top: each
    time that of the greatest P (1 - P) variance(s_i - s_j), by which the determinant of the precision grows (D-optimal
    design), times the sum of both documents' discounts 1 / log2(1 + rank), by which nDCG counts them.
    """
    covariance = found.covariance.copy()
    gaps = np.abs(found.strengths[:, None] - found.strengths)
    weights = -gaps - 2 * np.log1p(np.exp(-gaps))  # log P (1 - P), which is finite however far apart two are
    weights[np.tril_indices_from(weights)] = -np.inf
    discounts = 1 / np.log2(1 + rankdata(-found.strengths, "ordinal"))
    matters = np.log(discounts[:, None] + discounts)
    for i, j in left_out:
        weights[i, j] = -np.inf
    chosen: list[tuple[int, int]] = []
    while len(chosen) < count and np.isfinite(weights).any():
        own = covariance.diagonal()
        gains = weights + np.log((own[:, None] + own - 2 * covariance).clip(TINY))
        i, j = map(int, np.unravel_index((gains + matters).argmax(), gains.shape))
        chosen.append((i, j))
        toward = covariance[i] - covariance[j]
        covariance -= np.outer(toward, toward) * (np.exp(weights[i, j]) / (1 + np.exp(gains[i, j])))
        weights[i, j] = -np.inf
    return chosen


def contradictions(pairs: Sequence[PairLabel]) -> tuple[int, int]:
    """Of three documents all of whose pairs were judged: (how often a > b > c > a, how many such three there are)."""
    preferred = {(i, j) if log_odds > 0 else (j, i) for i, j, log_odds in pairs if log_odds}
    better: dict[int, set[int]] = {}
    neighbours: dict[int, set[int]] = {}
    for winner, loser in preferred:
        better.setdefault(winner, set()).add(loser)
        neighbours.setdefault(winner, set()).add(loser)
        neighbours.setdefault(loser, set()).add(winner)
    triples = circles = 0
    for a, b in preferred:
        third = neighbours[a] & neighbours[b]
        triples += len(third)
        circles += sum(1 for c in third if c in better.get(b, ()) and a in better.get(c, ()))
    return circles // 3, triples // 3
