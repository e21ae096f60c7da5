"""Stage: ask the teacher what is not in the store yet; build the training lists."""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pdadapt.corpus import Corpus, Queries
from pdadapt.errors import ModelError, RunError, reason
from pdadapt.labels import LabelStore
from pdadapt.pairs import sample_pairs
from pdadapt.progress import Progress
from pdadapt.recipe import Recipe
from pdadapt.run import Ranking, write_atomic
from pdadapt.teachers import Pair, PairTeacher, Point, PointTeacher, Scores, Task
from pdadapt.teachers.choose import model_of

Candidates = Mapping[str, Sequence[tuple[str, float | None]]]  # by query: document, and the student's score of it
PairLabel = tuple[int, int, float]  # positions i and j in the list, log-odds that i is the more relevant


class TrainingList(NamedTuple):
    """One query's documents, best first by the point labels, with what the teacher said of them."""

    query_id: str
    doc_ids: list[str]
    points: list[float | None]
    pairs: list[PairLabel]
    relevant: Sequence[str] = ()
    """Documents that people labeled relevant, for L_CL."""


def ask_missing(
    questions: Sequence[tuple[str, ...]],
    store: LabelStore,
    load: Callable[[], Callable[[Sequence[Any], Sequence[Any]], Iterator[Scores]]],
    progress: Progress,
    name: str,
    tally: Path | None = None,
) -> int:
    """Have the teacher answer what the store lacks, each distinct question once, a batch committed at a time.

    load: called when there is something to ask; what it gives yields (index, score) batches for the questions put to
    it, which are some of all that it is told, and no score where the teacher gave no answer.
    tally: a file that keeps, by name, how many were missing when this stage first began, through kills.
    Returns that number. Raises ModelError when a score is not finite (it would be no label), and when the
    teacher stops before it has come to every question.
    """
    among = list(dict.fromkeys(questions))
    missing = [question for question in among if store.get(question) is None]
    asked = len(missing) if tally is None else first_count(tally, name, len(missing))
    if not missing:
        return asked
    ask = load()
    left = set(range(len(missing)))
    with progress.task(name, len(missing), "prompts") as advance:
        for batch in ask(missing, among):
            if not all(score is None or math.isfinite(score) for _, score in batch):
                raise ModelError("The teacher's answer is not a number; try --set teacher.dtype=float32.")
            store.add([(missing[index], score) for index, score in batch if score is not None])
            left.difference_update(index for index, _ in batch)
            advance(len(batch))
    if left:
        raise ModelError(f"The teacher stopped with {len(left):,} of {len(missing):,} questions left; try again.")
    return asked


def first_count(tally: Path, name: str, number: int) -> int:
    """The number that was first given under this name."""
    counts = json.loads(tally.read_text(encoding="utf-8")) if tally.exists() else {}
    if name not in counts:
        write_atomic(tally, json.dumps({**counts, name: number}) + "\n")
    return int(counts.get(name, number))


def check_answers(answers: Sequence[float | None], task: Task) -> int:
    """How many answers are missing. Raises ModelError when all are: there is nothing to learn from."""
    missing = answers.count(None)
    if missing and missing == len(answers):
        without = " Without pairs: --set teacher.pair.per_query=0." if task == "pair" else ""
        raise ModelError(
            f"The teacher gave no answer to any of {missing:,} {task}s: an imported teacher needs labels of exactly "
            f"these texts and this --name, a server must list the label words among its top_logprobs.{without}"
        )
    return missing


def standardise(values: Sequence[float | None]) -> list[float | None]:
    """Zero mean and unit deviation of the values there are; all zeros when they are equal."""
    known = [value for value in values if value is not None]
    if not known:
        return list(values)
    center, deviation = statistics.fmean(known), statistics.pstdev(known)
    return [None if value is None else (value - center) / deviation if deviation else 0.0 for value in values]


def point_labels(
    teacher: Sequence[float | None], student_scores: Sequence[float | None], weight: float
) -> list[float | None]:
    """A query's point labels: the teacher's scores, or, with a weight, both standardised and added."""
    if not weight:
        return list(teacher)
    own, students = standardise(teacher), standardise(student_scores)
    return [
        None if score is None or student is None else score + weight * student
        for score, student in zip(own, students, strict=True)
    ]


def asked_orders(order: str, i: int, j: int, doc_ids: Sequence[str], seed: str) -> list[tuple[int, int]]:
    """In which orders the teacher is shown documents i and j of a list, of which i ranks higher.

    A random order is that of the two documents, whatever their ranks, so that another iteration asks the same.
    """
    if order == "both":
        return [(i, j), (j, i)]
    if order == "random":
        first, second = sorted((i, j), key=lambda position: doc_ids[position])
        swapped = random.Random(f"{seed}/{doc_ids[first]}/{doc_ids[second]}").random() < 0.5
        return [(second, first) if swapped else (first, second)]
    return [(i, j)]


