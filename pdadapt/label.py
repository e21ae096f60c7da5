"""Stage: ask the teacher what is not in the store yet; build the training lists.

Texts pass by in chunks, so that memory does not grow with the number of prompts; ids are kept (and, for teachers that
are asked document by document, which queries a document is a candidate of).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pdadapt.ask import Journal, Questions, ask_missing, check_answers, in_chunks
from pdadapt.bradley_terry import Fit, contradictions, fit
from pdadapt.corpus import Corpus, Queries, fingerprint
from pdadapt.labels import Labels, LabelStore
from pdadapt.pairs import Positions, choose_pairs, pairs_of_round, standardise
from pdadapt.progress import Progress
from pdadapt.recipe import Recipe
from pdadapt.run import RunFile
from pdadapt.teachers import Pair, Point, Task
from pdadapt.teachers.choose import by_document, model_of
from pdadapt.training_lists import TrainingList, around_pairs, derive

BY_DOCUMENT = 8  # times as many questions in a chunk: its queries are many, and encoded once for all of it
TEXTS = 4_096  # of documents kept at hand: more than one query's


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


@dataclass
class Labeling:
    """What is asked about the candidates of queries, and the training lists that the answers make.

    Lists and pairs follow from the candidates and the point labels, so they are made when they are needed.
    """

    ranking: RunFile
    corpus: Corpus
    queries: Queries
    recipe: Recipe
    relevant: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Documents that people labeled so, each of which is a candidate and in its query's list."""

    @functools.cached_property
    def text(self) -> Callable[[str], str]:
        """A document's contents by its id; what was read last is at hand, for lists and pairs ask for it again."""
        return functools.lru_cache(TEXTS)(lambda doc_id: self.corpus[doc_id].contents)

    def candidates(self, query_id: str) -> list[tuple[str, float | None]]:
        """What was retrieved, then what is labeled relevant and was not; with the scores of retrieval."""
        ranked = self.ranking[query_id]
        retrieved = {doc_id for doc_id, _ in ranked}
        return [*ranked, *((doc_id, None) for doc_id in self.relevant.get(query_id, ()) if doc_id not in retrieved)]

    def points(self) -> Questions:
        """Every candidate of every query."""
        if by_document(self.recipe.teacher, "point"):
            asking: dict[str, list[str]] = {}
            for query_id in self.ranking:
                for doc_id, _ in self.candidates(query_id):
                    asking.setdefault(doc_id, []).append(query_id)

            def about(doc_ids: Sequence[str]) -> Iterator[Point]:
                for doc_id in doc_ids:
                    yield from (Point(self.queries[query_id], self.text(doc_id)) for query_id in asking[doc_id])

            sizes = {doc_id: len(query_ids) for doc_id, query_ids in asking.items()}
            return Questions(in_chunks(sizes, sizes, BY_DOCUMENT), about)

        def of(query_ids: Sequence[str]) -> Iterator[Point]:
            for query_id in query_ids:
                query = self.queries[query_id]
                yield from (Point(query, self.text(doc_id)) for doc_id, _ in self.candidates(query_id))

        return Questions(self.by_query(), of)

    def pairs(self, points: Labels, pairs: Labels, number: int = 0) -> Questions:
        """The pairs of every query's list that a round asks about, in the orders that the recipe asks for.

        pairs: the answers of earlier rounds.
        """
        settings = self.recipe.teacher.pair
        orders = 2 if settings.order == "both" else 1

        def of(query_ids: Sequence[str]) -> Iterator[Pair]:
            for query_id in query_ids:
                entry, _ = self.list_of(query_id, points)
                texts = self.texts(entry)
                chosen = itertools.islice(self.choose(entry, texts, pairs), number, number + 1)
                for i, j in itertools.chain.from_iterable(chosen):
                    for a, b in self.orders(entry, i, j):
                        yield Pair(self.queries[query_id], texts[a], texts[b])

        count = functools.cache(lambda listed: orders * pairs_of_round(settings, listed, number))
        sizes = {query_id: count(self.recipe.train.paired(size)) for query_id, size in self.sizes().items()}
        return Questions([(query_ids, sum(map(sizes.__getitem__, query_ids))) for query_ids, _ in self.by_query()], of)

    def by_query(self) -> list[tuple[Sequence[str], int]]:
        """Chunks of queries, of points and pairs alike, so that a shard's pairs want no other shard's points."""
        return in_chunks(self.ordered(), self.sizes())

    def remember(self, store: LabelStore, query_ids: Iterable[str]) -> None:
        """Keep the texts of these queries and their candidates with their ids, so that labels can be exported without
        the corpus.
        """
        ids = list(query_ids)
        candidates = (doc_id for query_id in ids for doc_id, _ in self.candidates(query_id))
        store.remember("document", ((doc_id, self.text(doc_id)) for doc_id in dict.fromkeys(candidates)))
        store.remember("query", ((query_id, self.queries[query_id]) for query_id in ids))

    def sizes(self) -> dict[str, int]:
        """How many candidates each query has, at most."""
        return {query_id: size + len(self.relevant.get(query_id, ())) for query_id, size in self.ranking.sizes.items()}

    def ordered(self) -> list[str]:
        """The query ids, of queries whose texts are alike (or begin so) one after the other."""
        return sorted(self.ranking, key=lambda query_id: (self.queries[query_id], query_id))

    def list_of(self, query_id: str, points: Labels) -> tuple[TrainingList, list[float | None]]:
        """The candidates that pairs are chosen of (the n_way best or all: train.list), best first by the point labels,
        without pairs. Also what the teacher said of each candidate.

        Documents labeled relevant take the places of the worst, if they are not among the best.
        """
        candidates, query = self.candidates(query_id), self.queries[query_id]
        answers = [points.get((query, self.text(doc_id))) for doc_id, _ in candidates]
        labels = point_labels(answers, [score for _, score in candidates], self.recipe.teacher.point.student_weight)
        labeled = set(self.relevant.get(query_id, ()))
        order = sorted(range(len(candidates)), key=lambda i: (_descending(labels[i]), i))
        most = self.recipe.train.paired(len(candidates))
        kept = set(sorted(order, key=lambda i: candidates[i][0] not in labeled)[:most])
        order = [i for i in order if i in kept]
        doc_ids = [candidates[i][0] for i in order]
        own = [doc_id for doc_id in doc_ids if doc_id in labeled]
        return TrainingList(query_id, doc_ids, [labels[i] for i in order], [], own), answers

    def listed(self, entry: TrainingList) -> TrainingList:
        """What is trained on of the candidates that pairs were chosen of."""
        train = self.recipe.train
        if train.list == "best":
            return entry
        return around_pairs(entry, train.n_way, f"{self.recipe.seed}/{entry.query_id}/list")

    def texts(self, entry: TrainingList) -> list[str]:
        return [self.text(doc_id) for doc_id in entry.doc_ids]

    def choose(self, entry: TrainingList, texts: Sequence[str], pairs: Labels | None) -> Iterator[Positions]:
        """Which pairs of a list are asked about, round by round: of two copies neither is the better."""
        scores = dict(self.candidates(entry.query_id))

        def refit(asked: Positions) -> Fit:
            found = [(i, j, self.pair_label(entry, texts, i, j, pairs)) for i, j in asked]
            known = [(i, j, label) for i, j, label in found if label is not None]
            return fit(entry.points, known, self.recipe.train.temperature, self.recipe.train.prior_precision)

        chosen = choose_pairs(
            self.recipe.teacher.pair,
            entry.points,
            [scores[doc_id] for doc_id in entry.doc_ids],
            f"{self.recipe.seed}/{entry.query_id}",
            refit,
        )
        for positions in chosen:
            yield [(i, j) for i, j in positions if texts[i] != texts[j]]

    def pair_label(
        self,
        entry: TrainingList,
        texts: Sequence[str],
        i: int,
        j: int,
        pairs: Labels | None,
        orders: Orders | None = None,
    ) -> float | None:
        """The mean log-odds, for i, of the orders asked, of which `orders` is told; None if one lacks its answer.

        Without pairs it is derived from the points.
        """
        if pairs is None:
            return derive(entry, i, j, self.recipe.train.temperature)
        query = self.queries[entry.query_id]
        shown = self.orders(entry, i, j)
        answers = [answer for a, b in shown if (answer := pairs.get((query, texts[a], texts[b]))) is not None]
        if len(answers) < len(shown):
            return None
        if orders:
            orders.add(answers)
        return statistics.fmean(
            answer if which == (i, j) else -answer for which, answer in zip(shown, answers, strict=True)
        )

    def orders(self, entry: TrainingList, i: int, j: int) -> list[tuple[int, int]]:
        seed = f"{self.recipe.seed}/{entry.query_id}"
        return asked_orders(self.recipe.teacher.pair.order, i, j, entry.doc_ids, seed)


