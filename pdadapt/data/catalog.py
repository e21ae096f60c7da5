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
from pdadapt.data.documents import gather, scan, to_document
from pdadapt.data.judgments import match_qrels
from pdadapt.data.notices import Notices
from pdadapt.data.records import hub_rows
from pdadapt.data.trec import Qrels
from pdadapt.errors import DataError, reason

FORUMS = (
    *("android", "english", "gaming", "gis", "mathematica", "physics", "programmers", "stats", "tex", "unix"),
    *("webmasters", "wordpress"),
)
DOMAINS = ("writing", "recreation", "science", "technology", "lifestyle", "pooled")
ALIASES = {
    "msmarco": "msmarco-passage",
    "dl19": "msmarco-passage/trec-dl-2019/judged",
    "dl20": "msmarco-passage/trec-dl-2020/judged",
    "touche2020": "beir/webis-touche2020/v2",
    "nq-open": "dpr-w100/natural-questions",
    "triviaqa": "dpr-w100/trivia-qa",
    **{f"lotte/{domain}/{kind}": f"lotte/{domain}/test/{kind}" for domain in DOMAINS for kind in ("search", "forum")},
}
LISTED = (
    *("arguana", "climate-fever", "dbpedia-entity", "fever", "fiqa", "hotpotqa", "nfcorpus", "nq", "quora", "scidocs"),
    *("scifact", "touche2020", "trec-covid"),
    *(f"cqadupstack/{forum}" for forum in FORUMS),
    *("msmarco", "dl19", "dl20", "nq-open", "triviaqa"),
    *(known for known in ALIASES if known.startswith("lotte/")),
)
LICENSED = {
    "bioasq": "register at http://participants-area.bioasq.org and take the PubMed articles of task 8b",
    "robust04": "get TREC disks 4 and 5, from NIST (https://trec.nist.gov/data/cd45)",
    "signal1m": "get the Signal-1M related tweets (https://research.signal-ai.com/datasets/signal1m-tweetir.html)",
    "trec-news": "get the Washington Post collection, from NIST (https://trec.nist.gov/data/wapost)",
}
PAPER_QUERIES = {"nq-open": 8_757}  # test queries that published figures are on, where ir_datasets has fewer
QUERY_LENGTHS = {"beir/arguana": 300, "beir/climate-fever": 64}
SPLITS = ("", "test", "dev/small", "dev")  # where a name's test is, the first that there is; "" is the name itself


class Entry(NamedTuple):
    """What a name stands for: ids of ir_datasets."""

    documents: str
    judged: dict[str, str]  # by split; under "" the name itself, if it has judgments
    unlabeled: tuple[str, ...]  # whose queries may be adapted on, best first


def find(name: str) -> Entry | None:
    """What ir_datasets has under this name: one of its ids, or one of ours (`fiqa`, `dl19`, `lotte/pooled/search`).

    Raises DataError when it is a family of corpora, naming them.
    """
    import ir_datasets

    ids = list(ir_datasets.registry)
    for whole in filter(None, (ALIASES.get(name), f"beir/{name}", name)):
        family = sorted(known for known in ids if known == whole or known.startswith(f"{whole}/"))
        if family:
            break
    else:
        return None
    judged = {known.removeprefix(whole).strip("/"): known for known in family if _get(known).has_qrels()}
    documents = list(dict.fromkeys(ir_datasets.docs_parent_id(known) for known in judged.values())) or [whole]
    if len(documents) > 1:
        averaged = " (`pdadapt evaluate --suite beir-18` averages them)" if "cqadupstack" in name else ""
        raise DataError(f"{name!r} is several corpora{averaged}; give one of them: {', '.join(documents)}.")
    places = [whole, *(str(above) for above in PurePosixPath(whole).parents if f"{above}/".startswith(documents[0]))]
    unlabeled = (f"{place}/{split}" for place in places for split in ("train", "dev"))
    return Entry(documents[0], judged, tuple(known for known in unlabeled if known in ids))


def load_named(name: str, split: str = "test", notices: Notices | None = None) -> Dataset | None:
    """The corpus of this name; the queries of its `train`, else `dev`, to adapt on; those of `split` to test on.

    What is not on this machine is downloaded, checked and kept by ir_datasets. Of `train` only the ids of its judgments
    are read, where they alone say which queries are its. Returns None when there is no such name.
    Raises DataError when it cannot be had, saying which file is to be put where, or when there is no such split.
    """
    if name in LICENSED:
        raise DataError(
            f"{name!r} is licensed, so nobody may hand it out: {LICENSED[name]}; bring it into a folder with "
            "corpus.jsonl, queries.jsonl and qrels/test.tsv (BEIR's examples/dataset/README.md says how), and give "
            "that folder."
        )
    entry = find(name)
    if entry is None:
        return None
    notices = notices or Notices()
    test = _test_of(name, entry, split)
    adapted = next((found for found in entry.unlabeled if found != test), None)
    with _files(name):
        qrels, every = read_qrels(test), read_queries(test, notices)
        queries = read_queries(adapted, notices) if adapted else {}
        documents = IrDocuments(entry.documents)
    corpus = gather(documents, documents.scanned, documents.where, entry.documents, notices)
    test_queries, qrels = match_qrels(qrels, test, every, corpus, notices)

    def read_train_qrels() -> Qrels:
        if not adapted:
            return {}
        with _files(name):
            judged = read_qrels(adapted)
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
        read_answers(test),
        lengths_of(name),
    )


