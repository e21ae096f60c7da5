"""Stage: ask the teacher what is not in the store yet; build the training lists."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pdadapt.corpus import Corpus, Queries
from pdadapt.errors import ModelError
from pdadapt.labels import LabelStore
from pdadapt.pairs import sample_pairs
from pdadapt.progress import Progress
from pdadapt.recipe import Recipe
from pdadapt.run import Ranking, write_atomic
from pdadapt.teachers import Pair, Point, Scores, Teacher

CHUNK = 8_192  # questions that are tokenised and sorted by length together
PairLabel = tuple[int, int, float]  # positions i and j in the list, log-odds that i is the more relevant


class TrainingList(NamedTuple):
    """One query's documents, best first by the point labels, with what the teacher said of them."""

    query_id: str
    doc_ids: list[str]
    points: list[float | None]
    pairs: list[PairLabel]


def ask_missing(
    questions: Sequence[tuple[str, ...]],
    store: LabelStore,
    ask: Callable[[Sequence[Any]], Iterator[Scores]],
    progress: Progress,
    name: str,
) -> int:
    """Have the teacher answer what the store lacks, each distinct question once, a batch committed at a time.

    ask: yields (index, score) batches for the questions given to it. Returns how many were asked. Raises ModelError
    when a score is not finite: it would be no label.
    """
    missing = [question for question in dict.fromkeys(questions) if store.get(question) is None]
    if not missing:
        return 0
    with progress.task(name, len(missing), "prompts") as advance:
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start : start + CHUNK]
            for batch in ask(chunk):
                if not all(math.isfinite(score) for _, score in batch):
                    raise ModelError("The teacher's answer is not a number; try --set teacher.dtype=float32.")
                store.add([(chunk[index], score) for index, score in batch])
                advance(len(batch))
    return len(missing)


def standardise(values: Sequence[float]) -> list[float]:
    """Zero mean and unit deviation; all zeros when the values are equal."""
    center, deviation = statistics.fmean(values), statistics.pstdev(values)
    return [(value - center) / deviation if deviation else 0.0 for value in values]


def point_labels(
    points: Sequence[Point], student_scores: Sequence[float], store: LabelStore, weight: float
) -> list[float]:
    """A query's point labels: the teacher's scores, or, with a weight, both standardised and added."""
    teacher = [store[point] for point in points]
    if not weight:
        return teacher
    return [
        own + weight * students for own, students in zip(standardise(teacher), standardise(student_scores), strict=True)
    ]


def label(
    ranking: Ranking,
    corpus: Corpus,
    queries: Queries,
    recipe: Recipe,
    store_file: Path,
    keys: tuple[str, str],
    teacher: Callable[[], Teacher],
    progress: Progress,
) -> tuple[list[TrainingList], dict[str, float]]:
    """Points for every candidate, then pairs in the re-ordered lists.

    keys: the store's keys of points and pairs; teacher: loads the teacher, called only when something must be asked.
    Returns the training lists in the order of `ranking`, and figures about the labels.
    """
    wanted = dict.fromkeys(doc_id for ranked in ranking.values() for doc_id, _ in ranked)
    texts = {doc_id: corpus[doc_id].contents for doc_id in wanted}  # each text once, however often it is asked about
    with LabelStore(store_file, "points", keys[0]) as store:
        lists, point_figures = _label_points(ranking, texts, queries, recipe, store, teacher, progress)
    with LabelStore(store_file, "pairs", keys[1]) as store:
        lists, pair_figures = _label_pairs(lists, texts, queries, recipe, store, teacher, progress)
    return lists, point_figures | pair_figures


def _label_points(
    ranking: Ranking,
    texts: dict[str, str],
    queries: Queries,
    recipe: Recipe,
    store: LabelStore,
    teacher: Callable[[], Teacher],
    progress: Progress,
) -> tuple[list[TrainingList], dict[str, float]]:
    """Training lists without pairs yet: each query's n_way best candidates by the point labels."""
    points = {
        query_id: [Point(queries[query_id], texts[doc_id]) for doc_id, _ in ranked]
        for query_id, ranked in ranking.items()
    }
    questions = [point for asked in points.values() for point in asked]
    asked = ask_missing(questions, store, lambda missing: teacher().score_points(missing), progress, "label points")
    lists = []
    for query_id, ranked in ranking.items():
        student_scores = [score for _, score in ranked]
        labels = point_labels(points[query_id], student_scores, store, recipe.teacher.point.student_weight)
        order = sorted(range(len(ranked)), key=lambda i: (-labels[i], i))[: recipe.train.n_way]
        lists.append(TrainingList(query_id, [ranked[i][0] for i in order], [labels[i] for i in order], []))
    return lists, {"points": len(questions), "points_asked": asked}


def _label_pairs(
    lists: Sequence[TrainingList],
    texts: dict[str, str],
    queries: Queries,
    recipe: Recipe,
    store: LabelStore,
    teacher: Callable[[], Teacher],
    progress: Progress,
) -> tuple[list[TrainingList], dict[str, float]]:
    """The lists with pairs of the window, each the mean log-odds of the orders asked."""
    settings = recipe.teacher.pair
    both = settings.order == "both"

    def positions(entry: TrainingList) -> list[tuple[int, int]]:
        seed = f"{recipe.seed}/{entry.query_id}"
        return sample_pairs(len(entry.doc_ids), settings.window, settings.per_query, seed)

    def pair(entry: TrainingList, i: int, j: int) -> Pair:
        return Pair(queries[entry.query_id], texts[entry.doc_ids[i]], texts[entry.doc_ids[j]])

    asked = [(entry, i, j) for entry in lists for i, j in positions(entry)]
    questions = [pair(entry, i, j) for entry, i, j in asked]
    if both:
        questions += [pair(entry, j, i) for entry, i, j in asked]
    prompts = ask_missing(questions, store, lambda missing: teacher().score_pairs(missing), progress, "label pairs")

    ranked_first = [store[question] for question in questions[: len(asked)]]
    ranked_last = [-store[question] for question in questions[len(asked) :]] if both else ranked_first
    log_odds = [(first + last) / 2 for first, last in zip(ranked_first, ranked_last, strict=True)]
    pairs: dict[str, list[PairLabel]] = {entry.query_id: [] for entry in lists}
    for (entry, i, j), value in zip(asked, log_odds, strict=True):
        pairs[entry.query_id].append((i, j, value))
    figures: dict[str, float] = {"pairs": len(asked), "pair_prompts_asked": prompts}
    if asked:
        figures["disagreement"] = statistics.fmean(value < 0 for value in log_odds)  # with the order of the points
        if both:
            orders = list(zip(ranked_first, ranked_last, strict=True))
            figures["flip_rate"] = statistics.fmean((first > 0) != (last > 0) for first, last in orders)
            figures["position_bias"] = statistics.fmean((first - last) / 2 for first, last in orders)
    return [entry._replace(pairs=pairs[entry.query_id]) for entry in lists], figures


def write_lists(path: Path, lists: Iterable[TrainingList]) -> None:
    """Training lists as JSONL, one query a line."""
    write_atomic(path, "".join(json.dumps(entry._asdict(), ensure_ascii=False) + "\n" for entry in lists))


def read_lists(path: Path) -> list[TrainingList]:
    with open(path, encoding="utf-8") as lines:
        return [
            TrainingList(row["query_id"], row["doc_ids"], row["points"], [tuple(pair) for pair in row["pairs"]])
            for row in map(json.loads, lines)
        ]
