"""Batches without padding: prompts laid end to end in one row, and an attention that keeps them apart.

Every linear layer, norm and activation of a transformer works on single tokens, so a batch may be one flat row of all
prompts' tokens. Only attention must know which tokens belong together: `packed_attention` does, through the attention
interface of transformers, for any architecture that uses it. Prompts of a decoder-only model that begin alike share
those tokens: they form a tree, in which each token sees its own branch up to the root.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional
from transformers import AttentionInterface

ATTENTION = "pdadapt_packed"  # the name under which transformers knows `packed_attention`
LEAST_SHARED = 16  # tokens: a shorter common beginning is not worth a branch
FAR = 1 << 30  # the position of padding: never attended to
UNSUPPORTED = ("softcap", "s_aux")  # what some architectures add to attention, and scaled_dot_product_attention lacks


class Segment(NamedTuple):
    """A run of tokens in the flat row, and the rows of all tokens that it sees, itself included."""

    start: int
    stop: int
    seen: list[int]


class Tree(NamedTuple):
    tokens: list[int]
    positions: list[int]
    segments: list[Segment]
    last: list[int]  # the row of each prompt's last token


class Group(NamedTuple):
    """B segments of like size, attended together: Q tokens look at K tokens; padding has position FAR (keys)."""

    queries: torch.Tensor  # (B, Q) rows
    keys: torch.Tensor  # (B, K) rows
    real: torch.Tensor | None  # (B, Q) bool, None where nothing is padding
    query_positions: torch.Tensor  # (B, Q)
    key_positions: torch.Tensor  # (B, K)
    rows: slice | None  # of a segment that stands alone and sees itself only: views serve instead of copies


def common_prefix(a: Sequence[int], b: Sequence[int], most: int) -> int:
    """How many tokens a and b begin with in common, at most `most`."""
    for position in range(most):
        if a[position] != b[position]:
            return position
    return most


def prefixes(prompts: Sequence[Sequence[int]], own: Sequence[int]) -> list[int]:
    """For each prompt, how many tokens it can share with the one before it; its last `own` tokens stay its own."""
    shared = [0] * min(len(prompts), 1)
    for i in range(1, len(prompts)):
        most = min(len(prompts[i - 1]) - own[i - 1], len(prompts[i]) - own[i])
        shared.append(common_prefix(prompts[i - 1], prompts[i], most))
    return shared


def grow(prompts: Sequence[Sequence[int]], shared: Sequence[int]) -> Tree:
    """The prefix tree of prompts in lexicographic order; shared: their `prefixes`."""
    tree = Tree([], [], [], [])

    def add(tokens: Sequence[int], depth: int, seen: list[int]) -> list[int]:
        start = len(tree.tokens)
        tree.tokens.extend(tokens)
        tree.positions.extend(range(depth, depth + len(tokens)))
        seen = [*seen, *range(start, len(tree.tokens))]
        tree.segments.append(Segment(start, len(tree.tokens), seen))
        return seen

    def branch(first: int, stop: int, depth: int, seen: list[int]) -> None:
        """Prompts first..stop have `depth` tokens in common, which are in the tree already."""
        if stop - first == 1:
            tree.last.append(add(prompts[first][depth:], depth, seen)[-1])
            return
        common = min(shared[first + 1 : stop])
        if common - depth >= LEAST_SHARED:
            seen = add(prompts[first][depth:common], depth, seen)
            depth = common
        cuts = [first, *(i for i in range(first + 1, stop) if shared[i] - depth < LEAST_SHARED), stop]
        for left, right in itertools.pairwise(cuts):
            branch(left, right, depth, seen)

    if prompts:
        branch(0, len(prompts), 0, [])
    return tree


class Plan:
    """How the attention of one flat batch is computed: groups of segments, and masks made once for all layers."""

    def __init__(
        self, segments: Sequence[Segment], positions: Sequence[int], device: torch.device, *, slack: float | None = None
    ):
        """segments: runs of the flat row; slack: those whose sizes differ by no more are padded and attended together
        (by default 1.25 on a GPU, where many small attentions are slow, and 1 elsewhere: only equals)."""
        slack = slack or (1.25 if device.type == "cuda" else 1.0)
        self.groups: list[Group] = []
        order = sorted(
            range(len(segments)), key=lambda i: (len(segments[i].seen), segments[i].stop - segments[i].start)
        )
        batch: list[Segment] = []
        for segment in (segments[i] for i in order):
            if batch and not _alike(batch[0], segment, slack):
                self.groups.append(_group(batch, positions, device))
                batch = []
            batch.append(segment)
        if batch:
            self.groups.append(_group(batch, positions, device))
        self._masks: dict[int | None, list[torch.Tensor]] = {}

    def masks(self, window: int | None) -> list[torch.Tensor]:
        """Causal masks (B, 1, Q, K), True where attention is allowed; window: only so many tokens back."""
        if window not in self._masks:
            self._masks[window] = [_causal_mask(group, window) for group in self.groups]
        return self._masks[window]


def _alike(a: Segment, b: Segment, slack: float) -> bool:
    sizes = ((a.stop - a.start, b.stop - b.start), (len(a.seen), len(b.seen)))
    return all(max(pair) <= slack * min(pair) for pair in sizes)


def _group(segments: Sequence[Segment], positions: Sequence[int], device: torch.device) -> Group:
    width = max(segment.stop - segment.start for segment in segments)
    depth = max(len(segment.seen) for segment in segments)
    queries = torch.zeros(len(segments), width, dtype=torch.long)
    keys = torch.zeros(len(segments), depth, dtype=torch.long)
    real = torch.zeros(len(segments), width, dtype=torch.bool)
    key_real = torch.zeros(len(segments), depth, dtype=torch.bool)
    for row, segment in enumerate(segments):
        length = segment.stop - segment.start
        queries[row, :length] = torch.arange(segment.start, segment.stop)
        keys[row, : len(segment.seen)] = torch.tensor(segment.seen)
        real[row, :length] = True
        key_real[row, : len(segment.seen)] = True
    table = torch.tensor(positions)
    key_positions = table[keys].masked_fill(~key_real, FAR)
    return Group(
        queries.to(device),
        keys.to(device),
        None if bool(real.all()) else real.to(device),
        table[queries].to(device),
        key_positions.to(device),
        slice(segments[0].start, segments[0].stop) if len(segments) == 1 and depth == width else None,
    )


def _causal_mask(group: Group, window: int | None) -> torch.Tensor:
    distance = group.query_positions.unsqueeze(2) - group.key_positions.unsqueeze(1)
    mask = distance >= 0
    if window is not None:
        mask &= distance < window
    if group.real is not None:  # padding must see something, or its softmax is not a number
        mask |= ~group.real.unsqueeze(2)
    return mask.unsqueeze(1)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    packed: Plan | None = None,
    position_bias: list[torch.Tensor] | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within the branches of a flat batch: query, key, value (1, heads, N, width) -> (1, N, heads, width).

    packed: which tokens belong together; position_bias: added to the scores of each group in place of a causal mask.
    Raises NotImplementedError when the architecture wants what it cannot do.
    """
    if packed is None or any(kwargs.get(name) is not None for name in UNSUPPORTED):
        raise NotImplementedError(f"{type(module).__name__} cannot be packed")
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))  # (N, heads, width)
    output = torch.empty_like(query)
    masks = packed.masks(sliding_window) if position_bias is None else position_bias
    for group, mask in zip(packed.groups, masks, strict=True):
        if group.rows:
            q, k, v = (tensor[group.rows].unsqueeze(0) for tensor in (query, key, value))
        else:
            q, k, v = query[group.queries], key[group.keys], value[group.keys]
        attended = functional.scaled_dot_product_attention(
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            attn_mask=mask,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        ).transpose(1, 2)
        if group.rows:
            output[group.rows] = attended[0]
        elif group.real is None:
            output[group.queries] = attended
        else:
            output[group.queries[group.real]] = attended[group.real]
    return output.unsqueeze(0), None


AttentionInterface.register(ATTENTION, packed_attention)