def load_test(name: str) -> tuple[Queries, Qrels] | None:
    """The test queries of load_named, and how they are judged, without the corpus; None when there is no such name.

    Raises DataError when they cannot be had.
    """
    entry = None if name in LICENSED else find(name)
    if entry is None:
        return None
    with _files(name):
        test = _test_of(name, entry, "test")
        qrels, every = read_qrels(test), read_queries(test, Notices())
    judged = [query_id for query_id in qrels if query_id in every]
    return {query_id: every[query_id] for query_id in judged}, {query_id: qrels[query_id] for query_id in judged}


def _test_of(name: str, entry: Entry, split: str) -> str:
    """The id that has the judgments of a split. Raises DataError when there is none."""
    known = [found for found in (SPLITS if split == "test" else (split,)) if found in entry.judged]
    if not known:
        there = ", ".join(entry.judged) or "none"
        raise DataError(f"{name!r} has no split {split!r} with judgments; it has {there} (evaluate: --split).")
    return entry.judged[known[0]]


class IrDocuments(Sequence[Document]):
    """ir_datasets' documents, each read from its store on disk when asked for: in memory are eight bytes a document."""

    def __init__(self, dataset_id: str):
        self._id = dataset_id
        self._dataset = _get(dataset_id)
        self.scanned = scan(self)

    def where(self, place: int) -> str:
        return f"{self._id}: document {self[place].doc_id!r}"

    def __len__(self) -> int:
        return len(self.scanned[0])

    def __iter__(self) -> Iterator[Document]:
        return map(_document, self._dataset.docs_iter())

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> list[Document]: ...
    def __getitem__(self, index: int | slice) -> Document | list[Document]:
        if isinstance(index, slice):
            return list(map(_document, self._dataset.docs_iter()[index]))
        return _document(next(self._dataset.docs_iter()[index : index + 1]))


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
    return gather(documents, scan(documents), lambda place: f"{name}: row {place + 1}", name, notices or Notices())


def _get(dataset_id: str) -> Any:
    import ir_datasets

    return ir_datasets.registry[dataset_id]


def _document(record: Any) -> Document:
    text = getattr(record, "text", None) or getattr(record, "body", None)
    if text is None and not hasattr(record, "text"):
        return Document(record.doc_id, "", record.default_text())
    return Document(record.doc_id, getattr(record, "title", None) or "", text or "")


def read_queries(dataset_id: str, notices: Notices) -> Queries:
    """Blank ones are left out, and noted."""
    every = {query.query_id: query.default_text() for query in _get(dataset_id).queries_iter()}
    blank = [query_id for query_id, text in every.items() if not text.strip()]
    notices.leave_out("query", dataset_id, blank, f"{dataset_id}: query {blank[0]!r}" if blank else "")
    return {query_id: text for query_id, text in every.items() if text.strip()}


def read_answers(dataset_id: str) -> dict[str, tuple[str, ...]]:
    """Of open-domain questions, by query id."""
    if "answers" not in _get(dataset_id).queries_cls()._fields:
        return {}
    return {query.query_id: tuple(query.answers) for query in _get(dataset_id).queries_iter()}


def lengths_of(name: str) -> dict[str, int]:
    """Tokens that PairDistill and ColBERTv2 keep on BEIR and LoTTE; elsewhere a checkpoint's own lengths hold."""
    entry = None if name in LICENSED else find(name)
    documents = entry.documents if entry else f"beir/{name}"
    if not documents.startswith(("beir/", "lotte/")):
        return {}
    queries = QUERY_LENGTHS.get(documents)
    return {"document_length": 300} | ({"query_length": queries} if queries else {})


def read_qrels(dataset_id: str) -> Qrels:
    qrels: Qrels = {}
    for judgment in _get(dataset_id).qrels_iter():
        qrels.setdefault(judgment.query_id, {})[judgment.doc_id] = int(judgment.relevance)
    return qrels


@contextmanager
def _files(name: str) -> Iterator[None]:
    """Turns what ir_datasets raises when a file cannot be had into a DataError that says which, and where it goes."""
    log = logging.getLogger("ir_datasets")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    except DataError:  # of a notice that --strict refuses
        raise
    except Exception as error:
        wanted = _wanted_file(error)
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


def _wanted_file(error: BaseException) -> tuple[str, str] | None:
    """(address, path) of the download that failed: it is in the frames of the traceback, and nowhere else."""
    from ir_datasets.util import Download

    for frame, _ in traceback.walk_tb(error.__traceback__):
        download = frame.f_locals.get("self")
        if isinstance(download, Download):
            return str(getattr(download.mirrors[-1], "url", download.mirrors[-1])), str(download.path(force=False))
    return None


class Listing(NamedTuple):
    """What is known of a name without a download; None where it is not."""

    name: str
    documents: int | None
    queries: int | None
    """To adapt on."""
    tests: dict[str, int | None]
    """Test queries by split."""
    licensed: bool


def listings() -> Iterator[Listing]:
    """Every corpus that the paper and its field test on, by name; `load_named` takes ir_datasets' other ids too."""
    for name in LISTED:
        entry = find(name)
        assert entry is not None
        tests = {split or "test": _count(known, "queries") for split, known in entry.judged.items() if split in SPLITS}
        adapted = _count(entry.unlabeled[0], "queries") if entry.unlabeled else 0
        yield Listing(name, _count(entry.documents, "docs"), adapted, tests, False)
    for name in LICENSED:
        yield Listing(name, None, None, {}, True)


def _count(dataset_id: str, what: str) -> int | None:
    found = (_get(dataset_id).metadata() or {}).get(what) or {}
    return found.get("count")


def near(name: str) -> list[str]:
    """Names that look like it."""
    import ir_datasets

    names = [
        *ALIASES,
        *LICENSED,
        *ir_datasets.registry,
        *(known.removeprefix("beir/") for known in ir_datasets.registry),
    ]
    return difflib.get_close_matches(name, dict.fromkeys(names), n=3)
