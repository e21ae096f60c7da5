"""How far a student agrees with its teacher on queries it is not trained on: does it learn? No judgments needed."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from scipy.special import expit
from scipy.stats import kendalltau
from sklearn.metrics import ndcg_score

from pdadapt.corpus import Corpus, Queries
from pdadapt.students.encoding import encode_documents
from pdadapt.training_lists import TrainingList, derive
from pdadapt.verdict import DECISIVE

LEAST, MOST = 20, 500  # queries: fewer say nothing, so they had better teach; more see no difference worth having
MEASURES = (DECISIVE, "rank correlation", "nDCG@10")


def held_out(query_ids: Collection[str], share: float, seed: int) -> set[str]:
    """Those kept out of training: so large a share, at most MOST, none if they are not LEAST; drawn by the seed."""
    return set(random.Random(seed).sample(sorted(query_ids), count_held_out(len(query_ids), share)))


def count_held_out(queries: int, share: float) -> int:
    """How many that is."""
    count = min(MOST, round(share * queries))
    return count if count >= LEAST else 0


def score_lists(
    model: Any,
    lists: Iterable[TrainingList],
    corpus: Corpus,
    queries: Queries,
    batch_tokens: int | None,
    advance: Callable[[int], None] = lambda n: None,
) -> list[list[float]]:
    """The student's score of every document of every list. advance: told how many lists more are done."""
    scores = []
    for entry in lists:
        texts = [corpus[doc_id].contents for doc_id in entry.doc_ids]
        documents = encode_documents(model, texts, batch_tokens)
        query = model.encode_query([queries[entry.query_id]], show_progress_bar=False)
        scores.append(model.similarity(query, documents)[0].tolist())
        advance(1)
    return scores


def agreement(
    lists: Iterable[TrainingList], every_score: Iterable[list[float]], temperature: float
) -> dict[str, dict[str, float]]:
    """Each of MEASURES for every list that says enough, by query id; the teacher's labels are the truth.

    every_score: what score_lists returns for these lists. pair accuracy: share of the pairs, weighted by the teacher's
    confidence |2 P_pair - 1|, that the student orders alike; without pair labels, of all pairs by their points /
    temperature. rank correlation: Kendall's tau-b with the points. nDCG@10: with sigmoid(points / temperature) as
    gains.
    """
    values: dict[str, dict[str, float]] = {name: {} for name in MEASURES}
    for entry, scores in zip(lists, every_score, strict=True):
        labeled = [(found, point) for found, point in zip(scores, entry.points, strict=True) if point is not None]
        weighed = [
            (abs(math.tanh(odds / 2)), (scores[i] - scores[j]) * odds > 0) for i, j, odds in pairs(entry, temperature)
        ]
        if says_enough(entry, temperature):
            found, points = zip(*labeled, strict=True)
            gains = [expit(point / temperature) for point in points]
            right = sum(weight for weight, alike in weighed if alike) / sum(weight for weight, _ in weighed)
            tau = kendalltau(found, points).statistic
            measured = (right, 0.0 if math.isnan(tau) else tau, ndcg_score([gains], [found], k=10))
            for name, value in zip(MEASURES, measured, strict=True):
                values[name][entry.query_id] = float(value)
    return values


def says_enough(entry: TrainingList, temperature: float) -> bool:
    """Whether a list can tell one student from another: its points differ, and the teacher prefers one of some pair."""
    known = {point for point in entry.points if point is not None}
    return len(known) > 1 and any(math.tanh(odds / 2) for *_, odds in pairs(entry, temperature))


def pairs(entry: TrainingList, temperature: float) -> Iterator[tuple[int, int, float]]:
    """The pairs that the teacher judged, or all that its points order: (i, j, log-odds that i is the more relevant)."""
    if entry.pairs:
        yield from entry.pairs
        return
    for i, j in itertools.combinations(range(len(entry.doc_ids)), 2):
        odds = derive(entry, i, j, temperature)
        if odds is not None:
            yield i, j, odds
