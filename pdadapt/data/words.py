"""The words of a text in any script: where a script puts no space between words, each character counts as one."""

from __future__ import annotations

from collections.abc import Sequence

import regex

UNSPACED_SCRIPTS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
SPACED_CHARACTER = rf"[[\p{{L}}\p{{M}}\p{{N}}]--[{UNSPACED_SCRIPTS}]]"
WORD_PATTERN = regex.compile(rf"(?V1)[{UNSPACED_SCRIPTS}]\p{{M}}*|{SPACED_CHARACTER}+(?:['’]{SPACED_CHARACTER}+)*")
UNSPACED_CHARACTER = regex.compile(rf"[{UNSPACED_SCRIPTS}]")
CHARACTERS_PER_WORD = 3  # of a script without spaces, about, that say what a word says


def split_words(text: str) -> list[str]:
    """In lower case, without punctuation."""
    return WORD_PATTERN.findall(text.casefold())


def word_limit_factor(found: Sequence[str]) -> int:
    """By how much limits in words grow for this text's: CHARACTERS where most are characters alone, else 1."""
    return (
        CHARACTERS_PER_WORD if 2 * sum(UNSPACED_CHARACTER.match(word) is not None for word in found) > len(found) else 1
    )
