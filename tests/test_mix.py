from collections import Counter

import pytest

from pdadapt.generation.mix import kind_of, kinds_asked, shares, tasks_of


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("how to true a wheel", "question"),
        ("Who won the 2015 season", "question"),
        ("best tubeless tires?", "question"),
        ("東京はどこですか？", "question"),
        ("tubeless sealant", "keywords"),
        ("disc brake rotor size", "keywords"),
        ("0-dimensional biomaterials show inductive properties.", "claim"),
        ("Aspirin has no effect on blood pressure", "claim"),
        ("The effects of aspirin on blood pressure", "title"),
    ],
)
def test_rules_say_what_a_query_is(query, kind):
    assert kind_of(query) == kind


def test_shares_are_as_said_or_those_of_the_examples_or_equal():
    examples = ["tubeless sealant", "what is dish?", "why do brakes squeal", "how to patch a tube"]
    assert shares(examples) == {"question": 0.75, "keywords": 0.25}
    assert shares(examples, {"title": 1, "claim": 3, "question": 0}) == {"claim": 0.75, "title": 0.25}
    assert shares([]) == dict.fromkeys(["question", "keywords", "claim", "title"], 0.25)


def test_kinds_are_drawn_by_their_shares_without_replacement():
    wanted = {"question": 0.6, "keywords": 0.3, "title": 0.1}
    drawn = [kinds_asked(wanted, f"42/{number}") for number in range(3_000)]
    assert all(sorted(kinds) == sorted(wanted) for kinds in drawn)
    first = Counter(kinds[0] for kinds in drawn)
    assert {kind: first[kind] / 3_000 for kind in wanted} == pytest.approx(wanted, abs=0.03)
    second = Counter(kinds[1] for kinds in drawn if kinds[0] == "question")
    assert second["keywords"] / second.total() == pytest.approx(0.75, abs=0.04)


def test_every_document_has_its_first_kind_before_one_has_its_second():
    doc_ids = [f"d{number}" for number in range(5)]
    tasks = list(tasks_of(doc_ids, {"question": 0.5, "claim": 0.5}, 1))
    assert [task.number for task in tasks] == list(range(10))
    assert [task.doc_id for task in tasks] == doc_ids * 2
    assert all({tasks[i].kind, tasks[i + 5].kind} == {"question", "claim"} for i in range(5))
    assert tasks == list(tasks_of(doc_ids, {"question": 0.5, "claim": 0.5}, 1))
