"""The questions to ask the teachers about the candidates of a run, and the lists that the answers make."""

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
from pdadapt.labeling.bradley_terry import StrengthFit, fit_strengths
from pdadapt.labeling.pairs import Positions, choose_pairs, pairs_of_round, standardise
from pdadapt.labeling.position_bias import PositionBias, presentation_orders
from pdadapt.labeling.store import Labels, LabelStore
from pdadapt.labeling.training_list import TrainingList, around_pairs, derive
from pdadapt.settings.schema import Recipe
from pdadapt.teachers.base import Pair, Point
from pdadapt.teachers.kind import groups_by_document

CHUNK_FACTOR_BY_DOCUMENT = 8  # larger chunks, since a chunk's many queries are encoded once for the whole chunk
CACHED_TEXTS = 4_096  # document texts kept in memory: more than the candidates of one query


def point_labels(
    teacher: Sequence[float | None], student_scores: Sequence[float | None], weight: float
) -> list[float | None]:
    """Return a query's point labels. They are the teacher's scores. If `weight` is not 0, they are the teacher's
    standardised scores plus `weight` times the student's standardised scores.
    """
    if not weight:
        return list(teacher)
    teachers, students = standardise(teacher), standardise(student_scores)
    return [
        None if score is None or student is None else score + weight * student
        for score, student in zip(teachers, students, strict=True)
    ]


