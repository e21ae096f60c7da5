"""Marked texts, by which it shows whether a prompt still is the prompt when a model reads it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

from pdadapt.errors import ModelError

WORDS = ("lighthouse", "cinnamon", "wheelbarrow", "sandpaper", "midnight")


def marks(tokenizer: Any, count: int, beside: str = "") -> list[str]:
    """Words that this tokenizer gives back as they were, and that the text beside them does not hold.

    Raises ModelError when it gives none back.
    """
    found: list[str] = []
    beside = _folded(beside)
    for word in itertools.chain(WORDS, _vocabulary(tokenizer)):
        folded = _folded(word)
        known = folded in beside or any(folded in other or other in folded for other in map(_folded, found))
        if not known and folded in _read(tokenizer, tokenizer.encode(word, add_special_tokens=False)):
            found.append(word)
            if len(found) == count:
                return found
    raise ModelError(
        f"The tokenizer of {tokenizer.name_or_path} gives no plain words back, so the model would read none. Fetch it "
        "anew, or give another model."
    )


def check_marks(tokenizer: Any, words: Sequence[str], ids: Sequence[int], where: str) -> None:
    """Raises ModelError unless the words stand in these tokens, in this order; where: in what they stood."""
    text = _read(tokenizer, ids)
    places = [text.find(_folded(word)) for word in words]
    if places != sorted(places) or -1 in places:
        raise ModelError(
            f"{tokenizer.name_or_path} loses a text of {where}, or puts it elsewhere. Check its chat template and its "
            "tokenizer, or give another model."
        )


def _vocabulary(tokenizer: Any) -> list[str]:
    return sorted(word for word in tokenizer.get_vocab() if len(word) > 1 and word.isalpha())


def _read(tokenizer: Any, ids: Sequence[int]) -> str:
    return _folded(tokenizer.decode(list(ids)))


def _folded(text: str) -> str:
    """Without case and spaces, which a tokenizer may change."""
    return re.sub(r"\s+", "", text).casefold()
