"""Find the plain text with which a chat template opens turns (`[INST]`, `<|user|>`, ` ASSISTANT:`).

A document must not open a turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pdadapt.teachers.control import break_up

TURN_TAG = r"([<\[]\S+?[>\]])"  # opens a turn, whatever role follows it
TEMPLATE_LINE = re.compile(r"(\s*)(\S.*)")
BARE_WORDS = re.compile(r"[\w ]+")


class Turns:
    """The strings that open a turn in a chat template and are not control tokens.

    A word with a colon also occurs in ordinary text, so it opens a turn only after the white space that the template
    writes before it. A mark that begins with punctuation (`[INST]`, `### Response:`) opens a turn anywhere.
    """

    def __init__(self, pieces: Iterable[str], control: Iterable[str]):
        """Collect the marks.

        pieces: what the template writes between messages. control: the strings of control tokens, which are left out
        because texts cannot contain them anyway.
        """
        known = "|".join(map(re.escape, sorted(control, key=len, reverse=True))) or "(?!)"
        lines = [
            (before, line.rstrip())
            for piece in pieces
            for part in filter(None, re.split(f"{known}|{TURN_TAG}", piece))
            for before, line in TEMPLATE_LINE.findall(part)
        ]
        marks = {line: pattern for before, line in lines if (pattern := _pattern(before, line))}
        self.marks = tuple(marks)
        self.pattern = re.compile("|".join(marks.values()) or "(?!)")

    def count_marks(self, text: str) -> int:
        """Count the marks in a text, whatever stands before them."""
        return sum(map(text.count, self.marks))

    def count_turns(self, text: str) -> int:
        """Count the turns that the text opens."""
        return len(self.pattern.findall(text))

    def as_text(self, text: str) -> str:
        """Return the text with a space inside each mark that opens a turn."""
        return break_up(text, [match.span() for match in self.pattern.finditer(text)])


def _pattern(before: str, mark: str) -> str:
    """Return the pattern that finds a mark after white space like `before` or at the start of a text.

    It is empty if the string does not open a turn by itself.
    """
    bare = BARE_WORDS.fullmatch(mark)
    lines = before.count("\n")
    if len(mark) < 2 or not re.search(r"\w", mark) or (bare and not lines):
        return ""  # a bare word `assistant` opens a turn only together with the control token before it
    begins = ""
    if re.match(r"\w", mark):
        begins = r"(?<!\S)" if before and not lines else rf"(?:\A|(?:\n[^\S\n]*){{{lines or 1}}})"
    ends = r"(?=[^\S\n]*(?:\n|\Z))" if bare else r"(?!\w)" if re.search(r"\w\Z", mark) else ""
    return begins + re.escape(mark) + ends


NO_TURNS = Turns((), ())