@dataclass
class Labeling:
    """The questions about the candidates of queries, and the training lists that the answers make.

    Lists and pairs follow from the candidates and the point labels, so they are made when they are needed.
    """

    ranking: TrecRunFile
    corpus: Corpus
    queries: Queries
    recipe: Recipe
    relevant: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Documents that people labeled relevant. Each is a candidate of its query, and is in the list of its query."""

    @functools.cached_property
    def text(self) -> Callable[[str], str]:
        """Return a document's contents. Recent texts stay in memory, because lists and pairs read them again."""
        return functools.lru_cache(CACHED_TEXTS)(lambda doc_id: self.corpus[doc_id].contents)

    def candidates(self, query_id: str) -> list[tuple[str, float | None]]:
        """Return the retrieved documents with their retrieval scores, then the documents labeled relevant that were not
        retrieved.
        """
        ranked = self.ranking[query_id]
        retrieved = {doc_id for doc_id, _ in ranked}
        return [*ranked, *((doc_id, None) for doc_id in self.relevant.get(query_id, ()) if doc_id not in retrieved)]

    def points(self) -> Questions:
        """Return the questions about every candidate of every query."""
        if groups_by_document(self.recipe.teacher, "point"):
            queries_of: dict[str, list[str]] = {}
            for query_id in self.ranking:
                for doc_id, _ in self.candidates(query_id):
                    queries_of.setdefault(doc_id, []).append(query_id)

            def about_documents(doc_ids: Sequence[str]) -> Iterator[Point]:
                for doc_id in doc_ids:
                    yield from (Point(self.queries[query_id], self.text(doc_id)) for query_id in queries_of[doc_id])

            sizes = {doc_id: len(query_ids) for doc_id, query_ids in queries_of.items()}
            return Questions(in_chunks(sizes, sizes, CHUNK_FACTOR_BY_DOCUMENT), about_documents)

        def about_queries(query_ids: Sequence[str]) -> Iterator[Point]:
            for query_id in query_ids:
                query = self.queries[query_id]
                yield from (Point(query, self.text(doc_id)) for doc_id, _ in self.candidates(query_id))

        return Questions(self.by_query(), about_queries)

    def pairs(self, points: Labels, pairs: Labels, number: int = 0) -> Questions:
        """Return the questions of one round about the pairs of every list, in the orders that the recipe sets.

        points, pairs: the answers so far. number: of the round (0, 1, ...).
        """
        settings = self.recipe.teacher.pair
        orders = 2 if settings.order == "both" else 1

        def about_queries(query_ids: Sequence[str]) -> Iterator[Pair]:
            for query_id in query_ids:
                entry, _ = self.list_of(query_id, points)
                texts = self.texts(entry)
                chosen = itertools.islice(self.choose(entry, texts, pairs), number, number + 1)
                for i, j in itertools.chain.from_iterable(chosen):
                    for a, b in self.orders(entry, i, j):
                        yield Pair(self.queries[query_id], texts[a], texts[b])

        count = functools.cache(lambda listed: orders * pairs_of_round(settings, listed, number))
        sizes = {query_id: count(self.recipe.train.paired_candidates(size)) for query_id, size in self.sizes().items()}
        chunks = [(query_ids, sum(map(sizes.__getitem__, query_ids))) for query_ids, _ in self.by_query()]
        return Questions(chunks, about_queries)

    def by_query(self) -> list[tuple[Sequence[str], int]]:
        """Return chunks of query ids. Points and pairs share these chunks, so that a shard's pairs need only the points
        of this shard.
        """
        return in_chunks(self.ordered(), self.sizes())

    def remember(self, store: LabelStore, query_ids: Iterable[str]) -> None:
        """Store the texts of these queries and their candidates with their ids, so that labels can be exported without
        the corpus.
        """
        ids = list(query_ids)
        candidates = (doc_id for query_id in ids for doc_id, _ in self.candidates(query_id))
        store.store_texts("document", ((doc_id, self.text(doc_id)) for doc_id in dict.fromkeys(candidates)))
        store.store_texts("query", ((query_id, self.queries[query_id]) for query_id in ids))

    def sizes(self) -> dict[str, int]:
        """Return the highest possible number of candidates of each query."""
        return {query_id: size + len(self.relevant.get(query_id, ())) for query_id, size in self.ranking.sizes.items()}

    def ordered(self) -> list[str]:
        """Return the query ids, sorted so that queries with equal or similar beginnings are neighbours."""
        return sorted(self.ranking, key=lambda query_id: (self.queries[query_id], query_id))

    def list_of(self, query_id: str, points: Labels) -> tuple[TrainingList, list[float | None]]:
        """Return the candidates that pairs are chosen from, as a list without pairs, and the teacher's answer for each
        candidate.

        The list is best first by the point labels. It has the n_way best candidates, or all of them (train.list). A
        document labeled relevant that is not among the best replaces the worst.
        """
        candidates, query = self.candidates(query_id), self.queries[query_id]
        answers = [points.get((query, self.text(doc_id))) for doc_id, _ in candidates]
        labels = point_labels(answers, [score for _, score in candidates], self.recipe.teacher.point.student_weight)
        labeled = set(self.relevant.get(query_id, ()))
        order = sorted(range(len(candidates)), key=lambda i: (_descending(labels[i]), i))
        limit = self.recipe.train.paired_candidates(len(candidates))
        kept = set(sorted(order, key=lambda i: candidates[i][0] not in labeled)[:limit])
        order = [i for i in order if i in kept]
        doc_ids = [candidates[i][0] for i in order]
        relevant = [doc_id for doc_id in doc_ids if doc_id in labeled]
        return TrainingList(query_id, doc_ids, [labels[i] for i in order], [], relevant), answers

    def trained_part(self, entry: TrainingList) -> TrainingList:
        """Return the part of a list that the student is trained on."""
        train = self.recipe.train
        if train.list == "best":
            return entry
        return around_pairs(entry, train.n_way, f"{self.recipe.seed}/{entry.query_id}/list")

    def texts(self, entry: TrainingList) -> list[str]:
        """Return the texts of a list's documents."""
        return [self.text(doc_id) for doc_id in entry.doc_ids]

    def choose(self, entry: TrainingList, texts: Sequence[str], pairs: Labels | None) -> Iterator[Positions]:
        """Yield the pairs of a list to ask about, round by round. Two documents with the same text are never a pair."""
        scores = dict(self.candidates(entry.query_id))

        def refit(asked: Positions) -> StrengthFit:
            answers = [(i, j, self.pair_label(entry, texts, i, j, pairs)) for i, j in asked]
            known = [(i, j, label) for i, j, label in answers if label is not None]
            return fit_strengths(entry.points, known, self.recipe.train.temperature, self.recipe.train.prior_precision)

        chosen = choose_pairs(
            self.recipe.teacher.pair,
            entry.points,
            [scores[doc_id] for doc_id in entry.doc_ids],
            f"{self.recipe.seed}/{entry.query_id}",
            refit,
        )
        for positions in chosen:
            yield [(i, j) for i, j in positions if texts[i] != texts[j]]  # of two equal texts, neither is better

    def pair_label(
        self,
        entry: TrainingList,
        texts: Sequence[str],
        i: int,
        j: int,
        pairs: Labels | None,
        position_bias: PositionBias | None = None,
    ) -> float | None:
        """Return the label of a pair: the mean log-odds for document i over the orders asked. None if an answer is
        missing.

        pairs: the teacher's answers. If it is None, the label is derived from the points. position_bias: counts the
        answers.
        """
        if pairs is None:
            return derive(entry, i, j, self.recipe.train.temperature)
        query = self.queries[entry.query_id]
        shown = self.orders(entry, i, j)
        answers = [answer for a, b in shown if (answer := pairs.get((query, texts[a], texts[b]))) is not None]
        if len(answers) < len(shown):
            return None
        if position_bias:
            position_bias.add(answers)
        return statistics.fmean(
            answer if order == (i, j) else -answer for order, answer in zip(shown, answers, strict=True)
        )

    def orders(self, entry: TrainingList, i: int, j: int) -> list[tuple[int, int]]:
        """Return the orders in which the teacher is shown documents i and j."""
        seed = f"{self.recipe.seed}/{entry.query_id}"
        return presentation_orders(self.recipe.teacher.pair.order, i, j, entry.doc_ids, seed)


def _descending(label: float | None) -> float:
    """Sort key: the best label first, missing labels last."""
    return math.inf if label is None else -label


def labeled_relevant(recipe: Recipe, dataset: Dataset, queries: Queries) -> dict[str, list[str]]:
    """Return the documents labeled relevant to these queries; empty unless L_CL is used. Raises DataError
    when L_CL is used and there are none.
    """
    if not recipe.train.lambda_cl:
        return {}
    relevant = relevant_documents(dataset, queries)
    if not relevant:
        raise DataError(
            f"train.lambda_cl needs labeled queries, and corpus {dataset.name!r} has none. Add qrels/train.tsv of a "
            "BEIR folder (qrels.train.tsv in MS MARCO's layout), give queries with a `doc_id`, or set "
            "train.lambda_cl=0."
        )
    return relevant
