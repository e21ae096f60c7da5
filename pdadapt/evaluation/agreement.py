"""How far a student agrees with its teacher on held-out queries: does it learn? Needs no relevance judgments."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from scipy.special import expit
from scipy.stats import kendalltau
from sklearn.metrics import ndcg_score

from pdadapt.data.corpus import Corpus, Queries
from pdadapt.evaluation.held_out import DECISIVE_MEASURE, judging
from pdadapt.evaluation.results import measures_from_json, measures_to_json
from pdadapt.evaluation.significance import compare_values
from pdadapt.labeling.store import LabelStore
from pdadapt.labeling.training_list import TrainingList, derive, read_lists
from pdadapt.runs.artefacts import read_json
from pdadapt.runs.context import RunContext
from pdadapt.runs.folder import student_name
from pdadapt.runtime.files import write_atomic
from pdadapt.students.encoding import encode_documents
from pdadapt.students.load import load_student
from pdadapt.teachers.label_key import teacher_key

AGREEMENT_MEASURES = (DECISIVE_MEASURE, "rank correlation", "nDCG@10")


def score_lists(
    model: Any,
    lists: Iterable[TrainingList],
    corpus: Corpus,
    queries: Queries,
    batch_tokens: int | None,
    advance: Callable[[int], None] = lambda n: None,
) -> list[list[float]]:
    """The student's score of every document of every list. advance: called with the number of lists just scored."""
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
    """Each of AGREEMENT_MEASURES, by query id, for every list that `says_enough`. The teacher's labels are the truth.

    every_score: the result of score_lists for these lists.

    pair accuracy: share of the pairs that the student orders like the teacher, weighted by the teacher's confidence
    |2 P_pair - 1|. Without pair labels it is computed on all pairs, from points / temperature.
    rank correlation: Kendall's tau-b with the points.
    nDCG@10: with sigmoid(points / temperature) as gains.
    """
    values: dict[str, dict[str, float]] = {name: {} for name in AGREEMENT_MEASURES}
    for entry, scores in zip(lists, every_score, strict=True):
        labeled = [(found, point) for found, point in zip(scores, entry.points, strict=True) if point is not None]
        weighed = [
            (abs(math.tanh(odds / 2)), (scores[i] - scores[j]) * odds > 0)
            for i, j, odds in labeled_or_derived_pairs(entry, temperature)
        ]
        if says_enough(entry, temperature):
            found, points = zip(*labeled, strict=True)
            gains = [expit(point / temperature) for point in points]
            right = sum(weight for weight, alike in weighed if alike) / sum(weight for weight, _ in weighed)
            tau = kendalltau(found, points).statistic
            measured = (right, 0.0 if math.isnan(tau) else tau, ndcg_score([gains], [found], k=10))
            for name, value in zip(AGREEMENT_MEASURES, measured, strict=True):
                values[name][entry.query_id] = float(value)
    return values


def says_enough(entry: TrainingList, temperature: float) -> bool:
    """Whether a list can tell students apart: its points differ, and the teacher prefers a document of some pair."""
    known = {point for point in entry.points if point is not None}
    return len(known) > 1 and any(math.tanh(odds / 2) for *_, odds in labeled_or_derived_pairs(entry, temperature))


def labeled_or_derived_pairs(entry: TrainingList, temperature: float) -> Iterator[tuple[int, int, float]]:
    """The pairs of a list: (i, j, log-odds that i is more relevant). Without pair labels, all pairs by their points."""
    if entry.pairs:
        yield from entry.pairs
        return
    for i, j in itertools.combinations(range(len(entry.doc_ids)), 2):
        odds = derive(entry, i, j, temperature)
        if odds is not None:
            yield i, j, odds


def measure_agreement(context: RunContext, iteration: int) -> None:
    """Measure the agreement with the teacher on the held-out lists, of the students of `compared_students`.

    Leaves agreement.json, and held-out.jsonl with the scores of every student on every list. Does nothing if they are
    there, or no query is held out.
    """
    recipe, run, progress = context.recipe, context.run, context.progress
    folder = run.iteration(iteration)
    if not context.held_out or (folder / "agreement.json").exists():
        return
    every = read_lists(folder / "lists.jsonl", judging(context).__contains__)
    lists = by_teacher_alone(context, every)
    numbers = compared_students(iteration)
    values = []
    rows: list[dict[str, Any]] = [
        {"query_id": each.query_id, "doc_ids": each.doc_ids, "points": each.points, "students": {}} for each in lists
    ]
    with progress.task("agreement", len(numbers) * len(lists), "lists") as advance:
        for number in numbers:
            model = load_student(str(run.checkpoint(number)), recipe.student)
            scores = score_lists(model, lists, context.corpus, context.queries, recipe.retrieve.batch_tokens, advance)
            values.append(agreement(lists, scores, recipe.train.temperature))
            for row, scored in zip(rows, scores, strict=True):
                agreed = {name: each.get(row["query_id"]) for name, each in values[-1].items()}
                row["students"][student_name(number)] = {"scores": scored, "agreement": agreed}
    write_atomic(folder / "held-out.jsonl", (json.dumps(row) + "\n" for row in rows))
    pair = (0, len(numbers) - 1)
    measured = compare_values(values, recipe.evaluate, recipe.seed, [pair]) if values[0][DECISIVE_MEASURE] else {}
    write_atomic(folder / "agreement.json", json.dumps(measures_to_json(measured), indent=2) + "\n")


def by_teacher_alone(context: RunContext, lists: Iterable[TrainingList]) -> list[TrainingList]:
    """The lists with the labels of the teacher alone.

    With point.student_weight the labels contain the student's own scores. The student before training would agree with
    such labels more than any other.
    """
    recipe, corpus, queries = context.recipe, context.corpus, context.queries
    if not recipe.teacher.point.student_weight:
        return list(lists)
    derived = recipe.teacher.pair.scoring == "derived"
    with LabelStore(context.run.store(recipe), "points", teacher_key(recipe.teacher, "point", corpus)) as store:
        return [
            entry._replace(
                points=[store.get((queries[entry.query_id], corpus[doc_id].contents)) for doc_id in entry.doc_ids],
                pairs=[] if derived else entry.pairs,  # derived pairs are derived again, from these points
            )
            for entry in lists
        ]


def compared_students(iteration: int) -> list[int]:
    """The students whose agreement is measured: the base, and the student before and after this training."""
    return list(dict.fromkeys([0, iteration - 1, iteration]))


def has_learned(context: RunContext, iteration: int) -> bool:
    """Whether the agreement rose in this iteration. True if no held-out query says enough to tell."""
    if not context.held_out:
        return True
    file = context.run.iteration(iteration) / "agreement.json"
    result = read_json(file, measures_from_json).get(DECISIVE_MEASURE)
    return result is None or result.means[-1] > result.means[-2]
