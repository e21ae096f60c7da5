"""Kinds of queries: tell the kind of a query, and decide how many of each kind to write about which documents.

Each pair of a document and a kind has a number. It stands for the query of that kind about that document.
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
MAX_KEYWORDS = 4
FIRST_BATCH = 32  # queries that are written before the share of those kept is known
MAX_PER_KEPT = 64  # a kind is given up if fewer than one in so many queries are kept
VERBS = frozenset(
    split_words("is are was were be been has have had do does did can could may might must will would should")
)
QUESTION_WORDS = frozenset(split_words("what who whom whose when where why how which"))
QUESTION_STARTS = VERBS - {"be", "been", "must", "might"} | QUESTION_WORDS


def kind_of(query: str) -> QueryKind:
    """Return the kind of a query, by simple rules with English words.

    A question ends in a question mark or begins with a question word. A claim ends in a full stop or contains a verb
    (`is`, `has`). Keywords are at most MAX_KEYWORDS words. Everything else is a title.
    """
    text = query.strip()
    query_words = split_words(text)
    if text.endswith(QUESTION_MARKS) or (query_words and query_words[0] in QUESTION_STARTS):
        return "question"
    if text.endswith(FULL_STOPS) or VERBS & set(query_words):
        return "claim"
    return "keywords" if len(query_words) <= MAX_KEYWORDS * word_limit_factor(query_words) else "title"


def shares(examples: Iterable[str], wanted: Mapping[QueryKind, float] | None = None) -> dict[QueryKind, float]:
    """Return the share of each kind; the shares sum to 1.

    They follow `wanted`, else the kinds of the examples, else they are equal.
    """
    weights: Mapping[QueryKind, float] = wanted or Counter(map(kind_of, examples)) or dict.fromkeys(KINDS, 1.0)
    total = sum(weights.values())
    return {kind: weights[kind] / total for kind in KINDS if weights.get(kind)}


def number_for(place: int, kind: QueryKind) -> int:
    """Return the number of the query of this kind about a document. place: its place in the list of documents."""
    return place * len(KINDS) + KINDS.index(kind)


def place_and_kind(number: int) -> tuple[int, QueryKind]:
    """Return the arguments of number_for for a number."""
    place, kind = divmod(number, len(KINDS))
    return place, KINDS[kind]


def quotas(wanted: Mapping[QueryKind, float], count: int) -> dict[QueryKind, int]:
    """Divide `count` among the kinds in proportion to `wanted`, by the method of largest remainders."""
    total = sum(wanted.values())
    exact = {kind: count * share / total for kind, share in wanted.items()}
    rounded = {kind: int(value) for kind, value in exact.items()}
    for kind in sorted(exact, key=lambda kind: rounded[kind] - exact[kind])[: count - sum(rounded.values())]:
        rounded[kind] += 1
    return rounded


def next_counts(
    wanted: Mapping[QueryKind, float], count: int, verdicts: Mapping[int, str | None], documents: int
) -> dict[QueryKind, int]:
    """Return how many queries of each kind to write next. Empty if `count` are kept, or if no more can be written.

    The first batch is small. Later batches are as large as needed if the share of queries kept stays the same. A kind
    is given up if fewer than one in MAX_PER_KEPT is kept, or if it was written about every document; the other kinds
    then get its share.

    wanted: the share of each kind. verdicts: see AnswerLog. documents: how many documents are written about.
    """
    written = Counter(place_and_kind(number)[1] for number in verdicts)
    kept = Counter(place_and_kind(number)[1] for number, reason in verdicts.items() if reason is None)
    most = {kind: min(documents, MAX_PER_KEPT * (kept[kind] + 1)) - written[kind] for kind in wanted}
    possible = {kind: share for kind, share in wanted.items() if most[kind] > 0}
    if not possible:
        return {}
    quota = quotas(possible, max(0, count - sum(kept[kind] for kind in wanted if kind not in possible)))
    needed: dict[QueryKind, float] = {}
    for kind, share in possible.items():
        if not written[kind]:
            needed[kind] = math.ceil(share * FIRST_BATCH) * bool(quota[kind])
        elif (missing := quota[kind] - kept[kind]) > 0:
            needed[kind] = missing * written[kind] / max(1, kept[kind])
    factor = max(1.0, FIRST_BATCH / (sum(needed.values()) or 1))
    return {kind: min(math.ceil(factor * number), most[kind]) for kind, number in needed.items() if number}


def draw_queries(counts: Mapping[QueryKind, int], written: Iterable[int], documents: int, seed: int) -> list[int]:
    """Draw the numbers of the next queries: `counts` of each kind, none of which has been written.

    Documents with the fewest queries come first, in their order. Each query's kind is drawn with the remaining counts
    as weights.
    """
    left, known = Counter(counts), set(written)
    turns = Counter(place_and_kind(number)[0] for number in known)
    drawn: list[int] = []
    while left.total():
        for place in sorted(range(documents), key=turns.__getitem__):
            kinds = [kind for kind in KINDS if left[kind] and number_for(place, kind) not in known]
            if kinds:
                generator = random.Random(f"{seed}/{place}/{turns[place]}")
                kind = generator.choices(kinds, [left[kind] for kind in kinds])[0]
                drawn.append(number_for(place, kind))
                left[kind] -= 1
                turns[place] += 1
        known.update(drawn)
    return drawn


def keep_by_shares(kept: Sequence[int], wanted: Mapping[QueryKind, float], count: int) -> list[int]:
    """Return at most `count` of the numbers `kept`, in their order: each kind up to its share, then any others."""
    quota, taken = quotas(wanted, count), Counter(dict.fromkeys(wanted, 0))
    first: list[int] = []
    others: list[int] = []
    for number in kept:
        kind = place_and_kind(number)[1]
        (first if taken[kind] < quota[kind] else others).append(number)
        taken[kind] += 1
    chosen = {*first, *others[: count - len(first)]}
    return [number for number in kept if number in chosen]
