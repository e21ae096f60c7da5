import math
from itertools import product

import pytest

from pdadapt.errors import RecipeError
from pdadapt.evaluate import compare, mean, paired_test, parse_measures, per_query
from pdadapt.recipe import EvaluateSettings

QRELS = {"q1": {"a": 2, "b": 1, "c": 0}, "q2": {"x": 1}, "q3": {"z": 1}}
RANKING = {"q1": [("c", 3.0), ("a", 2.0), ("b", 1.0)], "q2": [("y", 2.0), ("x", 1.0)]}


def test_measures_by_hand_and_a_query_without_results_counts_zero():
    values = per_query(RANKING, QRELS, ["nDCG@10", "RR@10", "R@100", "Success@5"])
    ideal = 2 + 1 / math.log2(3)
    assert values["nDCG@10"]["q1"] == pytest.approx((2 / math.log2(3) + 1 / math.log2(4)) / ideal)
    assert values["RR@10"] == pytest.approx({"q1": 0.5, "q2": 0.5, "q3": 0.0})
    assert values["R@100"] == {"q1": 1.0, "q2": 1.0, "q3": 0.0}
    assert mean(values["Success@5"]) == pytest.approx(2 / 3)


def test_unknown_measures_are_named():
    with pytest.raises(RecipeError, match="'nDGC@10' is not a measure"):
        parse_measures(["nDCG@10", "nDGC@10"])


def test_the_paired_test_equals_full_enumeration_of_the_sign_flips():
    base = {str(i): value for i, value in enumerate([0.1, 0.2, 0.3, 0.4, 0.5, 0.0])}
    other = {str(i): value for i, value in enumerate([0.3, 0.25, 0.2, 0.8, 0.9, 0.0])}
    differences = [other[key] - base[key] for key in base if other[key] != base[key]]
    observed = sum(differences)
    flips = [sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in product((1, -1), repeat=5)]
    expected = sum(abs(flip) >= abs(observed) - 1e-12 for flip in flips) / len(flips)
    assert paired_test(base, other, 10_000, 1) == pytest.approx(expected)


def test_the_paired_test_is_seeded_and_knows_equal_systems():
    base = {str(i): (i * 37 % 11) / 11 for i in range(60)}
    other = {key: value + (0.1 if int(key) % 3 else -0.1) for key, value in base.items()}
    assert paired_test(base, other, 2_000, 1) == paired_test(base, other, 2_000, 1) < 0.05
    assert paired_test(base, base, 2_000, 1) == 1.0
    assert paired_test(base, {**base, "0": 9.0}, 2_000, 1) == 1.0


def test_compare_tests_every_ranking_against_the_first():
    better = {**RANKING, "q3": [("z", 1.0)]}
    settings = EvaluateSettings(measures=("RR@10",), resamples=100)
    found = compare([RANKING, RANKING, better], QRELS, settings, seed=1)["RR@10"]
    assert found["means"] == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert found["p_values"] == [1.0, 1.0]
