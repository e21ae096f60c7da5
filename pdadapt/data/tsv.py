"""How a TSV file is laid out: which column is what, and whether a CSV writer put quotes around its fields."""

from __future__ import annotations

import re

from pdadapt.data import columns
from pdadapt.data.columns import Fields, RecordKind
from pdadapt.data.lines import Lines
from pdadapt.errors import DataError

TSV_FIELD = rb'(?:"[^"]*(?:""[^"]*)*"|[^\t"]*)'  # in quotes, those within doubled; or without any
QUOTED_ROW = re.compile(TSV_FIELD + rb"(?:\t" + TSV_FIELD + rb")*")
QUOTED_FIELD = re.compile(r'(?:^|\t)(?:"([^"]*(?:""[^"]*)*)"|([^\t]*))')


class TsvLayout:
    """Reads the rows of a TSV file of documents or queries.

    A header says which column is what (columns.header). Without one they are id and text; of documents where every row
    has three columns, id, text and title (MS MARCO's order). Further tabs in a row of documents belong to its text.
    """

    def __init__(self, lines: Lines, kind: RecordKind):
        """Raises DataError, with file and line, when the first line is neither a header nor a record, or when a quoted
        field goes over the end of its line.
        """
        self._kind = kind
        self._header = 0  # its line number
        self.joined = 0
        """Rows that were read whose text held a tab; first_joined: where the first is."""
        self.first_joined = ""
        self._quoted = _is_quoted(lines, kind)
        self._columns: tuple[str, ...] = ("id", "text")
        first = next(((number, line) for number, _, line in lines if line.strip()), None)
        if first is None:
            return
        where = f"{lines.path}:{first[0]}"
        if names := columns.parse_header(self._cells(lines.text(first[1], where)), kind, where):
            self._header = first[0]
            self._columns = names
        elif kind == "document" and not any(self._count(line) == 2 for _, _, line in lines):
            self._columns = ("id", "text", "title")

    def row(self, line: str, number: int, where: str) -> Fields | None:
        """The fields of a line; None when it is blank or the header. number: 0 when it has been read before.

        Raises DataError when it has too few columns or too many.
        """
        if not line.strip() or (number and number == self._header):
            return None
        cells = self._cells(line)
        names = self._columns
        if len(cells) < 2:
            raise DataError(f"{where}: expected id<TAB>text, and found no tab; put one between them.")
        if len(cells) < len(names) and self._header:
            return columns.to_row(names, cells, self._kind, where)
        if len(cells) > len(names):
            if self._kind != "document" or not columns.is_named(names[-1], "document", "text"):
                named = "<TAB>".join(names)
                expected = "id<TAB>text[<TAB>title]" if self._kind == "document" and not self._header else named
                raise DataError(
                    f"{where}: expected {expected}, and found {len(cells)} columns; remove the others, or put a space "
                    "in place of each tab within the text."
                )
            cells[len(names) - 1 :] = [" ".join(cells[len(names) - 1 :])]
            if number:
                self.joined += 1
                self.first_joined = self.first_joined or where
        return dict(zip(names, cells, strict=False))

    def _count(self, line: bytes) -> int:
        """How many columns a line has."""
        if self._quoted and b'"' in line:
            return len(self._cells(line.decode(errors="replace")))
        return line.count(b"\t") + 1

    def _cells(self, line: str) -> list[str]:
        if not self._quoted or '"' not in line:
            return line.split("\t")
        return [bare or quoted.replace('""', '"') for quoted, bare in QUOTED_FIELD.findall(line)]


def _is_quoted(lines: Lines, kind: RecordKind) -> bool:
    """Whether a CSV writer wrote the file: every quote in it belongs to a field that is quoted whole, with the quotes
    within doubled; and a row begins with one, or a field in quotes holds a quote or a tab, or every row has one. Plain
    text may begin with a quote, and end with one too.

    Raises DataError, with file and line, when such a field goes over the end of its line, or when a quote within a
    field is not doubled, though ids are in quotes.
    """
    found = ids = False
    quoted = 0  # rows with a field in quotes
    at = lines.bytes.find(b'"')
    while at >= 0:
        start = lines.start_of(at)
        line = lines.at(start)
        if QUOTED_ROW.fullmatch(line):
            quoted += 1
            ids = ids or line.startswith(b'"')
            found = found or ids or _needs_quotes(line)
        elif QUOTED_ROW.fullmatch(line + b'"') and (
            found or not _is_row(lines.after(start)) or _is_closed(lines, start + len(line))
        ):
            raise DataError(
                f"{lines.where(start)}: a field in quotes goes on in the next line, but a record is one line. Put a "
                "space in place of the line break, or bring the file as .csv or .jsonl."
            )
        elif ids:
            raise DataError(
                f"{lines.where(start)}: a quote within a field is not doubled, though other fields are in quotes. "
                "Double it, or remove the quotes around fields."
            )
        else:
            return False
        at = lines.bytes.find(b'"', start + len(line))
    return found or (quoted > 0 and _is_every_row(lines, quoted, kind))


def _is_closed(lines: Lines, end: int) -> bool:
    """Whether the next line with a quote ends the field in quotes that was open at the end of a line."""
    at = lines.bytes.find(b'"', end)
    return at >= 0 and QUOTED_ROW.fullmatch(b'"' + lines.at(lines.start_of(at))) is not None


def _is_every_row(lines: Lines, quoted: int, kind: RecordKind) -> bool:
    """Whether so many rows are all there are, but for a header."""
    rows = (line for _, _, line in lines if line.strip())
    first = next(rows)
    if b'"' not in first and columns.is_header(first.decode(errors="replace").split("\t"), kind):
        quoted += 1
    return 1 + sum(1 for _ in rows) == quoted


def _is_row(line: bytes) -> bool:
    return not line or b"\t" in line


def _needs_quotes(row: bytes) -> bool:
    """Whether a field holds a quote or a tab, and so is in quotes for a reason."""
    fields = (quoted for quoted, _ in QUOTED_FIELD.findall(row.decode(errors="replace")))
    return any('"' in field or "\t" in field for field in fields)
