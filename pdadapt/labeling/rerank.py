"""Re-order a run with a teacher, so that it can be judged where there are judgments (PairDistill, Table 5)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, permutations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pdadapt.data.corpus import Corpus, Queries
from pdadapt.data.run_file import Ranking
from pdadapt.errors import DataError
from pdadapt.labeling.ask import Questions, ask_missing, check_answers, in_chunks
from pdadapt.labeling.position_bias import Orders
from pdadapt.labeling.store import LabelStore
from pdadapt.runtime.progress import Progress
from pdadapt.teachers.base import Pair, Point, Task, TeacherLoader, score_of

Aggregate = Literal["wins", "bradley-terry"]


def rerank(
    ranking: Ranking,
    corpus: Corpus,
    queries: Queries,
    task: Task,
    aggregate: Aggregate,
    top: int,
    store_file: Path,
    key: str,
    teachers: TeacherLoader,
    progress: Progress,
    name: str = "",
) -> tuple[Ranking, dict[str, float]]:
    """The run with the first `top` documents of each query in the teacher's order, the others below as they were.

    task: `point` sorts by the teacher's score; `pair` asks about all ordered pairs and aggregates them. key: the label
    store's; name: what a person calls the teacher. What the teacher left unanswered ranks last (points) or counts as
    undecided (pairs). Returned too are figures: how much is `unanswered`, and, of pairs, those of `order_figures`.
    Raises DataError when the run names a query or document that is not there, ModelError when the teacher answers
    nothing at all.
    """
    check(ranking, corpus, queries)
    heads = {query_id: [doc_id for doc_id, _ in ranked[:top]] for query_id, ranked in ranking.items()}
    texts = {doc_id: corpus[doc_id].contents for doc_ids in heads.values() for doc_id in doc_ids}
    with LabelStore(store_file, "points" if task == "point" else "pairs", key, name) as store:
        store.remember("document", texts.items())
        store.remember("query", ((query_id, queries[query_id]) for query_id in heads))
        if task == "point":
            questions: dict[str, list[Any]] = {
                query_id: [Point(queries[query_id], texts[doc_id]) for doc_id in doc_ids]
                for query_id, doc_ids in heads.items()
            }
        else:
            questions = {
                query_id: [Pair(queries[query_id], texts[a], texts[b]) for a, b in permutations(doc_ids, 2)]
                for query_id, doc_ids in heads.items()
            }
        sizes = {query_id: len(asked) for query_id, asked in questions.items()}
        chunks = in_chunks(sorted(questions, key=queries.__getitem__), sizes)
        everything = Questions(chunks, lambda query_ids: chain.from_iterable(questions[one] for one in query_ids))
        ask_missing(everything, store, lambda: score_of(teachers(task), task), progress, "rerank")
        labels = {query_id: [store.get(question) for question in asked] for query_id, asked in questions.items()}
        unanswered = sum(answers.count(None) for answers in labels.values())
        check_answers(unanswered, sum(map(len, labels.values())), task)
        figures: dict[str, float] = {"unanswered": unanswered}
        if task == "pair":
            shown = Orders()
            for query_id, doc_ids in heads.items():
                for both in orders(labels[query_id], len(doc_ids)):
                    shown.add(both)
            figures |= shown.figures()
        reranked: Ranking = {}
        for query_id, doc_ids in heads.items():
            answers = labels[query_id]
            if task == "point":
                scores = [-np.inf if answer is None else answer for answer in answers]
            else:
                scores = aggregate_pairs(win_matrix(answers, len(doc_ids)), aggregate)
            order = sorted(range(len(doc_ids)), key=lambda i: (-scores[i], i))
            rest = [doc_id for doc_id, _ in ranking[query_id][top:]]
            reranked[query_id] = spread([(doc_ids[i], float(scores[i])) for i in order], rest)
    return reranked, figures


def orders(answers: Sequence[float | None], size: int) -> list[tuple[float, float]]:
    """Of all `permutations(range(size), 2)` the answers of (a, b) and (b, a), where there are both."""
    found = dict(zip(permutations(range(size), 2), answers, strict=True))
    both = [(found[a, b], found[b, a]) for a, b in found if a < b]
    return [(first, second) for first, second in both if first is not None and second is not None]


def check(ranking: Ranking, corpus: Corpus, queries: Queries) -> None:
    if not ranking:
        raise DataError("The run holds no rankings; give a TREC run file.")
    for query_id, ranked in ranking.items():
        if query_id not in queries:
            raise DataError(f"The run names query {query_id!r}, which the corpus' queries lack; give its --queries.")
        for doc_id, _ in ranked:
            if doc_id not in corpus:
                raise DataError(f"The run names document {doc_id!r}, which the corpus lacks; give the corpus it is of.")


def spread(head: Sequence[tuple[str, float]], rest: Sequence[str]) -> list[tuple[str, float]]:
    """Scores that fall strictly, in single precision too, as trec_eval orders a run by them: the head's own, or a step
    below the one before; then a step lower each.
    """
    found: list[tuple[str, float]] = []
    last = max((score for _, score in head if np.isfinite(score)), default=0.0) + 1.0
    for doc_id, score in [*head, *((doc_id, -np.inf) for doc_id in rest)]:
        step = max(1e-5, 1e-6 * abs(last))
        last = min(score, last - step) if np.isfinite(score) else last - 1.0
        found.append((doc_id, last))
    return found


def win_matrix(answers: Sequence[float | None], size: int) -> np.ndarray:
    """(size, size) probabilities that the row's document is the more relevant, of both orders' mean log-odds.

    answers: log-odds of all `permutations(range(size), 2)`; None is no answer. A pair without any is undecided, 0.5.
    """
    log_odds = np.full((size, size), np.nan)
    for (a, b), answer in zip(permutations(range(size), 2), answers, strict=True):
        log_odds[a, b] = np.nan if answer is None else answer
    both = np.stack([log_odds, -log_odds.T])
    known = ~np.isnan(both)
    mean = np.where(known, both, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    return 1 / (1 + np.exp(-mean))


def aggregate_pairs(wins: np.ndarray, aggregate: Aggregate) -> list[float]:
    """One score a document from the pair probabilities (n, n).

    wins: the mean probability to be preferred to the others (duoT5's sum; Pradeep et al. 2021). bradley-terry: the
    strengths that make the probabilities likeliest, by Hunter's MM iteration (2004, equation 3), with one more
    undecided comparison against a document of strength 1 so that the maximum exists.
    """
    size = len(wins)
    others = ~np.eye(size, dtype=bool)
    if aggregate == "wins":
        return [float(row[other].mean()) if size > 1 else 0.5 for row, other in zip(wins, others, strict=True)]
    won = np.where(others, wins, 0.0).sum(1) + 0.5
    strength = np.ones(size)
    for _ in range(1_000):
        met = np.where(others, 1 / (strength[:, None] + strength[None, :]), 0.0).sum(1) + 1 / (strength + 1)
        updated = won / met
        if np.allclose(updated, strength, rtol=1e-9, atol=0):
            break
        strength = updated
    return [float(value) for value in np.log(updated)]
