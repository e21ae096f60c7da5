import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdadapt.labeling.bradley_terry import fit_strengths
from pdadapt.labeling.pairs import choose_pairs, count_pairs, pairs_of_round
from pdadapt.settings.schema import PairSettings

STRATEGIES = ("window", "random", "adjacent", "cycles", "uncertain", "active")


def chosen(settings, size, seed="42/q1", points=None, scores=None):
    """The pairs of each round."""
    points = [-99.0 * i for i in range(size)] if points is None else points
    return list(
        choose_pairs(settings, points, scores or points, seed, lambda asked: fit_strengths(points, [], 1.0, 1.0))
    )


@given(st.sampled_from(STRATEGIES), st.integers(0, 14), st.integers(2, 12), st.integers(0, 100), st.text())
def test_pairs_are_of_the_list_without_repeats_and_as_many_as_there_are(strategy, size, window, most, seed):
    settings = PairSettings(strategy=strategy, window=window, per_query=most, rounds=3)
    rounds = chosen(settings, size, seed)
    pairs = [pair for positions in rounds for pair in positions]
    assert all(positions == sorted(positions) for positions in rounds)
    assert len(set(pairs)) == len(pairs)
    farthest = {"window": window - 1, "adjacent": 1}.get(strategy, size)
    assert all(0 <= i < j < size and j - i <= farthest for i, j in pairs)
    possible = sum(1 for i in range(size) for j in range(i + 1, size) if j - i <= farthest)
    assert len(pairs) == count_pairs(settings, size) == min(most, possible)
    assert [len(positions) for positions in rounds] == [
        pairs_of_round(settings, size, number) for number in range(settings.rounds_asked)
    ]
    assert rounds == chosen(settings, size, seed)


@pytest.mark.parametrize("strategy", ["window", "random", "cycles"])
def test_the_seed_decides_the_sample(strategy):
    settings = PairSettings(strategy=strategy, per_query=20)
    assert chosen(settings, 50, "42/q1") != chosen(settings, 50, "42/q2")


@pytest.mark.parametrize(("strategy", "farthest"), [("window", 2), ("random", 5), ("cycles", 5)])
def test_strategies_can_draw_every_pair_in_reach(strategy, farthest):
    settings = PairSettings(strategy=strategy, window=3, per_query=3)
    drawn = {pair for seed in range(200) for positions in chosen(settings, 6, str(seed)) for pair in positions}
    assert drawn == {(i, j) for i in range(6) for j in range(i + 1, min(i + 1 + farthest, 6))}


def test_the_papers_window_draws_what_it_always_drew():
    (pairs,) = chosen(PairSettings(window=4, per_query=5), 10, "42/q1")
    assert pairs == [(2, 4), (2, 5), (4, 6), (6, 8), (7, 8)]


def test_active_rounds_are_never_empty():
    assert PairSettings(strategy="active", per_query=2, rounds=5).rounds_asked == 2
    assert [len(positions) for positions in chosen(PairSettings(strategy="active", per_query=2), 6)] == [1, 1]


def test_adjacent_pairs_begin_at_the_top():
    assert chosen(PairSettings(strategy="adjacent", per_query=2), 5) == [[(0, 1), (1, 2)]]


def test_cycles_visit_every_document_twice_before_any_a_third_time():
    for seed in range(20):
        (pairs,) = chosen(PairSettings(strategy="cycles", per_query=7), 7, str(seed))
        visits = [sum(i in pair for pair in pairs) for i in range(7)]
        assert visits == [2] * 7


def test_uncertain_pairs_are_close_or_contested():
    points = [4.0, 3.9, 0.0, -4.0]
    settings = PairSettings(strategy="uncertain", per_query=1)
    assert chosen(settings, 4, points=points, scores=points) == [[(0, 1)]]
    contested = [5.0, 0.0, 0.0, 5.0]  # the student holds the last for as good as the first
    assert chosen(settings, 4, points=[4.0, 1.0, -2.0, -3.0], scores=contested) == [[(1, 3)]]
    unknown = chosen(settings, 3, points=[3.0, None, -3.0], scores=[1.0, None, 1.0])
    assert unknown != [[(0, 2)]]


def test_answers_steer_what_is_asked_next():
    points = [0.3, 0.2, 0.1, 0.0, -0.1, -0.2]
    settings = PairSettings(strategy="active", per_query=6, rounds=2)
    asked = []

    def refit(close):  # the one document that is close to its rival
        def fit_to(pairs):
            asked.append(list(pairs))
            return fit_strengths(points, [(i, j, 0.0 if i == close else 9.0) for i, j in pairs], 1.0, 0.01)

        return fit_to

    first, second = choose_pairs(settings, points, points, "", refit(0))
    assert asked == [[], asked[1]] and sorted(asked[1]) == first, "the second fit is to all answers of the first round"
    assert not set(first) & set(second)
    other_first, other_second = choose_pairs(settings, points, points, "", refit(2))
    assert other_first == first and other_second != second
