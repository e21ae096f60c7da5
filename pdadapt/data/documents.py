"""Documents from files and folders. Blank documents are left out and noted."""

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

UNSAFE_ID_CHARACTERS = re.compile(
    r"[\s%\x00-\x1f\x7f\ud800-\udfff]"
)  # in an id: what runs cannot carry, or no terminal can show


def read_corpus(path: Path, notices: Notices | None = None) -> Corpus:
    """Read documents: JSONL (`_id`, `title`, `text`), TSV (id, text[, title]: MS MARCO's order) or CSV with a header.

    Of a JSONL or TSV file the texts stay on disk until they are asked for. Blank documents are left out, and noted.
    Raises DataError, with file and line, on what cannot be read.
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
        found = f"{tsv.first_joined}: the text holds a tab" + f", as in {tsv.joined - 1:,} more" * (tsv.joined > 1)
        notices.add(
            f"tabs of {path}",
            f"{found}: read as white space, since not every row has another column.",
            f"{found}. Put a space in its place, name all columns in a header, or leave out --strict.",
        )
    return corpus


def read_folder(folder: Path, files: Sequence[Path], notices: Notices | None = None) -> Corpus:
    """A document a file; its id is the file's path within the folder, with %20 for a space, and so for control
    characters and for bytes that are not UTF-8. Blank documents are left out, and noted. Raises DataError.
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


def _percent_encode(found: re.Match[str]) -> str:
    return quote(found[0], errors="surrogateescape")


def scan_documents(documents: Iterable[Document]) -> tuple[array[int], array[int]]:
    """(the hash of each document's id, the places of those that are blank)."""
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
    """The corpus of these documents, without the blank ones.

    scanned: what scan says of them. where: "file:line" of the document at a place. Raises DataError when an id stands
    twice, or no document is left.
    """
    hashes, blank = scanned
    corpus = Corpus(documents, hashes)
    if (repeated := corpus.repeated_id()) is not None:
        raise DataError(
            f"{where(repeated)}: the document id {documents[repeated].doc_id!r} stands twice; remove or rename one."
        )
    if blank:
        notices.leave_out("document", source, [documents[place].doc_id for place in blank], where(blank[0]))
        kept = np.delete(np.arange(len(documents)), blank)
        rest = documents.keep(kept) if isinstance(documents, LineFile) else Subset(documents, kept)
        corpus = Corpus(rest, np.asarray(hashes, np.uint64)[kept])
    if not len(corpus):
        raise DataError(
            f"{source} holds no documents{' that are not blank' if blank else ''}; give the file that does."
        )
    return corpus


def to_document(row: Fields, where: str) -> Document:
    return Document(read_id(row, "document", where), read_title(row, where), read_text(row, where))
