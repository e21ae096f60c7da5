"""Batches without padding: the prompts stand in one flat row, and the attention keeps them apart.

Every linear layer, norm and activation of a transformer works on single tokens, so a batch can be one flat row of all
prompts' tokens. Only attention must know which tokens belong together. `packed_attention` does this for every
architecture that uses the attention interface of transformers. Prompts of a decoder-only model share a common prefix:
they form a tree in which each token sees its own branch up to the root.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional
from transformers import AttentionInterface

ATTENTION = "pdadapt_packed"  # the name under which transformers knows `packed_attention`
MIN_SHARED_TOKENS = 16  # a shorter common prefix is not worth a branch
PADDING_POSITION = 1 << 30  # so large that no token attends to padding
# Some architectures pass these arguments to attention. scaled_dot_product_attention does not support them.
UNSUPPORTED_ARGUMENTS = ("softcap", "s_aux")


class Segment(NamedTuple):
    """Consecutive tokens of the flat row, and the rows of all tokens that they see (themselves included)."""

    start: int
    stop: int
    seen: list[int]


class PromptTree(NamedTuple):
    """Prompts in one flat row. Each common prefix occurs once."""

    tokens: list[int]
    positions: list[int]
    segments: list[Segment]
    last: list[int]  # the row of each prompt's last token


class SegmentGroup(NamedTuple):
    """B segments of similar size, computed together: Q tokens attend to K tokens. Padded keys have PADDING_POSITION."""

    queries: torch.Tensor  # (B, Q) rows
    keys: torch.Tensor  # (B, K) rows
    real: torch.Tensor | None  # (B, Q) bool, false for padding; None if there is no padding
    query_positions: torch.Tensor  # (B, Q)
    key_positions: torch.Tensor  # (B, K)
    rows: slice | None  # the rows of a single segment that sees only itself: a view replaces a copy


def common_prefix(a: Sequence[int], b: Sequence[int], most: int) -> int:
    """Return the length of the common prefix of a and b, at most `most`."""
    for position in range(most):
        if a[position] != b[position]:
            return position
    return most


def shared_prefixes(prompts: Sequence[Sequence[int]], unshared: Sequence[int]) -> list[int]:
    """Return, for each prompt, how many tokens it shares with the prompt before it.

    unshared: the last unshared[i] tokens of prompt i are never shared.
    """
    shared = [0] * min(len(prompts), 1)
    for i in range(1, len(prompts)):
        most = min(len(prompts[i - 1]) - unshared[i - 1], len(prompts[i]) - unshared[i])
        shared.append(common_prefix(prompts[i - 1], prompts[i], most))
    return shared


def build_tree(prompts: Sequence[Sequence[int]], shared: Sequence[int]) -> PromptTree:
    """Return the prefix tree of prompts. They must be sorted, and `shared` be the result of `shared_prefixes`."""
    tree = PromptTree([], [], [], [])

    def add(tokens: Sequence[int], depth: int, seen: list[int]) -> list[int]:
        start = len(tree.tokens)
        tree.tokens.extend(tokens)
        tree.positions.extend(range(depth, depth + len(tokens)))
        seen = [*seen, *range(start, len(tree.tokens))]
        tree.segments.append(Segment(start, len(tree.tokens), seen))
        return seen

    def branch(first: int, stop: int, depth: int, seen: list[int]) -> None:
        """Add prompts first..stop. Their first `depth` tokens are equal and already in the tree."""
        if stop - first == 1:
            tree.last.append(add(prompts[first][depth:], depth, seen)[-1])
            return
        common = min(shared[first + 1 : stop])
        if common - depth >= MIN_SHARED_TOKENS:
            seen = add(prompts[first][depth:common], depth, seen)
            depth = common
        cuts = [first, *(i for i in range(first + 1, stop) if shared[i] - depth < MIN_SHARED_TOKENS), stop]
        for left, right in itertools.pairwise(cuts):
            branch(left, right, depth, seen)

    if prompts:
        branch(0, len(prompts), 0, [])
    return tree


class AttentionPlan:
    """How the attention of one flat batch is computed: groups of segments, and masks that all layers share."""

    def __init__(
        self, segments: Sequence[Segment], positions: Sequence[int], device: torch.device, *, slack: float | None = None
    ):
        """Group the segments of a flat row with these positions.

        slack: segments whose sizes differ by at most this factor are padded and computed together. The default is 1.25
        on a GPU, where many small attentions are slow, and 1 (equal sizes) on a CPU.
        """
        slack = slack or (1.25 if device.type == "cuda" else 1.0)
        self.groups: list[SegmentGroup] = []
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
        """Return a causal mask (B, 1, Q, K) for each group: True where attention is allowed.

        window: how many tokens back a token sees; None means all.
        """
        if window not in self._masks:
            self._masks[window] = [_causal_mask(group, window) for group in self.groups]
        return self._masks[window]


def _alike(a: Segment, b: Segment, slack: float) -> bool:
    sizes = ((a.stop - a.start, b.stop - b.start), (len(a.seen), len(b.seen)))
    return all(max(pair) <= slack * min(pair) for pair in sizes)


def _group(segments: Sequence[Segment], positions: Sequence[int], device: torch.device) -> SegmentGroup:
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
    key_positions = table[keys].masked_fill(~key_real, PADDING_POSITION)
    return SegmentGroup(
        queries.to(device),
        keys.to(device),
        None if bool(real.all()) else real.to(device),
        table[queries].to(device),
        key_positions.to(device),
        slice(segments[0].start, segments[0].stop) if len(segments) == 1 and depth == width else None,
    )


def _causal_mask(group: SegmentGroup, window: int | None) -> torch.Tensor:
    distance = group.query_positions.unsqueeze(2) - group.key_positions.unsqueeze(1)
    mask = distance >= 0
    if window is not None:
        mask &= distance < window
    if group.real is not None:  # padding must see some token, or its softmax is NaN
        mask |= ~group.real.unsqueeze(2)
    return mask.unsqueeze(1)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    packed: AttentionPlan | None = None,
    position_bias: list[torch.Tensor] | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within the branches of a flat batch: query, key, value (1, heads, N, width) -> (1, N, heads, width).

    packed: which tokens belong together.
    position_bias: added to the scores of each group instead of a causal mask.
    Raises NotImplementedError if there is no plan, or if the architecture passes an unsupported argument.
    """
    if packed is None or any(kwargs.get(name) is not None for name in UNSUPPORTED_ARGUMENTS):
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