def label(
    ranking: Ranking,
    corpus: Corpus,
    queries: Queries,
    recipe: Recipe,
    store_file: Path,
    keys: Mapping[Task, str],
    teachers: Callable[[Any], Any],
    progress: Progress,
    relevant: Mapping[str, Sequence[str]] | None = None,
    tally: Path | None = None,
) -> tuple[list[TrainingList], dict[str, float]]:
    """Points for every candidate, then pairs in the re-ordered lists.

    keys: the store's keys of points, and of pairs if a teacher is asked about them; teachers: loads the teacher of
    a task, called only when something must be asked; relevant: documents that people labeled so, each of which is a
    candidate and in its query's list; tally: see ask_missing. Returns the training lists in the order of `ranking`,
    and figures about the labels.
    """
    relevant = relevant or {}
    candidates = {query_id: add_relevant(ranked, relevant.get(query_id, ())) for query_id, ranked in ranking.items()}
    wanted = dict.fromkeys(doc_id for ranked in candidates.values() for doc_id, _ in ranked)
    texts = {doc_id: corpus[doc_id].contents for doc_id in wanted}  # each text once, however often it is asked about
    with LabelStore(store_file, "points", keys["point"], model_of(recipe.teacher, "point").model) as store:
        store.remember("document", texts.items())
        store.remember("query", ((query_id, queries[query_id]) for query_id in ranking))
        lists, figures = _label_points(
            candidates, relevant, texts, queries, recipe, store, lambda: teachers("point"), progress, tally
        )
    pairs = [
        (row, i, j)
        for row, entry in enumerate(lists)
        for i, j in sample_pairs(
            len(entry.doc_ids),
            recipe.teacher.pair.window,
            recipe.teacher.pair.per_query,
            f"{recipe.seed}/{entry.query_id}",
        )
        if texts[entry.doc_ids[i]] != texts[entry.doc_ids[j]]  # of two copies neither is the better
    ]
    log_odds: list[float | None] = [None] * len(pairs)
    pair_figures: dict[str, float] = {"pair_prompts_asked": 0}
    if recipe.teacher.pair.scoring == "derived":
        log_odds = [derive(lists[row], i, j, recipe.train.temperature) for row, i, j in pairs]
    elif "pair" in keys:
        with LabelStore(store_file, "pairs", keys["pair"], model_of(recipe.teacher, "pair").model) as store:
            log_odds, pair_figures = _label_pairs(
                lists, pairs, texts, queries, recipe, store, lambda: teachers("pair"), progress, tally
            )
    labels: list[list[PairLabel]] = [[] for _ in lists]
    for (row, i, j), value in zip(pairs, log_odds, strict=True):
        if value is not None:
            labels[row].append((i, j, value))
    known = [value for value in log_odds if value is not None]
    figures |= {"pairs": len(known), **pair_figures}
    if recipe.teacher.pair.scoring == "derived":
        figures["pairs_derived"] = len(known)
    if known and recipe.teacher.pair.asked:
        figures["disagreement"] = statistics.fmean(value < 0 for value in known)
    return [entry._replace(pairs=found) for entry, found in zip(lists, labels, strict=True)], figures


def add_relevant(ranked: Sequence[tuple[str, float]], relevant: Sequence[str]) -> list[tuple[str, float | None]]:
    """The candidates, then those labeled relevant that the student did not retrieve."""
    retrieved = {doc_id for doc_id, _ in ranked}
    return [*ranked, *((doc_id, None) for doc_id in relevant if doc_id not in retrieved)]


