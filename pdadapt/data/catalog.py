"""Load corpora by name from ir_datasets (BEIR, MS MARCO, TREC DL, LoTTE, DPR's Wikipedia) and the Hugging Face hub."""

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
    "bioasq": "Register at http://participants-area.bioasq.org and take the PubMed articles of task 8b.",
    "robust04": "Get TREC disks 4 and 5 from NIST (https://trec.nist.gov/data/cd45).",
    "signal1m": "Get the Signal-1M related tweets (https://research.signal-ai.com/datasets/signal1m-tweetir.html).",
    "trec-news": "Get the Washington Post collection from NIST (https://trec.nist.gov/data/wapost).",
}
# The number of test queries behind published figures, for corpora of which ir_datasets has fewer.
PAPER_QUERY_COUNTS = {"nq-open": 8_757}
PAPER_QUERY_LENGTHS = {"beir/arguana": 300, "beir/climate-fever": 64}  # tokens kept of a query
# The test split of a corpus is the first of these that has judgments. "" is the dataset id itself.
TEST_SPLITS = ("", "test", "dev/small", "dev")


class CatalogEntry(NamedTuple):
    """The ids in ir_datasets that belong to one corpus name."""

    corpus_id: str
    judged_splits: dict[str, str]
    """Split -> id of a dataset with judgments. The key "" is the name itself."""
    training_ids: tuple[str, ...]
    """Ids of datasets whose queries may be used for adaptation, best first."""


def find_entry(name: str) -> CatalogEntry | None:
    """Find a corpus by an id of ir_datasets or by a short name (`fiqa`, `dl19`, `lotte/pooled/search`).

    Returns None if ir_datasets does not know the name. Raises DataError if the name covers several corpora; the
    message lists them.
    """
    import ir_datasets

    ids = list(ir_datasets.registry)
    for full_name in filter(None, (NAME_ALIASES.get(name), f"beir/{name}", name)):
        family = sorted(known for known in ids if known == full_name or known.startswith(f"{full_name}/"))
        if family:
            break
    else:
        return None
    judged = {known.removeprefix(full_name).strip("/"): known for known in family if _ir_dataset(known).has_qrels()}
    documents = list(dict.fromkeys(ir_datasets.docs_parent_id(known) for known in judged.values())) or [full_name]
    if len(documents) > 1:
        averaged = " (`pdadapt evaluate --suite beir-18` averages them)" if "cqadupstack" in name else ""
        raise DataError(f"{name!r} covers several corpora{averaged}. Choose one of them: {', '.join(documents)}.")
    places = [
        full_name,
        *(str(above) for above in PurePosixPath(full_name).parents if f"{above}/".startswith(documents[0])),
    ]
    training = (f"{place}/{split}" for place in places for split in ("train", "dev"))
    return CatalogEntry(documents[0], judged, tuple(known for known in training if known in ids))


def load_named(name: str, split: str = "test", notices: Notices | None = None) -> Dataset | None:
    """Load a corpus by name, with training queries from its `train` (else `dev`) split and test queries from `split`.

    ir_datasets downloads and checks missing files, and keeps them for later runs. Training judgments are read only
    when `Dataset.train_qrels` is used, or when only their ids tell which queries belong to `train`.

    Returns None if the name is unknown. Raises DataError if a file cannot be downloaded (the message says where to put
    it), or if the split does not exist.
    """
    if name in LICENSED_CORPORA:
        raise DataError(
            f"{name!r} is licensed and cannot be downloaded. {LICENSED_CORPORA[name]} Convert it to a folder with "
            "corpus.jsonl, queries.jsonl and qrels/test.tsv (see BEIR's examples/dataset/README.md), and pass that "
            "folder."
        )
    entry = find_entry(name)
    if entry is None:
        return None
    notices = notices or Notices()
    test = _test_split_id(name, entry, split)
    training = next((dataset_id for dataset_id in entry.training_ids if dataset_id != test), None)
    with _download_errors(name):
        qrels, all_test_queries = read_ir_qrels(test), read_ir_queries(test, notices)
        queries = read_ir_queries(training, notices) if training else {}
        documents = IrDocuments(entry.corpus_id)
    corpus = build_corpus(documents, documents.scanned, documents.where, entry.corpus_id, notices)
    test_queries, qrels = match_qrels(qrels, test, all_test_queries, corpus, notices)

    def read_train_qrels() -> Qrels:
        if not training:
            return {}
        with _download_errors(name):
            judged = read_ir_qrels(training)
        return match_qrels(judged, training, queries, corpus, notices, "training")[1]

    return Dataset(
        name,
        corpus,
        {query_id: text for query_id, text in queries.items() if query_id not in test_queries},
        test_queries,
        qrels,
        read_train_qrels,
        training or "",
        test,
        read_ir_answers(test),
        token_lengths(name),
    )


