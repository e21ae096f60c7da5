"""Match qrels to the queries and documents of a dataset."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from pdadapt.data.corpus import Corpus, Dataset, Queries
from pdadapt.data.lines import check_file, path_text
from pdadapt.data.notices import Notices
from pdadapt.data.trec import Qrels, read_qrels
from pdadapt.errors import DataError


def with_qrels(dataset: Dataset, qrels_file: Path) -> Dataset:
    """The dataset with the judgments of this file in place of its own.

    Raises DataError if the file is missing or malformed, or if it judges none of the dataset's queries.
    """
    queries = dataset.queries | dataset.test_queries
    if not queries:
        raise DataError(
            f"{qrels_file} cannot be used, because corpus {dataset.name!r} has no queries. Add --queries FILE."
        )
    check_file(qrels_file)
    dataset.notices.discard("split")
    test_queries, qrels = read_matching_qrels(qrels_file, queries, dataset.corpus, dataset.notices)
    return replace(dataset, test_queries=test_queries, qrels=qrels, qrels_from=path_text(qrels_file))


def load_qrels_only(qrels_file: Path, strict: bool = False) -> Dataset:
    """A dataset of judgments without the texts of queries and documents.

    Raises DataError if the file is missing or malformed, or contains no judgments.
    """
    notices = Notices(strict)
    qrels = read_qrels(qrels_file, notices)
    name, qrels_from = path_text(qrels_file.stem), path_text(qrels_file)
    return Dataset(name, Corpus([]), {}, dict.fromkeys(qrels, ""), qrels, qrels_from=qrels_from, notices=notices)


def read_matching_qrels(
    file: Path | None, queries: Queries, corpus: Corpus, notices: Notices, kind: str = "test"
) -> tuple[Queries, Qrels]:
    """(the queries that the file judges, their judgments). Both are empty if `file` is None. See `match_qrels`."""
    return match_qrels(read_qrels(file, notices), str(file), queries, corpus, notices, kind) if file else ({}, {})


def match_qrels(
    qrels: Qrels, source: str, queries: Queries, corpus: Corpus, notices: Notices, kind: str = "test"
) -> tuple[Queries, Qrels]:
    """(the queries that are judged, their judgments). Judged queries and documents that are missing are noted.

    source: the name of the qrels in messages. kind: `test` or `training`. Raises DataError if the qrels name none of
    the queries or none of the documents, because then they belong to another dataset.
    """
    known = {query_id: judged for query_id, judged in qrels.items() if query_id in queries}
    if not known:
        raise DataError(f"{source} names none of the queries. Check its query ids, or use other qrels.")
    judged = dict.fromkeys(doc_id for grades in known.values() for doc_id in grades)
    missing = corpus.missing_ids(judged)
    if len(missing) == len(judged):
        raise DataError(f"{source} names none of the documents. Check its document ids, or use other qrels.")
    unknown = [query_id for query_id in qrels if query_id not in queries]
    if kind == "training" and missing:  # test qrels keep them, because recall counts every relevant document
        missing_set = set(missing)
        kept = (
            (query_id, {doc: grade for doc, grade in grades.items() if doc not in missing_set})
            for query_id, grades in known.items()
        )
        known = {query_id: grades for query_id, grades in kept if grades}
    _note_missing(notices, f"{kind} queries", source, "judged queries have no text and are left out", unknown, qrels)
    _note_missing(notices, f"{kind} documents", source, "judged documents are missing from the corpus", missing, judged)
    return {query_id: queries[query_id] for query_id in known}, known


def _note_missing(
    notices: Notices, key: str, source: str, problem: str, missing: Sequence[str], judged: Collection[str]
) -> None:
    """Note the judged ids that are missing, or discard an earlier notice if none is."""
    notices.discard(key)
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        sentence = f"{source}: {len(missing):,} of {len(judged):,} {problem}: {missing[0]!r}{more}."
        notices.add(key, sentence, f"{sentence} Add them, remove their judgments, or leave out --strict.")
