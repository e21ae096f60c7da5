"""Kinds of queries: which a query is, how often each is wanted, and which are asked of which documents.

A query that may be asked for is a number: of its document, and of its kind.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

from pdadapt.data.words import split_words, word_limit_factor
from pdadapt.settings.schema import QueryKind

KINDS: tuple[QueryKind, ...] = get_args(QueryKind)
QUESTION_MARKS = ("?", "？", "؟")
FULL_STOPS = (".", "。", "!")
MOST_KEYWORDS = 4
FEWEST = 32  # queries written at a time, before it is seen how many are kept
HOPELESS = 64  # queries of a kind of which one is kept at least, or it is given up
VERBS = frozenset(
    split_words("is are was were be been has have had do does did can could may might must will would should")
)
ASKING = VERBS - {"be", "been", "must", "might"} | frozenset(
    split_words("what who whom whose when where why how which")
)


def kind_of(query: str) -> QueryKind:
    """By rules that one can see, which know English words: a question has its mark or begins with a word that asks; a
    claim ends in a full stop or holds a verb such as `is` or `has`; keywords are up to four words; else it is a title.
    """
    text = query.strip()
    found = split_words(text)
    if text.endswith(QUESTION_MARKS) or (found and found[0] in ASKING):
        return "question"
    if text.endswith(FULL_STOPS) or VERBS & set(found):
        return "claim"
    return "keywords" if len(found) <= MOST_KEYWORDS * word_limit_factor(found) else "title"


def shares(examples: Iterable[str], wanted: Mapping[QueryKind, float] | None = None) -> dict[QueryKind, float]:
    """How often each kind is wanted, in sum 1: as said, else as often as among the examples, else all alike."""
    counts: Mapping[QueryKind, float] = wanted or Counter(map(kind_of, examples)) or dict.fromkeys(KINDS, 1.0)
    whole = sum(counts.values())
    return {kind: counts[kind] / whole for kind in KINDS if counts.get(kind)}


def number_of(place: int, kind: QueryKind) -> int:
    """Of the query of this kind about the document at this place among those that are written about."""
    return place * len(KINDS) + KINDS.index(kind)


def meant_by(number: int) -> tuple[int, QueryKind]:
    """Place and kind, of number_of."""
    place, kind = divmod(number, len(KINDS))
    return place, KINDS[kind]


def quotas(wanted: Mapping[QueryKind, float], count: int) -> dict[QueryKind, int]:
    """`count` shared out: by largest remainders."""
    whole = sum(wanted.values())
    exact = {kind: count * share / whole for kind, share in wanted.items()}
    found = {kind: int(value) for kind, value in exact.items()}
    for kind in sorted(exact, key=lambda kind: found[kind] - exact[kind])[: count - sum(found.values())]:
        found[kind] += 1
    return found


def how_many(
    wanted: Mapping[QueryKind, float], count: int, verdicts: Mapping[int, str | None], documents: int
) -> dict[QueryKind, int]:
    """Queries of each kind to write next; none when `count` are kept by their shares, or no more can be had.

    A few at first; then so many that enough will be kept if as many are as until now. A kind of which fewer than one of
    HOPELESS is kept, or which was asked of every document, is given up, and the others take its share.
    """
    asked = Counter(meant_by(number)[1] for number in verdicts)
    kept = Counter(meant_by(number)[1] for number, reason in verdicts.items() if reason is None)
    most = {kind: min(documents, HOPELESS * (kept[kind] + 1)) - asked[kind] for kind in wanted}
    going = {kind: share for kind, share in wanted.items() if most[kind] > 0}
    if not going:
        return {}
    shared = quotas(going, max(0, count - sum(kept[kind] for kind in wanted if kind not in going)))
    needed: dict[QueryKind, float] = {}
    for kind, share in going.items():
        if not asked[kind]:
            needed[kind] = math.ceil(share * FEWEST) * bool(shared[kind])
        elif (missing := shared[kind] - kept[kind]) > 0:
            needed[kind] = missing * asked[kind] / max(1, kept[kind])
    enough = max(1.0, FEWEST / (sum(needed.values()) or 1))
    return {kind: min(math.ceil(enough * number), most[kind]) for kind, number in needed.items() if number}


def draw(numbers: Mapping[QueryKind, int], asked: Iterable[int], documents: int, seed: int) -> list[int]:
    """So many queries of each kind, none of which has been asked: first of the documents that were asked least, in
    their order, each with a kind drawn by how many are left.
    """
    left, known = Counter(numbers), set(asked)
    turns = Counter(meant_by(number)[0] for number in known)
    drawn: list[int] = []
    while left.total():
        for place in sorted(range(documents), key=turns.__getitem__):
            kinds = [kind for kind in KINDS if left[kind] and number_of(place, kind) not in known]
            if kinds:
                chosen = random.Random(f"{seed}/{place}/{turns[place]}")
                kind = chosen.choices(kinds, [left[kind] for kind in kinds])[0]
                drawn.append(number_of(place, kind))
                left[kind] -= 1
                turns[place] += 1
        known.update(drawn)
    return drawn


def by_shares(kept: Sequence[int], wanted: Mapping[QueryKind, float], count: int) -> list[int]:
    """At most `count` of the queries kept, in their order: as many of each kind as its share is, then any others."""
    quota, taken = quotas(wanted, count), Counter(dict.fromkeys(wanted, 0))
    first: list[int] = []
    others: list[int] = []
    for number in kept:
        kind = meant_by(number)[1]
        (first if taken[kind] < quota[kind] else others).append(number)
        taken[kind] += 1
    chosen = {*first, *others[: count - len(first)]}
    return [number for number in kept if number in chosen]
