"""What to ask the teachers about the candidates of a run."""

from __future__ import annotations

import functools
import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pdadapt.data.corpus import Corpus, Dataset, Queries, relevant_documents
from pdadapt.data.run_file import TrecRunFile
from pdadapt.errors import DataError
from pdadapt.labeling.ask import Questions, in_chunks
from pdadapt.labeling.bradley_terry import Fit, fit
from pdadapt.labeling.pairs import Positions, choose_pairs, pairs_of_round, standardise
from pdadapt.labeling.position_bias import Orders, asked_orders
from pdadapt.labeling.store import Labels, LabelStore
from pdadapt.labeling.training_list import TrainingList, around_pairs, derive
from pdadapt.settings.schema import Recipe
from pdadapt.teachers.base import Pair, Point
from pdadapt.teachers.kind import groups_by_document

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


@dataclass
class Labeling:
    """What is asked about the candidates of queries, and the training lists that the answers make.

    Lists and pairs follow from the candidates and the point labels, so they are made when they are needed.
    """

    ranking: TrecRunFile
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
        if groups_by_document(self.recipe.teacher, "point"):
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
        sizes = {query_id: count(self.recipe.train.paired_candidates(size)) for query_id, size in self.sizes().items()}
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
        most = self.recipe.train.paired_candidates(len(candidates))
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


def _descending(label: float | None) -> float:
    """Sorts the best first, and what has no label last."""
    return math.inf if label is None else -label


def labeled_relevant(recipe: Recipe, dataset: Dataset, queries: Queries) -> dict[str, list[str]]:
    """What people labeled relevant to these queries, when L_CL asks for it. Raises DataError when there is nothing."""
    if not recipe.train.lambda_cl:
        return {}
    relevant = relevant_documents(dataset, queries)
    if not relevant:
        raise DataError(
            f"train.lambda_cl needs labeled queries, and corpus {dataset.name!r} brings none: give qrels/train.tsv of "
            "a BEIR folder (qrels.train.tsv in MS MARCO's layout), or queries with a `doc_id`, or set it to 0."
        )
    return relevant