def load_test_queries(name: str) -> tuple[Queries, Qrels] | None:
    """Load the test queries and qrels of a corpus, without its documents.

    Returns None if the name is unknown. Raises DataError if a file cannot be downloaded.
    """
    entry = None if name in LICENSED_CORPORA else find_entry(name)
    if entry is None:
        return None
    with _download_errors(name):
        test = _test_split_id(name, entry, "test")
        qrels, queries = read_ir_qrels(test), read_ir_queries(test, Notices())
    judged = [query_id for query_id in qrels if query_id in queries]
    return {query_id: queries[query_id] for query_id in judged}, {query_id: qrels[query_id] for query_id in judged}


def _test_split_id(name: str, entry: CatalogEntry, split: str) -> str:
    """The id of the dataset that has the judgments of a split. Raises DataError if there is none."""
    candidates = TEST_SPLITS if split == "test" else (split,)
    judged = [candidate for candidate in candidates if candidate in entry.judged_splits]
    if not judged:
        if not entry.judged_splits:
            raise DataError(f"{name!r} has no judgments for any split. Leave out --split (evaluate.split).")
        raise DataError(
            f"{name!r} has no judgments for split {split!r}. Pass one of these as --split (evaluate.split): "
            f"{', '.join(entry.judged_splits)}."
        )
    return entry.judged_splits[judged[0]]


class IrDocuments(Sequence[Document]):
    """The documents of an ir_datasets corpus, read from its store on disk on access.

    Memory use is eight bytes per document.
    """

    def __init__(self, dataset_id: str):
        self._id = dataset_id
        self._dataset = _ir_dataset(dataset_id)
        self.scanned = scan_documents(self)

    def where(self, place: int) -> str:
        """How messages name the document at this position."""
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
    """The rows of a Hugging Face dataset as documents, read from its files on disk on access."""

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
    """Read the documents of a Hugging Face dataset (see `records.hub_rows` for its name).

    Blank documents are left out and noted in `notices`. Raises DataError if the dataset is empty, or if a row has no
    text field.
    """
    documents = HubDocuments(name)
    if not len(documents):
        raise DataError(f"{name} contains no documents. Choose another split with hf:NAME:CONFIG@SPLIT.")
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
    """Read the queries of a dataset of ir_datasets. Blank queries are left out and noted."""
    queries = {query.query_id: query.default_text() for query in _ir_dataset(dataset_id).queries_iter()}
    blank = [query_id for query_id, text in queries.items() if not text.strip()]
    notices.leave_out("query", dataset_id, blank, f"{dataset_id}: query {blank[0]!r}" if blank else "")
    return {query_id: text for query_id, text in queries.items() if text.strip()}


def read_ir_answers(dataset_id: str) -> dict[str, tuple[str, ...]]:
    """Read the answers to open-domain questions by query id. Empty if the dataset has none."""
    if "answers" not in _ir_dataset(dataset_id).queries_cls()._fields:
        return {}
    return {query.query_id: tuple(query.answers) for query in _ir_dataset(dataset_id).queries_iter()}


