"""Read the rows of TSV files: find out which column is which, and whether a CSV writer put quotes around fields."""

from __future__ import annotations

import re

from pdadapt.data import columns
from pdadapt.data.columns import Fields, RecordKind
from pdadapt.data.lines import Lines
from pdadapt.errors import DataError

# Either a field in quotes, in which quotes are doubled, or a field without any quote.
TSV_FIELD = rb'(?:"[^"]*(?:""[^"]*)*"|[^\t"]*)'
QUOTED_ROW = re.compile(TSV_FIELD + rb"(?:\t" + TSV_FIELD + rb")*")
QUOTED_FIELD = re.compile(r'(?:^|\t)(?:"([^"]*(?:""[^"]*)*)"|([^\t]*))')


class TsvLayout:
    """Reads the rows of a TSV file of documents or queries.

    A header names the columns (see `columns.parse_header`). Without a header the columns are id and text. If every row
    of a file of documents has three columns, they are id, text and title (MS MARCO's order). Further tabs in a row of
    documents belong to its text.
    """

    def __init__(self, lines: Lines, kind: RecordKind):
        """Raises DataError with file and line if the first line may be a header or a record, or if a field in quotes
        continues on the next line.
        """
        self._kind = kind
        self._header = 0  # the line number of the header; 0 if there is none
        self.joined = 0
        """The number of rows read so far whose text contained a tab."""
        self.first_joined = ""
        """ "file:line" of the first of these rows."""
        self._quoted = _is_quoted(lines, kind)
        self._columns: tuple[str, ...] = ("id", "text")
        first = next(((number, line) for number, _, line in lines if line.strip()), None)
        if first is None:
            return
        where = f"{lines.path}:{first[0]}"
        if names := columns.parse_header(self._cells(lines.decode(first[1], where)), kind, where):
            self._header = first[0]
            self._columns = names
        elif kind == "document" and not any(self._count(line) == 2 for _, _, line in lines):
            self._columns = ("id", "text", "title")

    def row(self, line: str, number: int, where: str) -> Fields | None:
        """The fields of a line. None if the line is blank or the header.

        number: the line number, or 0 if the line has been read before. where: "file:line". Raises DataError if the line
        has too few or too many columns.
        """
        if not line.strip() or (number and number == self._header):
            return None
        cells = self._cells(line)
        names = self._columns
        if len(cells) < 2:
            raise DataError(f"{where}: the line contains no tab. Write id<TAB>text.")
        if len(cells) < len(names) and self._header:
            return columns.to_row(names, cells, self._kind, where)
        if len(cells) > len(names):
            if self._kind != "document" or not columns.is_named(names[-1], "document", "text"):
                named = "<TAB>".join(names)
                expected = "id<TAB>text[<TAB>title]" if self._kind == "document" and not self._header else named
                raise DataError(
                    f"{where}: the line has {len(cells)} columns, but should be {expected}. Remove the other columns, "
                    "or replace each tab within the text with a space."
                )
            cells[len(names) - 1 :] = [" ".join(cells[len(names) - 1 :])]
            if number:
                self.joined += 1
                self.first_joined = self.first_joined or where
        return dict(zip(names, cells, strict=False))

    def _count(self, line: bytes) -> int:
        """The number of columns of a line."""
        if self._quoted and b'"' in line:
            return len(self._cells(line.decode(errors="replace")))
        return line.count(b"\t") + 1

    def _cells(self, line: str) -> list[str]:
        if not self._quoted or '"' not in line:
            return line.split("\t")
        return [bare or quoted.replace('""', '"') for quoted, bare in QUOTED_FIELD.findall(line)]


def _is_quoted(lines: Lines, kind: RecordKind) -> bool:
    """Whether a CSV writer wrote the file, so that quotes around fields must be removed.

    Plain text may start and end with a quote, too. So two conditions must hold:
    - Every quote in the file belongs to a field that is entirely in quotes, with doubled quotes inside.
    - A row starts with a field in quotes, or such a field contains a quote or a tab, or every row has such a field.

    Raises DataError with file and line if a field in quotes continues on the next line, or if ids are in quotes but a
    quote within a field is not doubled.
    """
    is_certain = ids_quoted = False
    quoted = 0  # the number of rows with a field in quotes
    at = lines.bytes.find(b'"')
    while at >= 0:
        start = lines.start_of(at)
        line = lines.at(start)
        if QUOTED_ROW.fullmatch(line):
            quoted += 1
            ids_quoted = ids_quoted or line.startswith(b'"')
            is_certain = is_certain or ids_quoted or _needs_quotes(line)
        elif QUOTED_ROW.fullmatch(line + b'"') and (
            is_certain or not _is_row(lines.next_line(start)) or _is_closed(lines, start + len(line))
        ):
            raise DataError(
                f"{lines.where(start)}: a field in quotes continues on the next line, but a record must be one line. "
                "Replace the line break with a space, or save the file as .csv or .jsonl."
            )
        elif ids_quoted:
            raise DataError(
                f"{lines.where(start)}: a quote within a field is not doubled, although fields are in quotes. Double "
                "it, or remove the quotes around fields."
            )
        else:
            return False
        at = lines.bytes.find(b'"', start + len(line))
    return is_certain or (quoted > 0 and _is_every_row(lines, quoted, kind))


def _is_closed(lines: Lines, end: int) -> bool:
    """Whether the next line with a quote closes the field in quotes that was open at the end of a line."""
    at = lines.bytes.find(b'"', end)
    return at >= 0 and QUOTED_ROW.fullmatch(b'"' + lines.at(lines.start_of(at))) is not None


def _is_every_row(lines: Lines, quoted: int, kind: RecordKind) -> bool:
    """Whether `quoted` is the number of all rows. The header is not counted unless it is in quotes."""
    rows = (line for _, _, line in lines if line.strip())
    first = next(rows)
    if b'"' not in first and columns.is_header(first.decode(errors="replace").split("\t"), kind):
        quoted += 1
    return 1 + sum(1 for _ in rows) == quoted


def _is_row(line: bytes) -> bool:
    return not line or b"\t" in line


def _needs_quotes(row: bytes) -> bool:
    """Whether a field in quotes contains a quote or a tab, so that a CSV writer must put it in quotes."""
    fields = (quoted for quoted, _ in QUOTED_FIELD.findall(row.decode(errors="replace")))
    return any('"' in field or "\t" in field for field in fields)
