"""Corpora by name: those of ir_datasets (BEIR, MS MARCO, TREC DL, LoTTE, DPR's Wikipedia), Hugging Face datasets."""

from __future__ import annotations

import difflib
import logging
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, NamedTuple, overload

from pdadapt.data.corpus import Corpus, Dataset, Document, Queries
from pdadapt.data.documents import build_corpus, scan_documents, to_document
from pdadapt.data.judgments import match_qrels
from pdadapt.data.notices import Notices
from pdadapt.data.records import hub_rows
from pdadapt.data.trec import Qrels
from pdadapt.errors import DataError, reason

CQADUPSTACK_FORUMS = (
    *("android", "english", "gaming", "gis", "mathematica", "physics", "programmers", "stats", "tex", "unix"),
    *("webmasters", "wordpress"),
)
LOTTE_DOMAINS = ("writing", "recreation", "science", "technology", "lifestyle", "pooled")
NAME_ALIASES = {
    "msmarco": "msmarco-passage",
    "dl19": "msmarco-passage/trec-dl-2019/judged",
    "dl20": "msmarco-passage/trec-dl-2020/judged",
    "touche2020": "beir/webis-touche2020/v2",
    "nq-open": "dpr-w100/natural-questions",
    "triviaqa": "dpr-w100/trivia-qa",
    **{
        f"lotte/{domain}/{kind}": f"lotte/{domain}/test/{kind}"
        for domain in LOTTE_DOMAINS
        for kind in ("search", "forum")
    },
}
LISTED_NAMES = (
    *("arguana", "climate-fever", "dbpedia-entity", "fever", "fiqa", "hotpotqa", "nfcorpus", "nq", "quora", "scidocs"),
    *("scifact", "touche2020", "trec-covid"),
    *(f"cqadupstack/{forum}" for forum in CQADUPSTACK_FORUMS),
    *("msmarco", "dl19", "dl20", "nq-open", "triviaqa"),
    *(known for known in NAME_ALIASES if known.startswith("lotte/")),
)
LICENSED_CORPORA = {
    "bioasq": "register at http://participants-area.bioasq.org and take the PubMed articles of task 8b",
    "robust04": "get TREC disks 4 and 5, from NIST (https://trec.nist.gov/data/cd45)",
    "signal1m": "get the Signal-1M related tweets (https://research.signal-ai.com/datasets/signal1m-tweetir.html)",
    "trec-news": "get the Washington Post collection, from NIST (https://trec.nist.gov/data/wapost)",
}
PAPER_QUERY_COUNTS = {"nq-open": 8_757}  # test queries that published figures are on, where ir_datasets has fewer
PAPER_QUERY_LENGTHS = {"beir/arguana": 300, "beir/climate-fever": 64}
TEST_SPLITS = ("", "test", "dev/small", "dev")  # where a name's test is, the first that there is; "" is the name itself


class CatalogEntry(NamedTuple):
    """What a name stands for: ids of ir_datasets."""

    corpus_id: str
    judged_splits: dict[str, str]  # by split; under "" the name itself, if it has judgments
    training_ids: tuple[str, ...]  # whose queries may be adapted on, best first


def find_entry(name: str) -> CatalogEntry | None:
    """What ir_datasets has under this name: one of its ids, or one of ours (`fiqa`, `dl19`, `lotte/pooled/search`).

    Raises DataError when it is a family of corpora, naming them.
    """
    import ir_datasets

    ids = list(ir_datasets.registry)
    for whole in filter(None, (NAME_ALIASES.get(name), f"beir/{name}", name)):
        family = sorted(known for known in ids if known == whole or known.startswith(f"{whole}/"))
        if family:
            break
    else:
        return None
    judged = {known.removeprefix(whole).strip("/"): known for known in family if _ir_dataset(known).has_qrels()}
    documents = list(dict.fromkeys(ir_datasets.docs_parent_id(known) for known in judged.values())) or [whole]
    if len(documents) > 1:
        averaged = " (`pdadapt evaluate --suite beir-18` averages them)" if "cqadupstack" in name else ""
        raise DataError(f"{name!r} is several corpora{averaged}; give one of them: {', '.join(documents)}.")
    places = [whole, *(str(above) for above in PurePosixPath(whole).parents if f"{above}/".startswith(documents[0]))]
    unlabeled = (f"{place}/{split}" for place in places for split in ("train", "dev"))
    return CatalogEntry(documents[0], judged, tuple(known for known in unlabeled if known in ids))


