"""Stage: ask the teacher what is not in the store yet; build the training lists."""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pdadapt.corpus import Corpus, Queries
from pdadapt.errors import ModelError
from pdadapt.labels import LabelStore
from pdadapt.pairs import sample_pairs
from pdadapt.progress import Progress
from pdadapt.recipe import PairSettings, Recipe
from pdadapt.run import Ranking, write_atomic
from pdadapt.teachers import Pair, PairTeacher, Point, PointTeacher, Scores

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

    ask: yields (index, score) batches for the questions given to it; no score where the teacher gave no answer.
    Returns how many were asked. Raises ModelError when a score is not finite: it would be no label.
    """
    missing = [question for question in dict.fromkeys(questions) if store.get(question) is None]
    if not missing:
        return 0
    with progress.task(name, len(missing), "prompts") as advance:
        for batch in ask(missing):
            if not all(score is None or math.isfinite(score) for _, score in batch):
                raise ModelError("The teacher's answer is not a number; try --set teacher.dtype=float32.")
            store.add([(missing[index], score) for index, score in batch if score is not None])
            advance(len(batch))
    return len(missing)


def standardise(values: Sequence[float | None]) -> list[float | None]:
    """Zero mean and unit deviation of the values there are; all zeros when they are equal."""
    known = [value for value in values if value is not None]
    if not known:
        return list(values)
    center, deviation = statistics.fmean(known), statistics.pstdev(known)
    return [None if value is None else (value - center) / deviation if deviation else 0.0 for value in values]


def point_labels(teacher: Sequence[float | None], student_scores: Sequence[float], weight: float) -> list[float | None]:
    """A query's point labels: the teacher's scores, or, with a weight, the student's own, corrected by the teacher.

    The order is that of weight x student + teacher, both standardised; the scale is the student's own, so that a
    teacher who agrees teaches nothing (with train.temperature equal to train.student_temperature).
    """
    if not weight:
        return list(teacher)
    correction = statistics.pstdev(student_scores) / weight
    return [
        None if score is None else own + correction * score
        for own, score in zip(student_scores, standardise(teacher), strict=True)
    ]


def asked_orders(order: str, i: int, j: int, seed: str) -> list[tuple[int, int]]:
    """In which orders the teacher is shown documents i and j, of which i ranks higher."""
    if order == "both":
        return [(i, j), (j, i)]
    if order == "random":
        return [(i, j) if random.Random(f"{seed}/{i}/{j}").random() < 0.5 else (j, i)]
    return [(i, j)]


def label(
    ranking: Ranking,
    corpus: Corpus,
    queries: Queries,
    recipe: Recipe,
    store_file: Path,
    keys: tuple[str, str | None],
    teachers: Callable[[Any], Any],
    progress: Progress,
) -> tuple[list[TrainingList], dict[str, float]]:
    """Points for every candidate, then pairs in the re-ordered lists.

    keys: the store's keys of points and pairs (None: no teacher is asked about pairs); teachers: loads the teacher of
    a task, called only when something must be asked. Returns the training lists in the order of `ranking`, and
    figures about the labels.
    """
    wanted = dict.fromkeys(doc_id for ranked in ranking.values() for doc_id, _ in ranked)
    texts = {doc_id: corpus[doc_id].contents for doc_id in wanted}  # each text once, however often it is asked about
    with LabelStore(store_file, "points", keys[0]) as store:
        store.remember(texts.items())
        store.remember((query_id, queries[query_id]) for query_id in ranking)
        lists, figures = _label_points(ranking, texts, queries, recipe, store, lambda: teachers("point"), progress)
    pairs = [
        [
            (entry, i, j)
            for i, j in sample_pairs(
                len(entry.doc_ids),
                recipe.teacher.pair.window,
                recipe.teacher.pair.per_query,
                f"{recipe.seed}/{entry.query_id}",
            )
        ]
        for entry in lists
    ]
    if recipe.teacher.pair.scoring == "derived":
        found = [_derive(wanted_pairs, recipe.train.temperature) for wanted_pairs in pairs]
        figures |= {"pairs": sum(map(len, found)), "pair_prompts_asked": 0}
    elif keys[1] is not None:
        with LabelStore(store_file, "pairs", keys[1]) as store:
            found, pair_figures = _label_pairs(pairs, texts, queries, recipe, store, lambda: teachers("pair"), progress)
        figures |= pair_figures
    else:
        found = [[] for _ in lists]
        figures |= {"pairs": 0, "pair_prompts_asked": 0}
    return [entry._replace(pairs=labels) for entry, labels in zip(lists, found, strict=True)], figures


def _label_points(
    ranking: Ranking,
    texts: dict[str, str],
    queries: Queries,
    recipe: Recipe,
    store: LabelStore,
    teacher: Callable[[], PointTeacher],
    progress: Progress,
) -> tuple[list[TrainingList], dict[str, float]]:
    """Training lists without pairs yet: each query's n_way best candidates by the point labels."""
    points = {
        query_id: [Point(queries[query_id], texts[doc_id]) for doc_id, _ in ranked]
        for query_id, ranked in ranking.items()
    }
    questions = [point for asked in points.values() for point in asked]
    asked = ask_missing(questions, store, lambda missing: teacher().score_points(missing), progress, "label points")
    lists, unanswered = [], 0
    for query_id, ranked in ranking.items():
        scores = [store.get(point) for point in points[query_id]]
        unanswered += scores.count(None)
        labels = point_labels(scores, [score for _, score in ranked], recipe.teacher.point.student_weight)
        order = sorted(range(len(ranked)), key=lambda i: (_descending(labels[i]), i))[: recipe.train.n_way]
        lists.append(TrainingList(query_id, [ranked[i][0] for i in order], [labels[i] for i in order], []))
    return lists, {"points": len(questions), "points_asked": asked, "points_unanswered": unanswered}


