"""Qrels matched to queries and documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pdadapt.data.corpus import Corpus, Dataset, Queries
from pdadapt.data.lines import check_file, path_text
from pdadapt.data.notices import Notices
from pdadapt.data.trec import Qrels, read_qrels
from pdadapt.errors import DataError


def with_qrels(dataset: Dataset, qrels_file: Path) -> Dataset:
    """The dataset with these judgments instead of its own. Raises DataError when they judge none of its queries."""
    queries = dataset.queries | dataset.test_queries
    if not queries:
        raise DataError(
            f"Corpus {dataset.name!r} brings no queries that {qrels_file} could judge; give --queries FILE."
        )
    check_file(qrels_file)
    dataset.notices.discard("split")
    test_queries, qrels = read_matching_qrels(qrels_file, queries, dataset.corpus, dataset.notices)
    return replace(dataset, test_queries=test_queries, qrels=qrels, qrels_from=path_text(qrels_file))


def load_qrels_only(qrels_file: Path, strict: bool = False) -> Dataset:
    """Judgments alone, of queries and documents whose texts are not known. Raises DataError when there are none."""
    notices = Notices(strict)
    qrels = read_qrels(qrels_file, notices)
    name, qrels_from = path_text(qrels_file.stem), path_text(qrels_file)
    return Dataset(name, Corpus([]), {}, dict.fromkeys(qrels, ""), qrels, qrels_from=qrels_from, notices=notices)


def read_matching_qrels(
    file: Path | None, queries: Queries, corpus: Corpus, notices: Notices, kind: str = "test"
) -> tuple[Queries, Qrels]:
    """Those of the queries that the file judges, and how; nothing when there is no such file."""
    return match_qrels(read_qrels(file, notices), str(file), queries, corpus, notices, kind) if file else ({}, {})


def match_qrels(
    qrels: Qrels, source: str, queries: Queries, corpus: Corpus, notices: Notices, kind: str = "test"
) -> tuple[Queries, Qrels]:
    """Those of the queries that are judged, and how; judged queries and documents that are not there are noted.

    source, kind: what the judgments are called. Raises DataError when they name none of the queries, or none of the
    documents: they are of something else.
    """
    known = {query_id: judged for query_id, judged in qrels.items() if query_id in queries}
    if not known:
        raise DataError(f"{source} names none of the queries; check its query ids, or give other qrels.")
    judged = dict.fromkeys(doc_id for grades in known.values() for doc_id in grades)
    lacking = corpus.missing_ids(judged)
    if len(lacking) == len(judged):
        raise DataError(f"{source} names none of the documents; check its document ids, or give other qrels.")
    foreign = [query_id for query_id in qrels if query_id not in queries]
    if kind == "training" and lacking:  # a test counts them, for recall
        gone = set(lacking)
        kept = (
            (query_id, {doc: grade for doc, grade in grades.items() if doc not in gone})
            for query_id, grades in known.items()
        )
        known = {query_id: grades for query_id, grades in kept if grades}
    _note_missing(
        notices,
        f"{kind} queries",
        f"{source}: left out, for want of their text,",
        "judged queries",
        foreign,
        len(qrels),
    )
    _note_missing(notices, f"{kind} documents", f"{source}: the corpus lacks", "judged documents", lacking, len(judged))
    return {query_id: queries[query_id] for query_id in known}, known


def _note_missing(notices: Notices, key: str, problem: str, what: str, missing: Sequence[str], total: int) -> None:
    """What is judged, and not there."""
    notices.discard(key)
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        found = f"{problem} {len(missing):,} of {total:,} {what}: {missing[0]!r}{more}."
        notices.add(key, found, f"{found} Add what is missing, remove its judgments, or leave out --strict.")