def load_named(name: str, split: str = "test", notices: Notices | None = None) -> Dataset | None:
    """The corpus of this name; the queries of its `train`, else `dev`, to adapt on; those of `split` to test on.

    What is not on this machine is downloaded, checked and kept by ir_datasets. Of `train` only the ids of its judgments
    are read, where they alone say which queries are its. Returns None when there is no such name.
    Raises DataError when it cannot be had, saying which file is to be put where, or when there is no such split.
    """
    if name in LICENSED_CORPORA:
        raise DataError(
            f"{name!r} is licensed, so nobody may hand it out: {LICENSED_CORPORA[name]}; bring it into a folder with "
            "corpus.jsonl, queries.jsonl and qrels/test.tsv (BEIR's examples/dataset/README.md says how), and give "
            "that folder."
        )
    entry = find_entry(name)
    if entry is None:
        return None
    notices = notices or Notices()
    test = _test_split_id(name, entry, split)
    adapted = next((found for found in entry.training_ids if found != test), None)
    with _download_errors(name):
        qrels, every = read_ir_qrels(test), read_ir_queries(test, notices)
        queries = read_ir_queries(adapted, notices) if adapted else {}
        documents = IrDocuments(entry.corpus_id)
    corpus = build_corpus(documents, documents.scanned, documents.where, entry.corpus_id, notices)
    test_queries, qrels = match_qrels(qrels, test, every, corpus, notices)

    def read_train_qrels() -> Qrels:
        if not adapted:
            return {}
        with _download_errors(name):
            judged = read_ir_qrels(adapted)
        return match_qrels(judged, adapted, queries, corpus, notices, "training")[1]

    return Dataset(
        name,
        corpus,
        {query_id: text for query_id, text in queries.items() if query_id not in test_queries},
        test_queries,
        qrels,
        read_train_qrels,
        adapted or "",
        test,
        read_ir_answers(test),
        token_lengths(name),
    )


def load_test_queries(name: str) -> tuple[Queries, Qrels] | None:
    """The test queries of load_named, and how they are judged, without the corpus; None when there is no such name.

    Raises DataError when they cannot be had.
    """
    entry = None if name in LICENSED_CORPORA else find_entry(name)
    if entry is None:
        return None
    with _download_errors(name):
        test = _test_split_id(name, entry, "test")
        qrels, every = read_ir_qrels(test), read_ir_queries(test, Notices())
    judged = [query_id for query_id in qrels if query_id in every]
    return {query_id: every[query_id] for query_id in judged}, {query_id: qrels[query_id] for query_id in judged}


def _test_split_id(name: str, entry: CatalogEntry, split: str) -> str:
    """The id that has the judgments of a split. Raises DataError when there is none."""
    known = [found for found in (TEST_SPLITS if split == "test" else (split,)) if found in entry.judged_splits]
    if not known:
        there = ", ".join(entry.judged_splits) or "none"
        raise DataError(f"{name!r} has no split {split!r} with judgments; it has {there} (evaluate: --split).")
    return entry.judged_splits[known[0]]


class IrDocuments(Sequence[Document]):
    """ir_datasets' documents, each read from its store on disk when asked for: in memory are eight bytes a document."""

    def __init__(self, dataset_id: str):
        self._id = dataset_id
        self._dataset = _ir_dataset(dataset_id)
        self.scanned = scan_documents(self)

    def where(self, place: int) -> str:
        return f"{self._id}: document {self[place].doc_id!r}"

    def __len__(self) -> int:
        return len(self.scanned[0])

    def __iter__(self) -> Iterator[Document]:
        return map(_from_ir_record, self._dataset.docs_iter())

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> list[Document]: ...
    def __getitem__(self, index: int | slice) -> Document | list[Document]:
        if isinstance(index, slice):
            return list(map(_from_ir_record, self._dataset.docs_iter()[index]))
        return _from_ir_record(next(self._dataset.docs_iter()[index : index + 1]))


class HubDocuments(Sequence[Document]):
    """The rows of a dataset of the hub, each read from its file on disk when asked for."""

    def __init__(self, name: str):
        self.name = name
        self._rows = hub_rows(name)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> list[Document]: ...
    def __getitem__(self, index: int | slice) -> Document | list[Document]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return to_document(self._rows[index], f"{self.name}: row {index + 1}")


def read_hub_corpus(name: str, notices: Notices | None = None) -> Corpus:
    """Documents of a Hugging Face dataset (see hub_rows), without the blank ones, which are noted.

    Raises DataError when there are none, or one has no field for a text.
    """
    documents = HubDocuments(name)
    if not len(documents):
        raise DataError(f"{name} holds no documents; give another split, as hf:NAME:CONFIG@SPLIT.")
    return build_corpus(
        documents, scan_documents(documents), lambda place: f"{name}: row {place + 1}", name, notices or Notices()
    )


def _ir_dataset(dataset_id: str) -> Any:
    import ir_datasets

    return ir_datasets.registry[dataset_id]


