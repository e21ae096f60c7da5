"""One sentence on whether it helped, from what a run measured."""

import pytest

from pdadapt.evaluation.results import Comparison, MeasureResult
from pdadapt.evaluation.verdict import verdict


def comparison(change, p, system=1, p_holm=None):
    return Comparison(0, system, change, None, p, p, 12, 3, 8, p if p_holm is None else p_holm, p)


def found(change, p, before=0.5):
    return MeasureResult((before, before + change), (comparison(change, p),))


def judged(agreement=None, true=None, general=None):
    return verdict(
        iteration=1,
        agreement=[{"pair accuracy": agreement}] if agreement else [{}],
        general=[{"nDCG@10": general}] if general else [],
        measures={"nDCG@10": true} if true else {},
        test_queries=300,
    )


@pytest.mark.parametrize(
    ("said", "outcome", "words"),
    [
        (judged(found(0.1, 0.001)), "helped", "the teacher on 23 held-out queries 0.500 → 0.600 (p = 0.001)"),
        (judged(found(0.1, 0.001)), "helped", "Helped, if the teacher judges well: pair accuracy"),
        (judged(found(0.1, 0.2)), "no difference", "No difference: pair accuracy"),
        (judged(found(-0.1, 0.01)), "harmed", "Harmed, if the teacher judges well: pair accuracy"),
        (judged(found(0.1, 0.001), true=found(0.1, 0.01)), "helped", "Helped: pair accuracy"),
        (judged(found(0.1, 0.01), true=found(-0.1, 0.01)), "helped", "on 300 judged test queries 0.500 → 0.400"),
        (judged(true=found(-0.1, 0.01)), "harmed", "Harmed: nDCG@10 on 300 judged"),
        (judged(found(0.0, 1.0), general=found(-0.2, 1e-4)), "harmed", "(p < 0.001), so the student forgot something"),
        (judged(found(0.1, 0.01), general=found(-0.2, 1e-4)), "harmed", "forgot something"),
        (judged(found(0.1, 0.01), found(-0.1, 0.3), found(-0.2, 1e-4)), "harmed", "forgot something"),
        (judged(found(0.1, 0.01), found(0.1, 0.01), found(-0.2, 1e-4)), "helped", "forgot something"),
        (judged(general=found(0.0, 1.0)), "unknown", "no queries were held out and there are no judgments"),
    ],
)  # fmt: skip
def test_the_verdict_is_one_sentence_with_its_paired_tests(said, outcome, words):
    assert said.outcome == outcome and words in said.sentence
    assert said.sentence.endswith(".") and "\n" not in said.sentence


@pytest.mark.parametrize(("iteration", "outcome"), [(1, "helped"), (2, "harmed")])
def test_the_verdict_is_of_the_iteration_that_is_shown_with_its_corrected_p(iteration, outcome):
    comparisons = (comparison(0.05, 0.03, p_holm=0.06), comparison(-0.2, 0.001, system=2, p_holm=0.002))
    said = verdict(
        iteration,
        agreement=[{"pair accuracy": found(0.1, 0.001)}, {"pair accuracy": found(-0.3, 0.001)}],
        general=[{"nDCG@10": found(0.0, 1.0)}, {"nDCG@10": found(-0.4, 0.001)}],
        measures={"nDCG@10": MeasureResult((0.5, 0.55, 0.3), comparisons)},
        test_queries=300,
    )
    assert said.outcome == outcome and ("forgot" in said.sentence) == (outcome == "harmed")
    assert ("0.500 → 0.550 (p = 0.060)" if iteration == 1 else "0.500 → 0.300 (p = 0.002)") in said.sentence
