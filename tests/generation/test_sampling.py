import pytest
import torch
from scipy import stats

from pdadapt.generation.writers import Sampler

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -30.0])
CPU = torch.device("cpu")


def draws(seeds, temperature=1.0, top_p=1.0, steps=1):
    """(steps, rows) of tokens."""
    sampler, ids = Sampler(temperature, top_p, seeds, CPU), torch.zeros(len(seeds), 1, dtype=torch.long)
    return torch.stack([sampler(ids, LOGITS.repeat(len(seeds), 1)).argmax(1) for _ in range(steps)])


def fits(counts, probabilities):
    likely = probabilities > 1e-6
    assert not counts[~likely].any()
    return stats.chisquare(counts[likely], counts.sum() * probabilities[likely] / probabilities[likely].sum()).pvalue


@pytest.mark.slow
def test_tokens_are_drawn_by_the_softmax_over_rows_and_over_steps():
    for temperature in (1.0, 0.5):
        probabilities = (LOGITS / temperature).softmax(0).double().numpy()
        for found in (draws(range(4_000), temperature), draws([7], temperature, steps=4_000)):
            counts = found.flatten().bincount(minlength=len(LOGITS)).numpy()
            assert fits(counts, probabilities) > 0.01
            assert fits(counts, LOGITS.softmax(0).double().numpy()) < 1e-6 or temperature == 1.0


def test_top_p_keeps_the_likeliest_tokens():
    assert set(draws(range(500), top_p=0.5).flatten().tolist()) == {0}
    assert set(draws(range(500), top_p=0.8).flatten().tolist()) == {0, 1, 2}


def test_sampled_row_depends_on_its_own_seed_alone():
    before = torch.random.get_rng_state()
    every = draws([1, 2, 3, 4], steps=50)
    assert torch.equal(draws([3], steps=50)[:, 0], every[:, 2]) and torch.equal(
        draws([4, 3], steps=50)[:, 1], every[:, 2]
    )
    assert len({tuple(row) for row in every.T.tolist()}) == 4
    assert torch.equal(torch.random.get_rng_state(), before)