def journal_of(file: Path, keys: Mapping[Task, str], store: LabelStore) -> Journal:
    """The journal of a labeling: what it says holds for these teachers and this store only."""
    return Journal(file, fingerprint([*keys.items(), ("store", str(store.identity))]))


def ask_teachers(
    labeling: Labeling,
    store_file: Path,
    keys: Mapping[Task, str],
    teachers: Callable[[Any], Any],
    progress: Progress,
    journal: Journal | None = None,
    shard: tuple[int, int] = (1, 1),
    beside: Path | None = None,
) -> dict[str, float]:
    """Have the store hold what the teachers say of every candidate, then of the pairs in the re-ordered lists.

    keys: the store's keys of points, and of pairs if a teacher is asked about them; teachers: loads the teacher of
    a task, called only when something must be asked; journal: see ask_missing. shard: (number, shards), where others
    ask the rest; beside: a store that is only looked into. Returns how much was missing.
    """
    settings, journal = labeling.recipe.teacher, journal or Journal()
    rounds = settings.pair.rounds_asked
    in_turn = [f"label pairs, round {number + 1}" for number in range(rounds)] if rounds > 1 else ["label pairs"]
    journal.take_in_turn(["label points", *in_turn])
    asked: dict[str, float] = {"points_asked": 0, "pair_prompts_asked": 0}
    with LabelStore(store_file, "points", keys["point"], model_of(settings, "point").model, beside) as points:
        asked["points_asked"] = ask_missing(
            labeling.points().shard(*shard),
            points,
            lambda: teachers("point").score_points,
            progress,
            "label points",
            journal,
        )
        if "pair" in keys:
            with LabelStore(store_file, "pairs", keys["pair"], model_of(settings, "pair").model, beside) as pairs:
                for number, name in enumerate(in_turn):
                    asked["pair_prompts_asked"] += ask_missing(
                        labeling.pairs(points, pairs, number).shard(*shard),
                        pairs,
                        lambda: teachers("pair").score_pairs,
                        progress,
                        name,
                        journal,
                    )
    return asked


