"""Marked texts show whether the tokens that a model reads still contain the whole prompt, in order."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

from pdadapt.errors import ModelError

PREFERRED_WORDS = ("lighthouse", "cinnamon", "wheelbarrow", "sandpaper", "midnight")


def mark_words(tokenizer: Any, count: int, context: str = "") -> list[str]:
    """Return `count` words that survive encoding and decoding, and that do not occur in `context`.

    Raises ModelError if the tokenizer has too few such words.
    """
    words: list[str] = []
    context = _fold_text(context)
    for word in itertools.chain(PREFERRED_WORDS, _vocabulary(tokenizer)):
        folded = _fold_text(word)
        known = folded in context or any(folded in other or other in folded for other in map(_fold_text, words))
        if not known and folded in _decode(tokenizer, tokenizer.encode(word, add_special_tokens=False)):
            words.append(word)
            if len(words) == count:
                return words
    raise ModelError(
        f"The tokenizer of {tokenizer.name_or_path} changes plain words, so the model would not read the texts. Fetch "
        "the model again, or use another one."
    )


def check_marks(tokenizer: Any, words: Sequence[str], ids: Sequence[int], where: str) -> None:
    """Raises ModelError unless the tokens contain the words in this order. where: the marked text, for the message."""
    text = _decode(tokenizer, ids)
    places = [text.find(_fold_text(word)) for word in words]
    if places != sorted(places) or -1 in places:
        raise ModelError(
            f"{tokenizer.name_or_path} loses or moves a text of {where}. Check its chat template and its tokenizer, or "
            "use another model."
        )


def _vocabulary(tokenizer: Any) -> list[str]:
    return sorted(word for word in tokenizer.get_vocab() if len(word) > 1 and word.isalpha())


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    return _fold_text(tokenizer.decode(list(ids)))


def _fold_text(text: str) -> str:
    """Remove case and white space, since a tokenizer may change them."""
    return re.sub(r"\s+", "", text).casefold()
