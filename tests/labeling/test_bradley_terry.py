"""Strengths from pairs, what to ask next, and answers that contradict each other."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from pdadapt.labeling.bradley_terry import contradictions, fit_strengths, most_informative

labels = st.integers(2, 8).flatmap(
    lambda size: st.tuples(
        st.lists(st.none() | st.floats(-8, 8), min_size=size, max_size=size),
        st.lists(
            st.tuples(st.integers(0, size - 2), st.integers(1, size - 1), st.floats(-8, 8)).filter(
                lambda pair: pair[0] < pair[1]
            ),
            max_size=20,
        ),
    )
)


def test_fit_strengths_of_two_documents_lie_between_points_and_pair():
    # s = (x, -x) with 1 * (x - 0) = P - sigmoid(2 x), P = sigmoid(2): the root of that, by bisection
    low, high = 0.0, 1.0
    for _ in range(60):
        x = (low + high) / 2
        low, high = (x, high) if x < expit(2.0) - expit(2 * x) else (low, x)
    found = fit_strengths([0.0, 0.0], [(0, 1, 2.0)], 1.0, 1.0)
    assert found.strengths == pytest.approx([x, -x], abs=1e-6)
    weight = expit(2 * x) * expit(-2 * x)
    assert np.linalg.inv(found.covariance) == pytest.approx(
        np.array([[1 + weight, -weight], [-weight, 1 + weight]]), abs=1e-6
    )


@pytest.mark.slow
@given(labels)
def test_fit_strengths_maximises_the_likelihood(drawn):
    points, pairs = drawn
    found = fit_strengths(points, pairs, 2.0, 0.5)
    known = [point for point in points if point is not None]
    average = sum(known) / len(known) if known else 0.0
    prior = np.array([average if point is None else point for point in points]) / 2.0

    def log_likelihood(s):
        total = -0.25 * ((s - prior) ** 2).sum()
        for i, j, log_odds in pairs:
            p = expit(log_odds)
            total -= p * np.logaddexp(0, s[j] - s[i]) + (1 - p) * np.logaddexp(0, s[i] - s[j])
        return total

    best = log_likelihood(found.strengths)
    for position, shift in itertools.product(range(len(points)), (-1e-2, 1e-2)):
        moved = found.strengths.copy()
        moved[position] += shift
        assert log_likelihood(moved) < best


def test_without_pairs_the_points_are_the_strengths_and_many_answers_outweigh_them():
    assert fit_strengths([2.0, None, -1.0], [], 0.5, 1.0).strengths == pytest.approx([4.0, 1.0, -2.0])
    consistent = [(0, 1, -3.0), (1, 2, -3.0), (0, 2, -6.0)]
    weak = fit_strengths([2.0, 1.0, 0.0], consistent, 1.0, 0.01).strengths
    assert weak[0] < weak[1] < weak[2]
    strong = fit_strengths([2.0, 1.0, 0.0], consistent, 1.0, 100.0).strengths
    assert strong[0] > strong[1] > strong[2]


def test_most_informative_pair_is_the_least_certain():
    even = fit_strengths([0.0] * 6, [], 1.0, 1.0)
    assert most_informative(even, 1, ()) == [(0, 1)], "of pairs alike the one at the top"
    sure = fit_strengths([9.0, 0.1, 0.0, -9.0], [], 1.0, 1.0)
    assert most_informative(sure, 1, ()) == [(1, 2)]
    assert (1, 2) not in most_informative(sure, 3, [(1, 2)])
    answered = fit_strengths([0.0] * 3, [(0, 1, 0.0)] * 50, 1.0, 1.0)
    assert most_informative(answered, 1, ()) != [(0, 1)], (
        "of what has been asked often enough there is nothing to learn"
    )


@given(st.integers(2, 7), st.integers(0, 30), st.sampled_from([1.0, 40.0, 2e3]))
def test_no_pair_is_chosen_twice_and_no_more_than_there_are(size, count, apart):
    found = fit_strengths([apart * (i % 3) for i in range(size)], [], 1.0, 1.0)
    left_out = [(0, 1)]
    chosen = most_informative(found, count, left_out)
    assert len(set(chosen)) == len(chosen) == min(count, math.comb(size, 2) - 1)
    assert all(0 <= i < j < size for i, j in chosen) and (0, 1) not in chosen


def test_most_informative_maximises_the_discounted_determinant():
    found = fit_strengths([1.0, 0.4, 0.0, -0.5, -3.0], [(0, 1, 1.0), (2, 3, -0.5)], 1.0, 0.7)
    discounts = [1 / math.log2(1 + rank) for rank in (1, 2, 3, 4, 5)]  # by the strengths, which fall
    assert sorted(found.strengths, reverse=True) == found.strengths.tolist()
    precision = np.linalg.inv(found.covariance)
    for chosen in most_informative(found, 4, ()):
        grown = {}
        for i, j in itertools.combinations(range(5), 2):
            row = np.zeros(5)
            row[i], row[j] = 1, -1
            p = expit(found.strengths[i] - found.strengths[j])
            grown[i, j] = precision + p * (1 - p) * np.outer(row, row)
        whole = np.linalg.det(precision)
        gains = {
            (i, j): (np.linalg.det(matrix) / whole - 1) * (discounts[i] + discounts[j])
            for (i, j), matrix in grown.items()
        }
        assert gains[chosen] == pytest.approx(max(gains.values()))
        precision = grown[chosen]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), unique=True), st.randoms())
def test_cycles_are_counted_as_by_hand(edges, rng):
    pairs = {tuple(sorted(edge)): rng.choice([-1.0, 1.0]) for edge in edges if edge[0] != edge[1]}
    cycles = triples = 0
    for a, b, c in itertools.combinations(range(6), 3):
        said = [pairs.get(pair) for pair in ((a, b), (b, c), (a, c))]
        if None not in said:
            triples += 1
            cycles += said in ([1.0, 1.0, -1.0], [-1.0, -1.0, 1.0])
    assert contradictions([(i, j, odds) for (i, j), odds in pairs.items()]) == (cycles, triples)
