"""Sampling whose every row follows from its own seed, whatever is beside it in a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper


class Sampler:
    """Changes logits so that the likeliest token is one drawn from their softmax: noise of the Gumbel distribution is
    added (Maddison et al. 2014), from a generator for each row. No global random state is used.
    """

    def __init__(self, temperature: float, top_p: float, seeds: Sequence[int], device: torch.device):
        """seeds: of the rows of a batch."""
        self.warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature), TopPLogitsWarper(top_p)])
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, ids: torch.LongTensor, logits: torch.Tensor) -> torch.Tensor:
        """(B, V) logits of the tokens that may come after (B, T) ids."""
        warped = self.warpers(ids, logits.float())
        waits = torch.empty_like(warped)  # exponential, whose logarithms are Gumbel's but for the sign
        for row, generator in zip(waits, self.generators, strict=True):
            row.exponential_(generator=generator)
        return warped - waits.clamp(min=torch.finfo(waits.dtype).tiny).log()