def make_lists(
    labeling: Labeling, store_file: Path, keys: Mapping[Task, str], figures: dict[str, float]
) -> Iterator[TrainingList]:
    """The training lists, in the order of the ranking; `figures` about the labels are filled in when all are made.

    Raises ModelError when the teacher gave no answers at all.
    """
    settings = labeling.recipe.teacher.pair
    counts: Counter[str] = Counter(points=0, points_unanswered=0, pairs=0)
    orders = Orders()
    with contextlib.ExitStack() as stack:
        points = stack.enter_context(LabelStore(store_file, "points", keys["point"]))
        pairs = stack.enter_context(LabelStore(store_file, "pairs", keys["pair"])) if "pair" in keys else None
        for query_id in labeling.ranking:
            entry, answers = labeling.list_of(query_id, points)
            counts["points"] += len(answers)
            counts["points_unanswered"] += answers.count(None)
            if pairs or settings.scoring == "derived":
                texts = labeling.texts(entry)
                for i, j in sorted(itertools.chain.from_iterable(labeling.choose(entry, texts, pairs))):
                    value = labeling.pair_label(entry, texts, i, j, pairs, orders)
                    counts["pairs" if value is not None else "pairs_unanswered"] += 1
                    if value is not None:
                        counts["disagreeing"] += value < 0
                        entry.pairs.append((i, j, value))
                circles, triples = contradictions(entry.pairs)
                counts["circles"] += circles
                counts["triples"] += triples
            yield labeling.listed(entry)
    check_answers(counts["points_unanswered"], counts["points"], "point")
    figures |= {name: counts[name] for name in ("points", "points_unanswered", "pairs")}
    if settings.scoring == "derived":
        figures["pairs_derived"] = counts["pairs"]
    if pairs:
        check_answers(counts["pairs_unanswered"], counts["pairs"] + counts["pairs_unanswered"], "pair")
        figures["pairs_unanswered"] = counts["pairs_unanswered"]
        figures |= {} if settings.order == "as_ranked" else orders.figures()
    if counts["pairs"] and settings.asked:
        figures["disagreement"] = counts["disagreeing"] / counts["pairs"]
        figures |= {name: counts[name] for name in ("triples", "circles")}


def _descending(label: float | None) -> float:
    """Sorts the best first, and what has no label last."""
    return math.inf if label is None else -label


class Orders:
    """How far the order of the documents decides: PairDistill, appendix A.2.

    `position_bias` is the mean of the log-odds for what stands first; `flip_rate` the share of pairs, asked in both
    orders, where either order prefers what stands first, or what second.
    """

    def __init__(self) -> None:
        self.pairs = self.both = self.flipped = 0
        self.bias = 0.0

    def add(self, answers: Sequence[float]) -> None:
        """Of a pair, the log-odds for what stood first, in one order or in both."""
        self.pairs += 1
        self.bias += statistics.fmean(answers)
        if len(answers) == 2:
            self.both += 1
            self.flipped += answers[0] * answers[1] > 0

    def figures(self) -> dict[str, float]:
        found = {"position_bias": self.bias / self.pairs} if self.pairs else {}
        return found | ({"flip_rate": self.flipped / self.both} if self.both else {})
