"""TokenBudget.batches: whatever runs out of memory, every item is scored exactly once and in order."""

import gc

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pdadapt.models.token_budget import TokenBudget, batch_limits


@pytest.fixture(autouse=True)
def _quick_collection():
    """Running out of memory collects garbage. What is alive now need not be looked at each time."""
    gc.freeze()
    yield
    gc.unfreeze()


class Memory:
    """Scores items in batches. Runs out of memory in the calls that `fails` names."""

    def __init__(self, fails):
        self.fails = iter(fails)

    def score(self, batch):
        if len(batch) > 1 and next(self.fails, False):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [item * 10 for item in batch]


costs = st.lists(st.integers(1, 40), max_size=20)
failures = st.lists(st.booleans(), max_size=30)


@given(costs=costs, tokens=st.integers(1, 120), fails=failures, padded=st.booleans())
def test_batches_are_a_partition_for_every_sequence_of_out_of_memory(costs, tokens, fails, padded):
    batch_limits.keep_in(None)
    costs = sorted(costs, reverse=True) if padded else costs
    budget = TokenBudget("test", tokens)
    scored, allowed = [], [budget.tokens]
    for batch, scores in budget.batches(costs, Memory(fails).score, padded=padded):
        spent = costs[batch.start] * len(batch) if padded else sum(costs[i] for i in batch)
        assert len(batch) == 1 or spent <= budget.tokens
        assert scores == [item * 10 for item in batch]
        scored += batch
        allowed.append(budget.tokens)
    assert scored == list(range(len(costs)))
    assert allowed == sorted(allowed, reverse=True), "a budget never grows"
    assert TokenBudget("test", tokens).tokens == budget.tokens, "the next budget of this name starts with this size"


@given(costs=costs.filter(len), tokens=st.integers(1, 120), single=st.data())
def test_an_item_that_does_not_fit_alone_ends_the_batches(costs, tokens, single):
    batch_limits.keep_in(None)
    too_large = single.draw(st.integers(0, len(costs) - 1))

    def score(batch):
        if too_large in batch:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(batch)

    scored = []
    with pytest.raises(torch.OutOfMemoryError):
        for batch, _ in TokenBudget("test", tokens).batches(costs, score):
            scored += batch
    assert scored == list(range(too_large)), "everything before it was scored"


@given(costs=costs, tokens=st.integers(1, 120), fails=failures, stop=st.integers(0, 20))
def test_batches_begun_again_at_the_start_of_a_batch_are_the_same(costs, tokens, fails, stop):
    batch_limits.keep_in(None)
    budget = TokenBudget("test", tokens)
    list(budget.batches(costs, Memory(fails).score))  # until what fits is known
    whole = [batch for batch, _ in budget.batches(costs, Memory([]).score)]
    rest = whole[stop:]
    start = rest[0].start if rest else len(costs)
    again = [batch for batch, _ in budget.batches(costs[start:], Memory([]).score)]
    assert [range(batch.start + start, batch.stop + start) for batch in again] == rest
