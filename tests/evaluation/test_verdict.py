"""One sentence on whether it helped, from what a run measured."""

import pytest

from pdadapt.evaluation.verdict import verdict


def found(change, p, before=0.5):
    comparison = {"base": 0, "system": 1, "change": change, "p": p, "wins": 12, "ties": 3, "losses": 8}
    return {"means": [before, before + change], "comparisons": [comparison]}


def metrics(agreement=None, true=None, general=None):
    return {
        "agreement": [{"pair accuracy": agreement}] if agreement else [{}],
        "measures": {"nDCG@10": true} if true else {},
        "general": [{"nDCG@10": general}] if general else [],
        "test_queries": 300,
        "iteration": 1,
        "labels": [{}],
    }


@pytest.mark.parametrize(
    ("measured", "outcome", "words"),
    [
        (metrics(found(0.1, 0.001)), "helped", "pair accuracy with the teacher went 0.500 → 0.600 (p 0.001)"),
        (metrics(found(0.1, 0.001)), "helped", "Helped, if the teacher judges well: on 23 queries held out"),
        (metrics(found(0.1, 0.2)), "no difference", "No difference: on 23 queries held out"),
        (metrics(found(-0.1, 0.01)), "harmed", "Harmed, if the teacher judges well: on 23"),
        (metrics(found(0.1, 0.001), true=found(0.1, 0.01)), "helped", "Helped: on 23 queries held out"),
        (metrics(found(0.1, 0.01), true=found(-0.1, 0.01)), "helped", "on 300 judged test queries went 0.500 → 0.400"),
        (metrics(true=found(-0.1, 0.01)), "harmed", "Harmed: nDCG@10 on 300 judged"),
        (metrics(found(0.0, 1.0), general=found(-0.2, 1e-4)), "harmed", "0.300 (p <0.001), so something was forgotten"),
        (metrics(found(0.1, 0.01), general=found(-0.2, 1e-4)), "harmed", "something was forgotten"),
        (metrics(found(0.1, 0.01), found(-0.1, 0.3), found(-0.2, 1e-4)), "harmed", "something was forgotten"),
        (metrics(found(0.1, 0.01), found(0.1, 0.01), found(-0.2, 1e-4)), "helped", "something was forgotten"),
        (metrics(general=found(0.0, 1.0)), "unknown", "no query was held out and there are no judgments"),
    ],
)  # fmt: skip
def test_the_verdict_is_one_sentence_with_its_paired_tests(measured, outcome, words):
    said = verdict(measured)
    assert said["outcome"] == outcome and words in said["sentence"]
    assert said["sentence"].endswith(".") and "\n" not in said["sentence"]


def test_the_verdict_is_of_the_iteration_that_is_kept_with_its_corrected_p():
    measured = metrics(found(0.1, 0.001), general=found(0.0, 1.0))
    measured["agreement"].append({"pair accuracy": found(-0.3, 0.001)})
    measured["general"].append({"nDCG@10": found(-0.4, 0.001)})
    measured["labels"].append({})
    first = {"base": 0, "system": 1, "change": 0.05, "p": 0.03, "p_holm": 0.06}
    second = {"base": 0, "system": 2, "change": -0.2, "p": 0.001, "p_holm": 0.002}
    measured["measures"] = {"nDCG@10": {"means": [0.5, 0.55, 0.3], "comparisons": [first, second]}}
    said = verdict(measured)
    assert said["outcome"] == "helped" and "forgotten" not in said["sentence"]
    assert "0.500 → 0.550 (p 0.060)" in said["sentence"]
    assert verdict(measured | {"iteration": 0})["outcome"] == "harmed"  # the base is kept: the last says why
