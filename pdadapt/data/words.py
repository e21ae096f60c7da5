"""Split texts of any script into words. In scripts without spaces between words, each character is a word."""

from __future__ import annotations

from collections.abc import Sequence

import regex

UNSPACED_SCRIPTS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
SPACED_CHARACTER = rf"[[\p{{L}}\p{{M}}\p{{N}}]--[{UNSPACED_SCRIPTS}]]"
WORD_PATTERN = regex.compile(rf"(?V1)[{UNSPACED_SCRIPTS}]\p{{M}}*|{SPACED_CHARACTER}+(?:['’]{SPACED_CHARACTER}+)*")
UNSPACED_CHARACTER = regex.compile(rf"[{UNSPACED_SCRIPTS}]")
CHARACTERS_PER_WORD = 3  # so many characters of a script without spaces carry roughly the meaning of one word


def split_words(text: str) -> list[str]:
    """The words of a text, case-folded and without punctuation."""
    return WORD_PATTERN.findall(text.casefold())


def word_limit_factor(found: Sequence[str]) -> int:
    """The factor by which limits in words grow for this text.

    It is CHARACTERS_PER_WORD if most of its words are single characters of a script without spaces, else 1.
    """
    return (
        CHARACTERS_PER_WORD if 2 * sum(UNSPACED_CHARACTER.match(word) is not None for word in found) > len(found) else 1
    )
