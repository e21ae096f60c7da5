"""Consoles and tables in which nothing that a user names is markup, and no figure is cut."""

from __future__ import annotations

from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from pdadapt.runtime.printing import encodable, printable

WIDEST = 10_000  # columns of a terminal
NARROWEST = 10  # columns that a name keeps where there is no room
HEADER = 6  # the same of a header


class _Console(Console):
    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(encodable(printable(text), self.encoding), **options)


def console(**options: Any) -> Console:
    """A console that prints a text as it is: no markup, no emoji codes, no colours of its own, long lines whole."""
    return _Console(markup=False, emoji=False, highlight=False, soft_wrap=True, **options)


def plain(text: str, style: str = "") -> Text:
    """A text that is no markup in any console."""
    return Text(printable(text), style)


class Name(Column):
    """A column of names, ids or texts, which may fold anywhere."""


class WholeTable(Table):
    """A table of which no figure is cut: words stay whole but in columns of names. Where they need more width than the
    terminal has, the table is wider than the terminal.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.update(width=WIDEST)
        widths, wanted = [], []
        for column in self.columns:
            header, *sizes = (Measurement.get(console, wide, cell) for cell in (column.header, *column.cells))
            longest = max((size.minimum for size in sizes), default=1)
            kept = min(longest, NARROWEST) if isinstance(column, Name) else longest
            widths.append(max(kept, min(header.minimum, HEADER)))
            wanted.append(max(size.maximum for size in (header, *sizes)))
        _, right, _, left = self.padding
        lines = (self.box is not None) * (len(self.columns) + 1) + len(self.columns) * (left + right)
        while sum(widths) + lines < options.max_width and widths != wanted:
            narrowest = min((width, i) for i, width in enumerate(widths) if width < wanted[i])[1]
            widths[narrowest] += 1
        for column, width in zip(self.columns, widths, strict=True):
            column.width, column.overflow = width, "fold"  # the header may fold, and nothing else must
        yield from super().__rich_console__(console, options.update(width=max(options.max_width, sum(widths) + lines)))
