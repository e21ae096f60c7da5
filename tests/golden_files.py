"""Golden files: what pdadapt prints, kept under tests/golden and compared exactly.

`pytest --golden` writes the texts of the tests that it runs. The diff is to be reviewed like any other code.
A file holds entries. An entry is a line `## NAME` and then its text.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "golden"
HEAD = "## "
ADVICE = "Run `pytest --golden` on this test file, and review the diff"


def schema(value: Any, maps: Iterable[str] = ()) -> str:
    """The keys of a JSON value with their types, a line each. The elements of a list are taken together.

    maps: paths of objects whose values all have one form, so that these are taken together too.
    """
    kinds: dict[str, set[str]] = {}

    def walk(value: Any, path: str) -> None:
        kind = "null" if value is None else type(value).__name__
        inner: Iterable[tuple[str, Any]] = ()
        if isinstance(value, dict) and path in maps:
            kind, inner = f"map of {', '.join(sorted(value))}", ((".*", one) for one in value.values())
        elif isinstance(value, dict):
            inner = ((f".{key}", one) for key, one in value.items())
        elif isinstance(value, list):
            inner = (("[]", one) for one in value)
        kinds.setdefault(path, set()).add(kind)
        for name, one in inner:
            walk(one, path + name)

    walk(value, "$")
    return "\n".join(f"{path}: {' or '.join(sorted(found))}" for path, found in sorted(kinds.items()))


class GoldenFile:
    """The entries of one file, by name."""

    def __init__(self, path: Path, write: bool = False):
        self.path, self.write = path, write

    def check(self, name: str, text: str) -> None:
        """Compare a text with its entry, or write the entry. White space at the ends of lines does not count."""
        text = "\n".join(line.rstrip() for line in text.strip("\n").splitlines())
        assert text and not any(line.startswith(HEAD) for line in text.splitlines()), text
        entries = self._read()
        if self.write:
            self._write(entries | {name: text})
            return
        if name not in entries:
            pytest.fail(f"{self.path} has no entry {name!r}. {ADVICE}.\n{text}", pytrace=False)
        if entries[name] != text:
            lines = difflib.ndiff(entries[name].splitlines(), text.splitlines())
            difference = "\n".join(line.rstrip("\n") for line in lines)
            pytest.fail(f"{self.path}: {name!r} differs. {ADVICE}.\n{difference}", pytrace=False)

    def check_names(self, names: Iterable[str]) -> None:
        """Compare the names and order of the entries with those wanted, or sort the file and drop what is unknown."""
        entries, wanted = self._read(), list(names)
        if self.write:
            entries = {name: entries[name] for name in wanted if name in entries}
            self._write(entries)
        missing, unknown = [name for name in wanted if name not in entries], entries.keys() - set(wanted)
        assert not missing, f"{self.path} lacks {missing}. {ADVICE}."
        assert not unknown, f"{self.path} has entries that no test knows: {unknown}. {ADVICE}."
        assert list(entries) == wanted, f"{self.path} has its entries in another order. {ADVICE}."

    def _read(self) -> dict[str, str]:
        entries: dict[str, str] = {}
        if not self.path.exists():
            return entries
        for part in ("\n" + self.path.read_text(encoding="utf-8")).split("\n" + HEAD)[1:]:
            name, _, text = part.partition("\n")
            assert name not in entries, f"{self.path} has two entries {name!r}; remove one."
            entries[name] = text.strip("\n")
        return entries

    def _write(self, entries: dict[str, str]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = "\n".join(f"{HEAD}{name}\n{text}\n" for name, text in entries.items())
        self.path.write_text(text, encoding="utf-8")
