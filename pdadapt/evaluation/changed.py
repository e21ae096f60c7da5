"""The queries that an adaptation, or another system, changed most."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pdadapt.data.corpus import Dataset, Document, Queries
from pdadapt.evaluation.held_out import DECISIVE_MEASURE, agreed_values
from pdadapt.evaluation.measures import PerQuery
from pdadapt.evaluation.results import ChangedQuery, JudgedDocument, LabeledDocument, MostChanged, ShownDocument
from pdadapt.runs.artefacts import read_lines
from pdadapt.runs.folder import student_name
from pdadapt.runtime.printing import shorten

SHOWN_QUERIES = 10
SHOWN_DOCUMENTS = 3  # best documents of a query
SNIPPET_CHARACTERS = 320

DocumentsOf = Callable[[str, int], tuple[ShownDocument, ...]]
"""The best documents of a query, by its id, of the student after so many iterations."""


def largest_changes(base: PerQuery, other: PerQuery) -> list[str]:
    """Ids of the queries whose values differ most, the largest difference first. Equal values are left out."""
    change = {query_id: abs(other[query_id] - base[query_id]) for query_id in base}
    ordered = sorted((query_id for query_id in change if change[query_id]), key=lambda query_id: -change[query_id])
    return ordered[:SHOWN_QUERIES]


def most_changed(
    before: PerQuery, after: PerQuery, queries: Queries, documents: DocumentsOf, shown: int
) -> MostChanged:
    """The queries that gained and lost most, with the best documents of the base and of the student.

    shown: iterations of the student that the base is compared with.
    """

    def changed(values: PerQuery) -> tuple[ChangedQuery, ...]:
        return tuple(
            ChangedQuery(
                query_id=query_id,
                query=queries[query_id],
                before=before[query_id],
                after=after[query_id],
                documents=(documents(query_id, 0), documents(query_id, shown)),
            )
            for query_id in largest_changes(before, values)
        )

    return MostChanged(
        gained=changed({query_id: max(before[query_id], value) for query_id, value in after.items()}),
        lost=changed({query_id: min(before[query_id], value) for query_id, value in after.items()}),
    )


def most_changed_held_out(file: Path, shown: int, dataset: Dataset) -> MostChanged:
    """The held-out queries whose agreement with the teacher changed most, with the documents that the teacher judged.

    file: held-out.jsonl of iteration `shown`; without it there are no such queries.
    """
    rows = {row["query_id"]: row for row in read_lines(file)}

    def documents(query_id: str, iteration: int) -> tuple[ShownDocument, ...]:
        row = rows[query_id]
        scores = row["students"][student_name(iteration)]["scores"]
        ranked = sorted(range(len(row["doc_ids"])), key=lambda i: -scores[i])
        return tuple(
            labeled_document(dataset.corpus[row["doc_ids"][i]], row["points"][i]) for i in ranked[:SHOWN_DOCUMENTS]
        )

    before, after = (
        agreed_values(rows.values(), student_name(iteration), DECISIVE_MEASURE) for iteration in (0, shown)
    )
    return most_changed(before, after, dataset.queries, documents, shown)


def judged_document(document: Document, grade: int | None) -> JudgedDocument:
    return JudgedDocument(document.doc_id, document.title, snippet(document), grade)


def labeled_document(document: Document, point: float | None) -> LabeledDocument:
    return LabeledDocument(document.doc_id, document.title, snippet(document), point)


def snippet(document: Document) -> str:
    return shorten(document.text, SNIPPET_CHARACTERS, " ...")
