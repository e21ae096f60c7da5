"""Re-rank a run with a teacher, so that relevance judgments can measure the teacher itself (PairDistill, Table 5)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, permutations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from pdadapt.data.corpus import Corpus, Queries
from pdadapt.data.run_file import Ranking
from pdadapt.errors import DataError
from pdadapt.labeling.ask import Questions, ask_missing, in_chunks
from pdadapt.labeling.guard import check_answers
from pdadapt.labeling.position_bias import PositionBias
from pdadapt.labeling.store import LabelStore
from pdadapt.runtime.progress import Progress
from pdadapt.teachers.base import Pair, Point, Task, TeacherLoader, score_of


def rerank(
    ranking: Ranking,
    corpus: Corpus,
    queries: Queries,
    task: Task,
    top: int,
    store_file: Path,
    key: str,
    teachers: TeacherLoader,
    progress: Progress,
    name: str = "",
) -> tuple[Ranking, dict[str, float]]:
    """Return the run with the first `top` documents of each query in the teacher's order; the others follow unchanged.

    task: `point` sorts by the teacher's score. `pair` asks about every two documents in both orders, and sorts by the
    mean probability of being preferred to the others (the sum of duoT5; Pradeep et al. 2021). key: the teacher's key in
    the label store. name: what a person calls the teacher.

    A missing point label ranks a document last. A missing pair label counts as undecided.

    Also returned are figures: how many labels are `unanswered`, and for pairs the figures of PositionBias. Raises
    DataError when the run names an unknown query or document. Raises ModelError when the teacher answers nothing.
    """
    check_run_ids(ranking, corpus, queries)
    heads = {query_id: [doc_id for doc_id, _ in ranked[:top]] for query_id, ranked in ranking.items()}
    texts = {doc_id: corpus[doc_id].contents for doc_ids in heads.values() for doc_id in doc_ids}
    with LabelStore(store_file, "points" if task == "point" else "pairs", key, name) as store:
        store.store_texts("document", texts.items())
        store.store_texts("query", ((query_id, queries[query_id]) for query_id in heads))
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
        all_questions = Questions(chunks, lambda ids: chain.from_iterable(questions[query_id] for query_id in ids))
        ask_missing(all_questions, store, lambda: score_of(teachers(task), task), progress, "rerank")
        labels = {query_id: [store.get(question) for question in asked] for query_id, asked in questions.items()}
        unanswered = sum(answers.count(None) for answers in labels.values())
        check_answers(unanswered, sum(map(len, labels.values())), task)
        figures: dict[str, float] = {"unanswered": unanswered}
        if task == "pair":
            position_bias = PositionBias()
            for query_id, doc_ids in heads.items():
                for both_orders in answers_in_both_orders(labels[query_id], len(doc_ids)):
                    position_bias.add(both_orders)
            figures |= position_bias.figures()
        reranked: Ranking = {}
        for query_id, doc_ids in heads.items():
            answers = labels[query_id]
            if task == "point":
                scores = [-np.inf if answer is None else answer for answer in answers]
            else:
                scores = mean_wins(win_matrix(answers, len(doc_ids)))
            order = sorted(range(len(doc_ids)), key=lambda i: (-scores[i], i))
            rest = [doc_id for doc_id, _ in ranking[query_id][top:]]
            reranked[query_id] = falling_scores([(doc_ids[i], float(scores[i])) for i in order], rest)
    return reranked, figures


def answers_in_both_orders(answers: Sequence[float | None], size: int) -> list[tuple[float, float]]:
    """Return the answers for (a, b) and (b, a) of each pair that has both. answers: of all `permutations(range(size),
    2)`.
    """
    by_pair = dict(zip(permutations(range(size), 2), answers, strict=True))
    both = [(by_pair[a, b], by_pair[b, a]) for a, b in by_pair if a < b]
    return [(first, second) for first, second in both if first is not None and second is not None]


def check_run_ids(ranking: Ranking, corpus: Corpus, queries: Queries) -> None:
    """Raises DataError when the run is empty, or names an unknown query or document."""
    if not ranking:
        raise DataError("The run holds no rankings. Give a TREC run file.")
    for query_id, ranked in ranking.items():
        if query_id not in queries:
            raise DataError(f"The run names query {query_id!r}, which is not a query of the corpus. Give --queries.")
        for doc_id, _ in ranked:
            if doc_id not in corpus:
                raise DataError(
                    f"The run names document {doc_id!r}, which the corpus lacks. Give the corpus of the run."
                )


def falling_scores(head: Sequence[tuple[str, float]], rest: Sequence[str]) -> list[tuple[str, float]]:
    """Return the documents with strictly falling scores.

    The scores fall in single precision too, because trec_eval sorts a run by them. A document of `head` keeps its
    score, or gets a score one step below the previous one. Each document of `rest` is one step lower than the one
    before.
    """
    scored: list[tuple[str, float]] = []
    last = max((score for _, score in head if np.isfinite(score)), default=0.0) + 1.0
    for doc_id, score in [*head, *((doc_id, -np.inf) for doc_id in rest)]:
        step = max(1e-5, 1e-6 * abs(last))
        last = min(score, last - step) if np.isfinite(score) else last - 1.0
        scored.append((doc_id, last))
    return scored


def win_matrix(answers: Sequence[float | None], size: int) -> np.ndarray:
    """Return (size, size) probabilities that the row's document is the more relevant, from the mean log-odds of both
    orders.

    answers: log-odds of all `permutations(range(size), 2)`, None without an answer. A pair without any answer is
    undecided: 0.5.
    """
    log_odds = np.full((size, size), np.nan)
    for (a, b), answer in zip(permutations(range(size), 2), answers, strict=True):
        log_odds[a, b] = np.nan if answer is None else answer
    both = np.stack([log_odds, -log_odds.T])
    known = ~np.isnan(both)
    mean = np.where(known, both, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    probabilities: np.ndarray = expit(mean)
    return probabilities


def mean_wins(wins: np.ndarray) -> list[float]:
    """Return each document's mean probability of being preferred to the others. wins: (n, n), of win_matrix."""
    others = ~np.eye(len(wins), dtype=bool)
    return [float(row[other].mean()) if len(wins) > 1 else 0.5 for row, other in zip(wins, others, strict=True)]
