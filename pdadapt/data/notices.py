"""What a dataset's files hold that cannot be used as it stands: counted and said, or, with --strict, refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from pdadapt.errors import DataError

BlankKind = Literal["document", "query"]
PLURALS: dict[BlankKind, str] = {"document": "documents", "query": "queries"}


class Notices:
    """Sentences about the files of a dataset, with which they travel."""

    def __init__(self, strict: bool = False):
        """strict: refuse what would be said."""
        self.strict = strict
        self.blank: dict[BlankKind, set[str]] = {"document": set(), "query": set()}
        """Ids of what is left out."""
        self._sentences: dict[str, str] = {}
        self._said: set[str] = set()

    @property
    def sentences(self) -> list[str]:
        return list(self._sentences.values())

    def add(self, key: str, sentence: str, refusal: str = "") -> None:
        """key: what the sentence is about; a later one takes its place. Raises DataError(refusal) if strict."""
        if self.strict and refusal:
            raise DataError(refusal)
        self._sentences[key] = sentence.encode(errors="backslashreplace").decode()  # a file's name need not be text

    def discard(self, key: str) -> None:
        """What was said does not hold any more."""
        self._sentences.pop(key, None)

    def leave_out(self, kind: BlankKind, source: object, ids: Sequence[str], first: str) -> None:
        """Note the blank records of a file. first: "file:line" of the first. Raises DataError if strict."""
        if not ids:
            return
        more = f"{len(ids) - 1:,} more" if len(ids) > 1 else ""
        self.add(
            f"{kind} {source}",
            f"Left out {len(ids):,} blank {PLURALS[kind] if more else kind}: {first}{f' and {more}' if more else ''}.",
            f"{first}: the {kind} is blank{f', as are {more}' if more else ''}. Write its text, remove it, or leave "
            "out --strict.",
        )
        self.blank[kind].update(ids)

    def say(self, say: Callable[[str], None]) -> None:
        """Say, once, what has not been said."""
        for sentence in self.sentences:
            if sentence not in self._said:
                self._said.add(sentence)
                say(sentence)
