"""Notices about records of a dataset that cannot be used. --strict turns them into errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from pdadapt.errors import DataError

BlankKind = Literal["document", "query"]
PLURALS: dict[BlankKind, str] = {"document": "documents", "query": "queries"}


class Notices:
    """The notices of one dataset, one sentence for each topic."""

    def __init__(self, strict: bool = False):
        """strict: raise DataError in place of a notice."""
        self.strict = strict
        self.blank: dict[BlankKind, set[str]] = {"document": set(), "query": set()}
        """Ids of blank records, which are left out."""
        self._sentences: dict[str, str] = {}
        self._shown: set[str] = set()

    @property
    def sentences(self) -> list[str]:
        """All notices in the order of their topics."""
        return list(self._sentences.values())

    def add(self, key: str, sentence: str, refusal: str = "") -> None:
        """Add a notice. key: its topic; a later notice replaces an earlier one. Raises DataError(refusal) if strict."""
        if self.strict and refusal:
            raise DataError(refusal)
        self._sentences[key] = sentence.encode(errors="backslashreplace").decode()  # file names may be no valid text

    def discard(self, key: str) -> None:
        """Remove the notice on this topic, because it is no longer true."""
        self._sentences.pop(key, None)

    def leave_out(self, kind: BlankKind, source: object, ids: Sequence[str], first: str) -> None:
        """Note the blank records of a file. first: "file:line" of the first one. Raises DataError if strict."""
        if not ids:
            return
        more = f" (and {len(ids) - 1:,} more)" if len(ids) > 1 else ""
        self.add(
            f"{kind} {source}",
            f"Left out {len(ids):,} blank {PLURALS[kind] if more else kind}: {first}{more}.",
            f"{first}: the {kind} is blank{more}. Write its text, remove it, or leave out --strict.",
        )
        self.blank[kind].update(ids)

    def say(self, say: Callable[[str], None]) -> None:
        """Pass each notice that has not been shown yet to `say`."""
        for sentence in self.sentences:
            if sentence not in self._shown:
                self._shown.add(sentence)
                say(sentence)
