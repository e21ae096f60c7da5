"""The words of a text in any script: where a script puts no space between words, each character counts as one."""

from __future__ import annotations

from collections.abc import Sequence

import regex

UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
SPACED = rf"[[\p{{L}}\p{{M}}\p{{N}}]--[{UNSPACED}]]"
WORD = regex.compile(rf"(?V1)[{UNSPACED}]\p{{M}}*|{SPACED}+(?:['’]{SPACED}+)*")
ALONE = regex.compile(rf"[{UNSPACED}]")
CHARACTERS = 3  # of a script without spaces, about, that say what a word says


def words(text: str) -> list[str]:
    """In lower case, without punctuation."""
    return WORD.findall(text.casefold())


def per_word(found: Sequence[str]) -> int:
    """By how much limits in words grow for this text's: CHARACTERS where most are characters alone, else 1."""
    return CHARACTERS if 2 * sum(ALONE.match(word) is not None for word in found) > len(found) else 1
