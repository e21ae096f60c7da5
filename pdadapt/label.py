"""Stage: ask the teacher what is not in the store yet; build the training lists."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pdadapt.corpus import Corpus, Queries
from pdadapt.labels import LabelStore
from pdadapt.pairs import sample_pairs
from pdadapt.progress import Progress
from pdadapt.recipe import Recipe
from pdadapt.run import Ranking, write_atomic
from pdadapt.teachers import Pair, Point, Scores

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

    ask: yields (index, score) batches for the questions given to it. Returns how many were asked.
    """
    missing = [question for question in dict.fromkeys(questions) if store.get(question) is None]
    if not missing:
        return 0
    with progress.task(name, len(missing), "prompts") as advance:
        for batch in ask(missing):
            store.add([(missing[index], score) for index, score in batch])
            advance(len(batch))
    return len(missing)


def standardise(values: Sequence[float]) -> list[float]:
    """Zero mean and unit deviation; all zeros when the values are equal."""
    center, deviation = statistics.fmean(values), statistics.pstdev(values)
    return [(value - center) / deviation if deviation else 0.0 for value in values]


def point_labels(
    texts: Sequence[Point], student_scores: Sequence[float], store: LabelStore, weight: float
) -> list[float]:
    """A query's point labels: the teacher's scores, or, with a weight, both standardised and added."""
    scores = [store.get(text) for text in texts]
    teacher = [score for score in scores if score is not None]
    assert len(teacher) == len(texts), "every point was asked"
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
    teacher: Callable[[], Any],
    progress: Progress,
) -> tuple[list[TrainingList], dict[str, float]]:
    """Points for every candidate, then pairs in the re-ordered lists.

    keys: the store's keys of points and pairs; teacher: loads the teacher, called only when something must be asked.
    Returns the training lists in the order of `ranking`, and figures about the labels.
    """
    settings = recipe.teacher
    loaded: list[Any] = []

    def load() -> Any:
        if not loaded:
            loaded.append(teacher())
        return loaded[0]

    with LabelStore(store_file, "points", keys[0]) as points, LabelStore(store_file, "pairs", keys[1]) as pairs:
        texts = {
            query_id: [Point(queries[query_id], corpus[doc_id].contents) for doc_id, _ in ranked]
            for query_id, ranked in ranking.items()
        }
        questions = [point for asked in texts.values() for point in asked]
        asked_points = ask_missing(questions, points, lambda q: load().score_points(q), progress, "label points")
        lists: list[TrainingList] = []
        for query_id, ranked in ranking.items():
            student_scores = [score for _, score in ranked]
            values = point_labels(texts[query_id], student_scores, points, settings.point.student_weight)
            order = sorted(range(len(ranked)), key=lambda i: (-values[i], i))[: recipe.train.n_way]
            positions = sample_pairs(
                len(order), settings.pair.window, settings.pair.per_query, f"{recipe.seed}/{query_id}"
            )
            doc_ids = [ranked[i][0] for i in order]
            lists.append(
                TrainingList(query_id, doc_ids, [values[i] for i in order], [(i, j, 0.0) for i, j in positions])
            )

        def in_order(entry: TrainingList, i: int, j: int) -> Pair:
            return Pair(queries[entry.query_id], corpus[entry.doc_ids[i]].contents, corpus[entry.doc_ids[j]].contents)

        both = settings.pair.order == "both"
        wanted = [in_order(entry, i, j) for entry in lists for i, j, _ in entry.pairs]
        if both:
            wanted += [Pair(pair.query, pair.document_b, pair.document_a) for pair in wanted]
        asked_pairs = ask_missing(wanted, pairs, lambda q: load().score_pairs(q), progress, "label pairs")

        def labeled(entry: TrainingList) -> Iterable[tuple[PairLabel, bool, float]]:
            for i, j, _ in entry.pairs:
                first = pairs.get(in_order(entry, i, j))
                second = pairs.get(in_order(entry, j, i)) if both else None
                assert first is not None
                if second is None:
                    yield (i, j, first), False, 0.0
                else:
                    yield (i, j, (first - second) / 2), (first > 0) == (second > 0), (first + second) / 2

        details = [list(labeled(entry)) for entry in lists]
    lists = [entry._replace(pairs=[pair for pair, _, _ in found]) for entry, found in zip(lists, details, strict=True)]
    flat = [item for found in details for item in found]
    figures: dict[str, float] = {
        "points": len(questions),
        "points_asked": asked_points,
        "pairs": len(flat),
        "pair_prompts_asked": asked_pairs,
    }
    if flat:
        figures["disagreement"] = statistics.fmean(log_odds < 0 for (_, _, log_odds), _, _ in flat)
        if both:
            figures["flip_rate"] = statistics.fmean(flips for _, flips, _ in flat)
            figures["position_bias"] = statistics.fmean(bias for _, _, bias in flat)
    return lists, figures


def write_lists(path: Path, lists: Iterable[TrainingList]) -> None:
    """Training lists as JSONL, one query a line."""
    write_atomic(path, "".join(json.dumps(entry._asdict(), ensure_ascii=False) + "\n" for entry in lists))


def read_lists(path: Path) -> list[TrainingList]:
    with open(path, encoding="utf-8") as lines:
        return [
            TrainingList(row["query_id"], row["doc_ids"], row["points"], [tuple(pair) for pair in row["pairs"]])
            for row in map(json.loads, lines)
        ]
