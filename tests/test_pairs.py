from hypothesis import given
from hypothesis import strategies as st

from pdadapt.pairs import sample_pairs


@given(st.integers(0, 40), st.integers(2, 12), st.integers(0, 100), st.text())
def test_pairs_lie_in_the_window_without_repeats_and_as_many_as_there_are(length, window, most, seed):
    pairs = sample_pairs(length, window, most, seed)
    assert len(set(pairs)) == len(pairs)
    assert all(0 <= i < j < length and j - i < window for i, j in pairs)
    possible = sum(min(window - 1, length - 1 - i) for i in range(length)) if length else 0
    assert len(pairs) == min(most, possible)
    assert pairs == sample_pairs(length, window, most, seed)


def test_the_seed_decides_the_sample():
    assert sample_pairs(50, 10, 20, "42/q1") != sample_pairs(50, 10, 20, "42/q2")


def test_every_pair_of_the_window_can_be_drawn():
    drawn = {pair for seed in range(200) for pair in sample_pairs(6, 3, 3, str(seed))}
    assert drawn == {(i, j) for i in range(6) for j in range(i + 1, min(i + 3, 6))}
