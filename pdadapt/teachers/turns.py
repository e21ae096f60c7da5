"""How a chat template opens turns by plain text (`[INST]`, `<|user|>`, ` ASSISTANT:`), which a document must not do."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pdadapt.teachers.control import break_up

RUN = r"([<\[]\S+?[>\]])"  # opens a turn whatever role is named behind it
LINE = re.compile(r"(\s*)(\S.*)")
BARE = re.compile(r"[\w ]+")


class Turns:
    """The marks of turns that are no control tokens, as a chat template writes them.

    A word with a colon is ordinary language, so such a mark is one only behind the white space that the template puts
    before it. One that begins with a sign (`[INST]`, `### Response:`) is one wherever it stands.
    """

    def __init__(self, pieces: Iterable[str], control: Iterable[str]):
        """pieces: what the template writes between messages; control: strings that no text can write anyway."""
        known = "|".join(map(re.escape, sorted(control, key=len, reverse=True))) or "(?!)"
        lines = [
            (before, line.rstrip())
            for piece in pieces
            for part in filter(None, re.split(f"{known}|{RUN}", piece))
            for before, line in LINE.findall(part)
        ]
        marks = {line: pattern for before, line in lines if (pattern := _pattern(before, line))}
        self.marks = tuple(marks)
        self.pattern = re.compile("|".join(marks.values()) or "(?!)")

    def alike(self, text: str) -> int:
        """How often the marks stand in a text, whatever is before them."""
        return sum(map(text.count, self.marks))

    def opened(self, text: str) -> int:
        """How many turns the text opens."""
        return len(self.pattern.findall(text))

    def as_text(self, text: str) -> str:
        """The text with a space in each mark, which opens no turn any more."""
        return break_up(text, [match.span() for match in self.pattern.finditer(text)])


def _pattern(before: str, mark: str) -> str:
    """What finds a mark with such white space before it, or at the beginning of a text; empty where it is none."""
    bare = BARE.fullmatch(mark)
    lines = before.count("\n")
    if len(mark) < 2 or not re.search(r"\w", mark) or (bare and not lines):
        return ""  # the bare `assistant` behind a control token opens nothing without that
    begins = ""
    if re.match(r"\w", mark):
        begins = r"(?<!\S)" if before and not lines else rf"(?:\A|(?:\n[^\S\n]*){{{lines or 1}}})"
    ends = r"(?=[^\S\n]*(?:\n|\Z))" if bare else r"(?!\w)" if re.search(r"\w\Z", mark) else ""
    return begins + re.escape(mark) + ends


NO_TURNS = Turns((), ())
