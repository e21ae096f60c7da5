"""Kinds of queries: which a query is, how often each is wanted, and which are asked of a document."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, get_args

from pdadapt.generation.words import words
from pdadapt.recipe import QueryKind

KINDS: tuple[QueryKind, ...] = get_args(QueryKind)
QUESTION_MARKS = ("?", "？", "؟")
FULL_STOPS = (".", "。", "!")
MOST_KEYWORDS = 4
VERBS = frozenset(words("is are was were be been has have had do does did can could may might must will would should"))
ASKING = VERBS - {"be", "been", "must", "might"} | frozenset(words("what who whom whose when where why how which"))


class Task(NamedTuple):
    """A query of this kind is wanted about this document."""

    number: int
    doc_id: str
    kind: QueryKind


def kind_of(query: str) -> QueryKind:
    """By rules that one can see, which know English words: a question has its mark or begins with a word that asks; a
    claim ends in a full stop or holds a verb such as `is` or `has`; keywords are up to four words; else it is a title.
    """
    text = query.strip()
    found = words(text)
    if text.endswith(QUESTION_MARKS) or (found and found[0] in ASKING):
        return "question"
    if text.endswith(FULL_STOPS) or VERBS & set(found):
        return "claim"
    return "keywords" if len(found) <= MOST_KEYWORDS else "title"


def shares(examples: Iterable[str], wanted: Mapping[QueryKind, float] | None = None) -> dict[QueryKind, float]:
    """How often each kind is wanted, in sum 1: as said, else as often as among the examples, else all alike."""
    counts: Mapping[QueryKind, float] = wanted or Counter(map(kind_of, examples)) or dict.fromkeys(KINDS, 1.0)
    whole = sum(counts.values())
    return {kind: counts[kind] / whole for kind in KINDS if counts.get(kind)}


def kinds_asked(wanted: Mapping[QueryKind, float], seed: str) -> list[QueryKind]:
    """The kinds in the order in which they are asked of a document, drawn one after the other by their shares.

    (Efraimidis and Spirakis 2006: sorted by u^(1/share), u uniform.)
    """
    chosen = random.Random(seed)
    drawn = {kind: chosen.random() ** (1 / share) for kind, share in wanted.items()}
    return sorted(drawn, key=lambda kind: -drawn[kind])


def tasks_of(doc_ids: Sequence[str], wanted: Mapping[QueryKind, float], seed: int) -> Iterator[Task]:
    """Every document once, each with a kind drawn by the shares; then every document with another kind, and so on."""
    asked = [kinds_asked(wanted, f"{seed}/{doc_id}") for doc_id in doc_ids]
    for turn in range(len(wanted)):
        for place, (doc_id, kinds) in enumerate(zip(doc_ids, asked, strict=True)):
            yield Task(turn * len(doc_ids) + place, doc_id, kinds[turn])
