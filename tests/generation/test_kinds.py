from collections import Counter

import pytest

from pdadapt.generation.kinds import (
    KINDS,
    MAX_PER_KEPT,
    draw_queries,
    keep_by_shares,
    kind_of,
    next_counts,
    number_for,
    place_and_kind,
    quotas,
    shares,
)


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("how to true a wheel", "question"),
        ("Who won the 2015 season", "question"),
        ("best tubeless tires?", "question"),
        ("東京はどこですか？", "question"),
        ("tubeless sealant", "keywords"),
        ("東京 駅 バス", "keywords"),
        ("disc brake rotor size", "keywords"),
        ("0-dimensional biomaterials show inductive properties.", "claim"),
        ("Aspirin has no effect on blood pressure", "claim"),
        ("The effects of aspirin on blood pressure", "title"),
    ],
)
def test_kind_of_tells_the_kind_of_a_query(query, kind):
    assert kind_of(query) == kind


def test_shares_are_as_said_or_those_of_the_examples_or_equal():
    examples = ["tubeless sealant", "what is dish?", "why do brakes squeal", "how to patch a tube"]
    assert shares(examples) == {"question": 0.75, "keywords": 0.25}
    assert shares(examples, {"title": 1, "claim": 3, "question": 0}) == {"claim": 0.75, "title": 0.25}
    assert shares([]) == dict.fromkeys(["question", "keywords", "claim", "title"], 0.25)


EQUAL = dict.fromkeys(KINDS, 0.25)


def verdicts(**kinds):
    """Of queries of each kind about the first documents: how many were kept, and how many went."""
    return {
        number_for(place, kind): None if place < kept else "empty"
        for kind, (kept, went) in kinds.items()
        for place in range(kept + went)
    }


def test_query_number_encodes_place_and_kind():
    assert [place_and_kind(number_for(place, kind)) for place in (0, 7) for kind in KINDS] == [
        (place, kind) for place in (0, 7) for kind in KINDS
    ]
    assert len({number_for(place, kind) for place in range(5) for kind in KINDS}) == 20


def test_whole_numbers_are_shared_out_by_the_shares():
    assert quotas({"question": 0.5, "title": 0.25, "claim": 0.25}, 10) == {"question": 5, "title": 3, "claim": 2}
    assert quotas({"question": 2.0, "title": 1.0}, 3) == {"question": 2, "title": 1}
    assert quotas(dict.fromkeys(KINDS, 0.1), 30)["title"] == 7


def test_next_counts_follows_the_share_kept_so_far():
    assert next_counts(EQUAL, 500, {}, 1_000) == dict.fromkeys(KINDS, 8)
    assert next_counts({"question": 0.9, "title": 0.1}, 500, {}, 1_000) == {"question": 29, "title": 4}
    half = verdicts(question=(8, 8), keywords=(8, 0), claim=(8, 24), title=(8, 8))
    assert next_counts(EQUAL, 80, half, 1_000) == {"question": 24, "keywords": 12, "claim": 48, "title": 24}
    met = verdicts(question=(30, 0), keywords=(20, 20), claim=(10, 10), title=(20, 20))
    assert next_counts(EQUAL, 80, met, 1_000) == {"claim": 32}, "as many at a time as make the loading worth it"
    assert next_counts(EQUAL, 80, met | verdicts(claim=(20, 0)), 1_000) == {}


def test_next_counts_gives_up_a_kind_that_is_never_kept():
    nothing = verdicts(question=(8, 0), keywords=(0, 8), claim=(8, 0), title=(8, 0))
    assert next_counts(EQUAL, 1_000, nothing, 9_999)["keywords"] == MAX_PER_KEPT - 8
    nothing |= verdicts(keywords=(0, MAX_PER_KEPT))
    assert next_counts(EQUAL, 90, nothing, 9_999) == {"question": 22, "claim": 22, "title": 22}
    assert next_counts(EQUAL, 24, nothing, 9_999) == {}
    assert next_counts(EQUAL, 90, verdicts(**dict.fromkeys(KINDS, (0, MAX_PER_KEPT))), 9_999) == {}
    rare = verdicts(question=(1, MAX_PER_KEPT))
    assert next_counts({"question": 1.0}, 90, rare, 9_999) == {"question": MAX_PER_KEPT - 1}


def test_next_counts_asks_each_document_once_per_kind():
    assert next_counts({"question": 1.0}, 90, verdicts(question=(2, 6)), 10) == {"question": 2}
    assert next_counts({"question": 1.0}, 90, verdicts(question=(2, 8)), 10) == {}
    spent = verdicts(question=(2, 8), title=(2, 2))
    assert next_counts({"question": 0.5, "title": 0.5}, 6, spent, 10) == {"title": 6}, "at first 3 each"


def test_draw_queries_takes_every_document_once_before_any_twice():
    first = draw_queries({"question": 3, "claim": 2}, (), 5, 1)
    assert [place_and_kind(number)[0] for number in first] == [0, 1, 2, 3, 4]
    assert Counter(place_and_kind(number)[1] for number in first) == {"question": 3, "claim": 2}
    assert first == draw_queries({"question": 3, "claim": 2}, (), 5, 1)
    assert len({tuple(draw_queries({"question": 3, "claim": 2}, (), 5, seed)) for seed in range(10)}) > 1
    second = draw_queries({"question": 2, "claim": 3}, first, 5, 1)
    assert sorted(first + second) == sorted(
        number_for(place, kind) for place in range(5) for kind in ("question", "claim")
    )
    assert sorted(draw_queries({"question": 5, "claim": 5}, (), 5, 1)) == sorted(first + second)
    few = draw_queries({"title": 2}, first[:3], 5, 1)
    assert [place_and_kind(number)[0] for number in few] == [3, 4], "those that were asked least"


def test_a_rare_kind_is_spread_over_the_documents():
    drawn = [place_and_kind(number)[1] for number in draw_queries({"question": 180, "claim": 20}, (), 200, 1)]
    assert 2 < drawn[:100].count("claim") < 18


def test_keep_by_shares_keeps_the_wanted_shares():
    kept = [number_for(place, kind) for place in range(4) for kind in ("question", "title")]
    wanted = {"question": 0.75, "title": 0.25}
    chosen = keep_by_shares(kept, wanted, 4)
    assert [place_and_kind(number) for number in chosen] == [
        (0, "question"),
        (0, "title"),
        (1, "question"),
        (2, "question"),
    ]
    assert keep_by_shares(kept, wanted, 8) == kept, "where one kind has too few, others take its place"
    assert keep_by_shares(kept[1::2], wanted, 3) == kept[1::2][:3]