def _descending(label: float | None) -> float:
    """Sorts the best first, and what has no label last."""
    return math.inf if label is None else -label


def _derive(pairs: Sequence[tuple[TrainingList, int, int]], temperature: float) -> list[PairLabel]:
    """Log-odds from the point labels: sigmoid(s_i - s_j) is what points say of a pair."""
    labels = [(i, j, entry.points[i], entry.points[j]) for entry, i, j in pairs]
    return [(i, j, (a - b) / temperature) for i, j, a, b in labels if a is not None and b is not None]


def _label_pairs(
    pairs: Sequence[Sequence[tuple[TrainingList, int, int]]],
    texts: dict[str, str],
    queries: Queries,
    recipe: Recipe,
    store: LabelStore,
    teacher: Callable[[], PairTeacher],
    progress: Progress,
) -> tuple[list[list[PairLabel]], dict[str, float]]:
    """Each list's pairs with the mean log-odds of the orders asked, and what the answers say of the teacher.

    Figures: `flip_rate` (share of pairs whose answer changes with the order), `position_bias` (mean log-odds for
    whatever stands first), `disagreement` (share that contradicts the order of the points; PairDistill, appendix A.2).
    """
    settings: PairSettings = recipe.teacher.pair

    def question(entry: TrainingList, i: int, j: int) -> Pair:
        return Pair(queries[entry.query_id], texts[entry.doc_ids[i]], texts[entry.doc_ids[j]])

    asked = [
        [(i, j, asked_orders(settings.order, i, j, f"{recipe.seed}/{entry.query_id}")) for entry, i, j in wanted]
        for wanted in pairs
    ]
    questions = {
        (row, a, b): question(pairs[row][0][0], a, b)
        for row, wanted in enumerate(asked)
        for _, _, orders in wanted
        for a, b in orders
    }
    prompts = ask_missing(
        list(questions.values()), store, lambda missing: teacher().score_pairs(missing), progress, "label pairs"
    )
    found: list[list[PairLabel]] = []
    answers: list[tuple[float, ...]] = []  # of each pair with all its answers: log-odds for what stood first
    unanswered = 0
    for row, wanted in enumerate(asked):
        found.append([])
        for i, j, orders in wanted:
            known = [(order, store.get(questions[row, *order])) for order in orders]
            scores = [(score if order == (i, j) else -score) for order, score in known if score is not None]
            unanswered += len(orders) - len(scores)
            if len(scores) == len(orders):
                found[-1].append((i, j, statistics.fmean(scores)))
                answers.append(tuple(score for _, score in known if score is not None))
    figures: dict[str, float] = {
        "pairs": len(answers),
        "pair_prompts_asked": prompts,
        "pair_prompts_unanswered": unanswered,
    }
    if answers:
        log_odds = [value for labels in found for _, _, value in labels]
        figures["disagreement"] = statistics.fmean(value < 0 for value in log_odds)
        if settings.order != "as_ranked":
            figures["position_bias"] = statistics.fmean(statistics.fmean(scores) for scores in answers)
        if settings.order == "both":
            figures["flip_rate"] = statistics.fmean((first > 0) == (second > 0) for first, second in answers)
    return found, figures


def write_lists(path: Path, lists: Iterable[TrainingList]) -> None:
    """Training lists as JSONL, one query a line."""
    write_atomic(path, "".join(json.dumps(entry._asdict(), ensure_ascii=False) + "\n" for entry in lists))


def read_lists(path: Path) -> list[TrainingList]:
    with open(path, encoding="utf-8") as lines:
        return [
            TrainingList(row["query_id"], row["doc_ids"], row["points"], [tuple(pair) for pair in row["pairs"]])
            for row in map(json.loads, lines)
        ]