def _label_points(
    candidates: Candidates,
    relevant: Mapping[str, Sequence[str]],
    texts: dict[str, str],
    queries: Queries,
    recipe: Recipe,
    store: LabelStore,
    teacher: Callable[[], PointTeacher],
    progress: Progress,
    tally: Path | None,
) -> tuple[list[TrainingList], dict[str, float]]:
    """Training lists without pairs yet: each query's n_way best candidates by the point labels, best first.

    Documents labeled relevant take the places of the worst, if they are not among the best.
    """
    points = {
        query_id: [Point(queries[query_id], texts[doc_id]) for doc_id, _ in ranked]
        for query_id, ranked in candidates.items()
    }
    questions = [point for asked in points.values() for point in asked]
    asked = ask_missing(questions, store, lambda: teacher().score_points, progress, "label points", tally)
    answers = {query_id: [store.get(point) for point in asked_of] for query_id, asked_of in points.items()}
    unanswered = check_answers([answer for scores in answers.values() for answer in scores], "point")
    lists = []
    for query_id, ranked in candidates.items():
        labels = point_labels(answers[query_id], [score for _, score in ranked], recipe.teacher.point.student_weight)
        labeled = set(relevant.get(query_id, ()))
        order = sorted(range(len(ranked)), key=lambda i: (_descending(labels[i]), i))
        kept = set(sorted(order, key=lambda i: ranked[i][0] not in labeled)[: recipe.train.n_way])
        order = [i for i in order if i in kept]
        doc_ids = [ranked[i][0] for i in order]
        own = [doc_id for doc_id in doc_ids if doc_id in labeled]
        lists.append(TrainingList(query_id, doc_ids, [labels[i] for i in order], [], own))
    return lists, {"points": len(questions), "points_asked": asked, "points_unanswered": unanswered}


def _descending(label: float | None) -> float:
    """Sorts the best first, and what has no label last."""
    return math.inf if label is None else -label


def derive(entry: TrainingList, i: int, j: int, temperature: float) -> float | None:
    """Log-odds from the point labels: sigmoid(s_i - s_j) is what points say of a pair."""
    first, second = entry.points[i], entry.points[j]
    return None if first is None or second is None else (first - second) / temperature


def _label_pairs(
    lists: Sequence[TrainingList],
    pairs: Sequence[tuple[int, int, int]],
    texts: dict[str, str],
    queries: Queries,
    recipe: Recipe,
    store: LabelStore,
    teacher: Callable[[], PairTeacher],
    progress: Progress,
    tally: Path | None,
) -> tuple[list[float | None], dict[str, float]]:
    """For each pair (list, i, j) the mean log-odds, for i, of the orders asked, None if one lacks its answer."""
    order = recipe.teacher.pair.order

    def question(entry: TrainingList, a: int, b: int) -> Pair:
        return Pair(queries[entry.query_id], texts[entry.doc_ids[a]], texts[entry.doc_ids[b]])

    asked = [
        asked_orders(order, i, j, lists[row].doc_ids, f"{recipe.seed}/{lists[row].query_id}") for row, i, j in pairs
    ]
    questions = [
        [question(lists[row], a, b) for a, b in orders] for (row, _, _), orders in zip(pairs, asked, strict=True)
    ]
    flat = [one for both in questions for one in both]
    prompts = ask_missing(flat, store, lambda: teacher().score_pairs, progress, "label pairs", tally)

    log_odds: list[float | None] = []
    complete: list[list[float]] = []  # of the pairs with all their answers: log-odds for what stood first
    for (_, i, j), orders, shown in zip(pairs, asked, questions, strict=True):
        answers = [answer for one in shown if (answer := store.get(one)) is not None]
        if len(answers) < len(orders):
            log_odds.append(None)
            continue
        complete.append(answers)
        log_odds.append(
            statistics.fmean(
                answer if which == (i, j) else -answer for which, answer in zip(orders, answers, strict=True)
            )
        )
    figures: dict[str, float] = {"pair_prompts_asked": prompts, "pairs_unanswered": check_answers(log_odds, "pair")}
    return log_odds, figures | ({} if order == "as_ranked" else order_figures(complete))


def order_figures(answers: Sequence[Sequence[float]]) -> dict[str, float]:
    """How far the order of the documents decides: PairDistill, appendix A.2.

    answers: of each pair, the log-odds for what stood first, in one order or in both. `position_bias` is their mean;
    `flip_rate` the share of pairs, asked in both orders, where either order prefers what stands first, or what second.
    """
    figures = {}
    if answers:
        figures["position_bias"] = statistics.fmean(map(statistics.fmean, answers))
    both = [pair for pair in answers if len(pair) == 2]
    if both:
        figures["flip_rate"] = statistics.fmean(first * second > 0 for first, second in both)
    return figures


def write_lists(path: Path, lists: Iterable[TrainingList]) -> None:
    """Training lists as JSONL, one query a line."""
    write_atomic(path, (json.dumps(entry._asdict(), ensure_ascii=False) + "\n" for entry in lists))


def read_lists(path: Path) -> list[TrainingList]:
    """Raises RunError when the file is damaged."""
    try:
        with open(path, encoding="utf-8") as lines:
            rows = map(json.loads, lines)
            return [TrainingList(**row | {"pairs": [tuple(pair) for pair in row["pairs"]]}) for row in rows]
    except (ValueError, LookupError, TypeError) as error:
        raise RunError(
            f"{path} is damaged ({reason(error)}); remove it, and the same `pdadapt adapt` writes it anew."
        ) from None