def token_lengths(name: str) -> dict[str, int]:
    """`query_length` and `document_length` in tokens that PairDistill and ColBERTv2 use on BEIR and LoTTE.

    Empty for other corpora. There the checkpoint's own lengths apply.
    """
    entry = None if name in LICENSED_CORPORA else find_entry(name)
    documents = entry.corpus_id if entry else f"beir/{name}"
    if not documents.startswith(("beir/", "lotte/")):
        return {}
    queries = PAPER_QUERY_LENGTHS.get(documents)
    return {"document_length": 300} | ({"query_length": queries} if queries else {})


def read_ir_qrels(dataset_id: str) -> Qrels:
    """Read the qrels of a dataset of ir_datasets."""
    qrels: Qrels = {}
    for judgment in _ir_dataset(dataset_id).qrels_iter():
        qrels.setdefault(judgment.query_id, {})[judgment.doc_id] = int(judgment.relevance)
    return qrels


@contextmanager
def _download_errors(name: str) -> Iterator[None]:
    """Turn errors of ir_datasets into a DataError that names the missing file and where to put it."""
    log = logging.getLogger("ir_datasets")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    except DataError:  # --strict refuses a notice with a DataError
        raise
    except Exception as error:
        download = _failed_download(error)
        if download is None:
            raise DataError(
                f"ir_datasets cannot read {name!r} ({reason(error)}). Delete its files in IR_DATASETS_HOME and repeat "
                "the command to download them again."
            ) from error
        url, path = download
        raise DataError(
            f"{name!r} is not on this machine, and its download failed ({type(error).__name__}). Download {url} on a "
            f"machine with a network, put it at {path} (below IR_DATASETS_HOME), and repeat the command."
        ) from error
    finally:
        log.setLevel(level)


def _failed_download(error: BaseException) -> tuple[str, str] | None:
    """(URL, local path) of the download that failed. Only the frames of the traceback contain them."""
    from ir_datasets.util import Download

    for frame, _ in traceback.walk_tb(error.__traceback__):
        download = frame.f_locals.get("self")
        if isinstance(download, Download):
            return str(getattr(download.mirrors[-1], "url", download.mirrors[-1])), str(download.path(force=False))
    return None


class CatalogListing(NamedTuple):
    """What is known about a corpus without downloading it. None means that a number is unknown."""

    name: str
    documents: int | None
    """Number of documents."""
    queries: int | None
    """Number of training queries."""
    tests: dict[str, int | None]
    """Number of test queries by split."""
    licensed: bool
    """Whether the corpus must be obtained from its owner."""


def catalog_listings() -> Iterator[CatalogListing]:
    """Yield the corpora that the paper and related work test on. `load_named` also accepts all ids of ir_datasets."""
    for name in LISTED_NAMES:
        entry = find_entry(name)
        assert entry is not None
        tests = {
            split or "test": _count(known, "queries")
            for split, known in entry.judged_splits.items()
            if split in TEST_SPLITS
        }
        queries = _count(entry.training_ids[0], "queries") if entry.training_ids else 0
        yield CatalogListing(name, _count(entry.corpus_id, "docs"), queries, tests, False)
    for name in LICENSED_CORPORA:
        yield CatalogListing(name, None, None, {}, True)


def _count(dataset_id: str, part: str) -> int | None:
    """The number of `docs` or `queries` that the metadata of ir_datasets give."""
    metadata = (_ir_dataset(dataset_id).metadata() or {}).get(part) or {}
    return metadata.get("count")


def similar_names(name: str) -> list[str]:
    """At most three known names that are spelled like this one."""
    import ir_datasets

    names = [
        *NAME_ALIASES,
        *LICENSED_CORPORA,
        *ir_datasets.registry,
        *(known.removeprefix("beir/") for known in ir_datasets.registry),
    ]
    return difflib.get_close_matches(name, dict.fromkeys(names), n=3)
