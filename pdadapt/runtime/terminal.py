"""Consoles that do not interpret markup, and tables that do not cut figures."""

from __future__ import annotations

from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from pdadapt.runtime.printing import encodable, printable

UNLIMITED_WIDTH = 10_000  # characters: wider than any table
NARROWEST_NAME = 10  # characters that a column of names keeps when the terminal is narrow
NARROWEST_HEADER = 6  # the same for a header


class _Console(Console):
    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(encodable(printable(text), self.encoding), **options)


def console(**options: Any) -> Console:
    """A console that prints text as it is: no markup, no emoji codes, no highlighting, no wrapping."""
    return _Console(markup=False, emoji=False, highlight=False, soft_wrap=True, **options)


def plain(text: str, style: str = "") -> Text:
    """A text in which no console interprets markup."""
    return Text(printable(text), style)


class Name(Column):
    """A column of names, ids or texts, which may be wrapped anywhere."""


class WholeTable(Table):
    """A table that wraps between words only, so that no figure is cut. Columns of names may be wrapped anywhere.

    If the words do not fit, the table is wider than the terminal.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.update(width=UNLIMITED_WIDTH)
        widths, wanted = [], []
        for column in self.columns:
            header, *sizes = (Measurement.get(console, wide, cell) for cell in (column.header, *column.cells))
            longest = max((size.minimum for size in sizes), default=1)
            kept = min(longest, NARROWEST_NAME) if isinstance(column, Name) else longest
            widths.append(max(kept, min(header.minimum, NARROWEST_HEADER)))
            wanted.append(max(size.maximum for size in (header, *sizes)))
        _, right, _, left = self.padding
        lines = (self.box is not None) * (len(self.columns) + 1) + len(self.columns) * (left + right)
        while sum(widths) + lines < options.max_width and widths != wanted:
            narrowest = min((width, i) for i, width in enumerate(widths) if width < wanted[i])[1]
            widths[narrowest] += 1
        for column, width in zip(self.columns, widths, strict=True):
            column.width, column.overflow = width, "fold"  # only headers and names are wrapped now
        yield from super().__rich_console__(console, options.update(width=max(options.max_width, sum(widths) + lines)))
