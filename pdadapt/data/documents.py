"""Read documents from files and folders. Blank documents are left out and noted in `Notices`."""

from __future__ import annotations

import itertools
import re
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from pdadapt.data.columns import Fields
from pdadapt.data.corpus import Corpus, Document, hash_id
from pdadapt.data.lines import file_ending, is_gzip, open_text
from pdadapt.data.notices import Notices
from pdadapt.data.records import (
    LineFile,
    Subset,
    check_text,
    read_id,
    read_rows,
    read_text,
    read_title,
)
from pdadapt.errors import DataError

# Characters that a run file cannot contain in an id, or that a terminal cannot show.
UNSAFE_ID_CHARACTERS = re.compile(r"[\s%\x00-\x1f\x7f\ud800-\udfff]")


def read_corpus(path: Path, notices: Notices | None = None) -> Corpus:
    """Read a file of documents: JSONL (`_id`, `title`, `text`), TSV (id, text[, title]), CSV with a header, or Parquet.

    The column order of TSV is MS MARCO's. The texts of JSONL and TSV files stay on disk until they are used. Blank
    documents are left out and noted. Raises DataError with file and line if a record is malformed.
    """
    notices = notices or Notices()
    if file_ending(path) not in (".jsonl", ".json", ".tsv"):
        documents = [to_document(row, where) for row, where in read_rows(path, "document")]

        def where_of(place: int) -> str:
            return next(itertools.islice((where for _, where in read_rows(path, "document")), place, None))

        return build_corpus(documents, scan_documents(documents), where_of, str(path), notices)
    lines = LineFile(path, to_document)
    corpus = build_corpus(lines, scan_documents(lines.read()), lines.where, str(path), notices)
    if (tsv := lines.rows.tsv) and tsv.joined:
        more = f" (and {tsv.joined - 1:,} more)" * (tsv.joined > 1)
        problem = f"{tsv.first_joined}: the text contains a tab{more}."
        notices.add(
            f"tabs of {path}",
            f"{problem} It was read as a space, because not every row has a third column.",
            f"{problem} Replace it with a space, name all columns in a header, or leave out --strict.",
        )
    return corpus


def read_folder(folder: Path, files: Sequence[Path], notices: Notices | None = None) -> Corpus:
    """Read each of these text files as one document.

    A document's id is the path of its file within the folder. White space, `%`, control characters and bytes that are
    not UTF-8 are percent-encoded (%20 for a space). Blank documents are left out and noted. Raises DataError if a file
    cannot be read as text, or if none contains text.
    """
    documents = []
    for file in files:
        with open_text(folder / file) as lines:
            text = check_text(lines.read(), str(folder / file))
        name = file.as_posix()[: -len(".gz")] if is_gzip(file) else file.as_posix()
        documents.append(Document(UNSAFE_ID_CHARACTERS.sub(_percent_encode, name), "", text))
    return build_corpus(
        documents,
        scan_documents(documents),
        lambda place: str(folder / files[place]),
        str(folder),
        notices or Notices(),
    )


def _percent_encode(match: re.Match[str]) -> str:
    return quote(match[0], errors="surrogateescape")


def scan_documents(documents: Iterable[Document]) -> tuple[array[int], array[int]]:
    """(hash of each document's id, positions of the blank documents)."""
    hashes, blank = array("Q"), array("Q")
    for place, document in enumerate(documents):
        hashes.append(hash_id(document.doc_id))
        if is_blank(document):
            blank.append(place)
    return hashes, blank


def is_blank(document: Document) -> bool:
    return not document.text.strip() and not document.title.strip()


def build_corpus(
    documents: Sequence[Document],
    scanned: tuple[array[int], array[int]],
    where: Callable[[int], str],
    source: str,
    notices: Notices,
) -> Corpus:
    """Build a corpus from these documents. Blank documents are left out and noted.

    scanned: the result of `scan_documents`. where: returns "file:line" of the document at a position. source: how
    messages name the documents. Raises DataError if an id is repeated, or if no document is left.
    """
    hashes, blank = scanned
    corpus = Corpus(documents, hashes)
    if (repeated := corpus.repeated_id()) is not None:
        raise DataError(
            f"{where(repeated)}: duplicate document id {documents[repeated].doc_id!r}. Remove or rename one of them."
        )
    if blank:
        notices.leave_out("document", source, [documents[place].doc_id for place in blank], where(blank[0]))
        kept = np.delete(np.arange(len(documents)), blank)
        rest = documents.keep(kept) if isinstance(documents, LineFile) else Subset(documents, kept)
        corpus = Corpus(rest, np.asarray(hashes, np.uint64)[kept])
    if not len(corpus):
        raise DataError(
            f"{source} contains no documents{' that are not blank' if blank else ''}. Choose a file that has some."
        )
    return corpus


def to_document(row: Fields, where: str) -> Document:
    """A document from the fields of a record. where: "file:line". Raises DataError if id or text is missing."""
    return Document(read_id(row, "document", where), read_title(row, where), read_text(row, where))
