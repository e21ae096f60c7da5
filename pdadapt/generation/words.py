"""The words of a text in any script: where a script puts no space between words, each character counts as one."""

from __future__ import annotations

import regex

UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
SPACED = rf"[[\p{{L}}\p{{M}}\p{{N}}]--[{UNSPACED}]]"
WORD = regex.compile(rf"(?V1)[{UNSPACED}]\p{{M}}*|{SPACED}+(?:['’]{SPACED}+)*")


def words(text: str) -> list[str]:
    """In lower case, without punctuation."""
    return WORD.findall(text.casefold())
