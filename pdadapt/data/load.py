"""Load a Dataset from the values of `--corpus` and `--queries`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from pdadapt.data.corpus import Dataset, DatasetSource
from pdadapt.data.documents import read_corpus, read_folder
from pdadapt.data.folders import DEFAULT_SPLIT, QRELS_ENDINGS, check_split, find_file, find_qrels, require_file
from pdadapt.data.judgments import match_qrels, read_matching_qrels
from pdadapt.data.lines import path_text
from pdadapt.data.notices import Notices
from pdadapt.data.queries import read_queries, read_queries_and_answers, read_query_sources
from pdadapt.data.records import (
    HUB_PREFIX,
    text_files,
)
from pdadapt.data.trec import Qrels
from pdadapt.errors import DataError

# Corpora inside the package.
SHIPPED_CORPORA = {name: Path(__file__).parent / "shipped" / name for name in ("demo", "general")}


def load_dataset(source: str, queries_file: Path | None = None, split: str = "test", strict: bool = False) -> Dataset:
    """Read a corpus and its queries.

    source: one of
        - `demo` or `general`, the corpora inside the package;
        - a folder in BEIR layout (`corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv`), with MS MARCO's files
          (`collection.tsv`, `queries.train.tsv`), or of .txt and .md files;
        - a JSONL, TSV or CSV (also with `.gz`) or Parquet file of documents;
        - `hf:NAME[:CONFIG][@SPLIT]`, a Hugging Face dataset;
        - a name that `catalog.py` knows. An existing path of that name takes precedence.
    queries_file: replaces the training queries.
    split: the split to test on.
    strict: raise DataError for records that would be left out and noted in `Dataset.notices`, such as blank documents.

    Raises DataError if a file is missing or malformed.
    """
    path = SHIPPED_CORPORA.get(source, Path(source))
    notices = Notices(strict)
    if not source or not os.path.exists(path):
        dataset = _load_named(source, split, notices)
    elif not path.is_dir():
        dataset = Dataset(_path_name(path).split(".")[0] or _path_name(path), read_corpus(path, notices), {}, {}, {})
    elif find_file(path, "collection", (".tsv",)):
        dataset = _load_msmarco(path, split, notices)
    elif not _is_beir(path) and (
        files := [file for file in text_files(path) if not _is_same_file(path / file, queries_file)]
    ):
        dataset = Dataset(_path_name(path), read_folder(path, files, notices), {}, {}, {})
    else:
        dataset = _load_beir(path, split, notices)
    dataset_source = DatasetSource(source if source in SHIPPED_CORPORA else _absolute_path(source), None, split)
    if split != DEFAULT_SPLIT and not dataset.qrels:
        raise DataError(f"Corpus {source!r} has no judgments for split {split!r}. Leave out --split (evaluate.split).")
    dataset = replace(dataset, source=dataset_source, notices=notices)
    return dataset if queries_file is None else with_queries(dataset, queries_file)


def with_queries(dataset: Dataset, file: Path) -> Dataset:
    """The dataset with the queries of this file as training queries.

    If a query names the document that it was written about (as in the output of `pdadapt queries`), that document is
    its training label. Raises DataError if the file is missing or malformed.
    """
    source = dataset.source and dataset.source._replace(queries=_absolute_path(str(file)))
    queries = read_queries(file, dataset.notices)

    def train_qrels() -> Qrels:
        qrels = {query_id: grades for query_id, grades in read_query_sources(file).items() if query_id in queries}
        return match_qrels(qrels, str(file), queries, dataset.corpus, dataset.notices, "training")[1] if qrels else {}

    return replace(
        dataset,
        queries=queries,
        read_train_qrels=train_qrels,
        queries_from=path_text(file),
        source=source,
    )


def _path_name(path: Path) -> str:
    """The name of a file or folder, also if its path is `.`."""
    return path_text(os.path.basename(os.path.abspath(path))) or "corpus"


def _absolute_path(name: str) -> str:
    """The absolute path if `name` is an existing path, else `name` itself."""
    return str(Path(name).resolve()) if os.path.exists(name) else name


def _is_same_file(file: Path, other: Path | None) -> bool:
    return other is not None and file.resolve() == other.resolve()


def _load_named(name: str, split: str, notices: Notices) -> Dataset:
    from pdadapt.data import catalog

    if name.startswith(HUB_PREFIX):
        return Dataset(name.removeprefix(HUB_PREFIX), catalog.read_hub_corpus(name, notices), {}, {}, {})
    dataset = catalog.load_named(name, split, notices)
    if dataset is None:
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if (near := catalog.similar_names(name)) else ""
        raise DataError(
            f"Corpus {name!r} not found.{hint} Use `demo`, a folder in BEIR layout or of .txt files, a .jsonl, .tsv or "
            ".csv file (also with .gz), a .parquet file, hf:NAME, or a name that `pdadapt datasets` lists."
        )
    return dataset


def _is_beir(folder: Path) -> bool:
    return (folder / "qrels").exists() or any(folder.glob("corpus.*")) or any(folder.glob("queries.jsonl*"))


def _load_beir(folder: Path, split: str, notices: Notices) -> Dataset:
    """Load a folder in BEIR layout. All queries without judgments in the split are training queries."""
    corpus_file, queries_file = require_file(folder, "corpus"), require_file(folder, "queries")
    check_split(folder, split, split != DEFAULT_SPLIT, notices)
    corpus = read_corpus(corpus_file, notices)
    queries, answers = read_queries_and_answers(queries_file, notices)
    qrels_file, train_file = find_qrels(folder, split), find_qrels(folder, "train")
    test_queries, qrels = read_matching_qrels(qrels_file, queries, corpus, notices)
    train_queries = {query_id: text for query_id, text in queries.items() if query_id not in test_queries}

    def train_qrels() -> Qrels:
        qrels = read_matching_qrels(train_file, queries, corpus, notices, "training")[1] if split != "train" else {}
        return {query_id: grades for query_id, grades in qrels.items() if query_id in train_queries}

    return Dataset(
        _path_name(folder),
        corpus,
        train_queries,
        test_queries,
        qrels,
        train_qrels,
        queries_file.name,
        str(qrels_file.relative_to(folder)) if qrels_file else "",
        answers,
    )


def _load_msmarco(folder: Path, split: str, notices: Notices) -> Dataset:
    """Load a folder of MS MARCO's official files. The test split is `dev.small` unless the user names another."""
    asked, split = split != DEFAULT_SPLIT, "dev.small" if split == DEFAULT_SPLIT else split
    check_split(folder, split, asked, notices)
    corpus = read_corpus(find_file(folder, "collection", (".tsv",)) or folder / "collection.tsv", notices)
    queries_file = find_file(folder, "queries.train") or folder / "queries.train.tsv"
    queries = read_queries(queries_file, notices)
    test_file, qrels_file = find_file(folder, f"queries.{split}"), find_qrels(folder, split)
    if qrels_file and not test_file:
        problem = f"{qrels_file} judges queries whose text is missing. Add queries.{split}.tsv"
        if asked:
            raise DataError(f"{problem}, or leave out --split (evaluate.split).")
        notices.add("split", f"{problem} to measure on them.", f"{problem}, or leave out --strict.")
    test_queries, qrels = (
        read_matching_qrels(qrels_file, read_queries(test_file, notices), corpus, notices) if test_file else ({}, {})
    )

    def train_qrels() -> Qrels:
        return read_matching_qrels(
            find_file(folder, "qrels.train", QRELS_ENDINGS), queries, corpus, notices, "training"
        )[1]

    qrels_from = str(qrels_file.relative_to(folder)) if qrels_file else ""
    return Dataset(_path_name(folder), corpus, queries, test_queries, qrels, train_qrels, queries_file.name, qrels_from)