def _from_ir_record(record: Any) -> Document:
    text = getattr(record, "text", None) or getattr(record, "body", None)
    if text is None and not hasattr(record, "text"):
        return Document(record.doc_id, "", record.default_text())
    return Document(record.doc_id, getattr(record, "title", None) or "", text or "")


def read_ir_queries(dataset_id: str, notices: Notices) -> Queries:
    """Blank ones are left out, and noted."""
    every = {query.query_id: query.default_text() for query in _ir_dataset(dataset_id).queries_iter()}
    blank = [query_id for query_id, text in every.items() if not text.strip()]
    notices.leave_out("query", dataset_id, blank, f"{dataset_id}: query {blank[0]!r}" if blank else "")
    return {query_id: text for query_id, text in every.items() if text.strip()}


def read_ir_answers(dataset_id: str) -> dict[str, tuple[str, ...]]:
    """Of open-domain questions, by query id."""
    if "answers" not in _ir_dataset(dataset_id).queries_cls()._fields:
        return {}
    return {query.query_id: tuple(query.answers) for query in _ir_dataset(dataset_id).queries_iter()}


def token_lengths(name: str) -> dict[str, int]:
    """Tokens that PairDistill and ColBERTv2 keep on BEIR and LoTTE; elsewhere a checkpoint's own lengths hold."""
    entry = None if name in LICENSED_CORPORA else find_entry(name)
    documents = entry.corpus_id if entry else f"beir/{name}"
    if not documents.startswith(("beir/", "lotte/")):
        return {}
    queries = PAPER_QUERY_LENGTHS.get(documents)
    return {"document_length": 300} | ({"query_length": queries} if queries else {})


def read_ir_qrels(dataset_id: str) -> Qrels:
    qrels: Qrels = {}
    for judgment in _ir_dataset(dataset_id).qrels_iter():
        qrels.setdefault(judgment.query_id, {})[judgment.doc_id] = int(judgment.relevance)
    return qrels


@contextmanager
def _download_errors(name: str) -> Iterator[None]:
    """Turns what ir_datasets raises when a file cannot be had into a DataError that says which, and where it goes."""
    log = logging.getLogger("ir_datasets")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    except DataError:  # of a notice that --strict refuses
        raise
    except Exception as error:
        wanted = _failed_download(error)
        if wanted is None:
            raise DataError(
                f"{name!r} cannot be read by ir_datasets ({reason(error)}); remove its files there, to have them anew."
            ) from error
        url, path = wanted
        raise DataError(
            f"{name!r} is not on this machine, and its download failed ({type(error).__name__}). Where there is a "
            f"network, download {url}; put it at {path} (the folder is IR_DATASETS_HOME), and give the same command."
        ) from error
    finally:
        log.setLevel(level)


def _failed_download(error: BaseException) -> tuple[str, str] | None:
    """(address, path) of the download that failed: it is in the frames of the traceback, and nowhere else."""
    from ir_datasets.util import Download

    for frame, _ in traceback.walk_tb(error.__traceback__):
        download = frame.f_locals.get("self")
        if isinstance(download, Download):
            return str(getattr(download.mirrors[-1], "url", download.mirrors[-1])), str(download.path(force=False))
    return None


class CatalogListing(NamedTuple):
    """What is known of a name without a download; None where it is not."""

    name: str
    documents: int | None
    queries: int | None
    """To adapt on."""
    tests: dict[str, int | None]
    """Test queries by split."""
    licensed: bool


def catalog_listings() -> Iterator[CatalogListing]:
    """Every corpus that the paper and its field test on, by name; `load_named` takes ir_datasets' other ids too."""
    for name in LISTED_NAMES:
        entry = find_entry(name)
        assert entry is not None
        tests = {
            split or "test": _count(known, "queries")
            for split, known in entry.judged_splits.items()
            if split in TEST_SPLITS
        }
        adapted = _count(entry.training_ids[0], "queries") if entry.training_ids else 0
        yield CatalogListing(name, _count(entry.corpus_id, "docs"), adapted, tests, False)
    for name in LICENSED_CORPORA:
        yield CatalogListing(name, None, None, {}, True)


def _count(dataset_id: str, what: str) -> int | None:
    found = (_ir_dataset(dataset_id).metadata() or {}).get(what) or {}
    return found.get("count")


def similar_names(name: str) -> list[str]:
    """Names that look like it."""
    import ir_datasets

    names = [
        *NAME_ALIASES,
        *LICENSED_CORPORA,
        *ir_datasets.registry,
        *(known.removeprefix("beir/") for known in ir_datasets.registry),
    ]
    return difflib.get_close_matches(name, dict.fromkeys(names), n=3)
