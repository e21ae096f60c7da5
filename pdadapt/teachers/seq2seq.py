"""Encoder-decoder teachers (flan-t5, monoT5, duoT5): the encoder on a flat batch, then one decoder step.

For T5 nothing is padded in the encoder, and the decoder step does not project all encoder states to keys and values:
with one query vector, q . (W_k h) = (W_k^T q) . h, and sum_t a_t W_v h_t = W_v sum_t a_t h_t. Other architectures use
their own forward with padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.activations import NewGELUActivation
from transformers.models.mt5.modeling_mt5 import MT5DenseGatedActDense, MT5LayerNorm
from transformers.models.t5.modeling_t5 import T5DenseGatedActDense, T5LayerNorm

from pdadapt.settings.schema import ModelSettings, PairSettings, PointSettings
from pdadapt.teachers.language_model import LanguageModelTeacher, pad
from pdadapt.teachers.packed import ATTENTION, AttentionPlan, Segment


class Seq2SeqTeacher(LanguageModelTeacher):
    """An encoder-decoder teacher for points and pairs."""

    kind = "seq2seq"

    def __init__(self, settings: ModelSettings, point: PointSettings | None, pair: PairSettings | None):
        super().__init__(settings, point, pair)
        self.packs = self.model.config.model_type in ("t5", "mt5") and not settings.device_map
        if self.packs:
            self.model.set_attn_implementation(ATTENTION)
            fuse_operations(self.model)

    @torch.inference_mode()
    def _log_odds(self, prompts: list[list[int]], columns: list[int]) -> Iterator[tuple[list[int], torch.Tensor]]:
        order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
        batch_logits = self._packed_logits if self.packs else self._padded_logits

        def score(batch: range) -> torch.Tensor:
            logits = batch_logits([prompts[order[i]] for i in batch])
            return (logits[:, columns[0]] - logits[:, columns[1]]).cpu()

        for batch, scores in self.budget.batches([len(prompts[i]) for i in order], score, padded=not self.packs):
            yield [order[i] for i in batch], scores

    def _padded_logits(self, prompts: list[list[int]]) -> torch.Tensor:
        """Return (B, rows of the head) logits of the first answer token, from the model's own forward."""
        ids, mask = pad(prompts, "right", self.device)
        start = torch.full((len(prompts), 1), self.model.config.decoder_start_token_id, device=self.device)
        output = self.model(input_ids=ids, attention_mask=mask, decoder_input_ids=start, use_cache=False)
        return output.logits[:, -1]

    def _packed_logits(self, prompts: list[list[int]]) -> torch.Tensor:
        """Return the logits that `_padded_logits` returns, from a flat batch."""
        lengths = [len(prompt) for prompt in prompts]
        states = self._encode(prompts, lengths)
        width = max(lengths)
        rows = torch.zeros(len(prompts), width, dtype=torch.long)
        mask = torch.zeros(len(prompts), 1, width, dtype=states.dtype)
        for i, (stop, length) in enumerate(zip(accumulate(lengths), lengths, strict=True)):
            rows[i, :length] = torch.arange(stop - length, stop)
            mask[i, 0, length:] = -torch.inf
        return self._decode(states[rows.to(self.device)], mask.to(self.device))

    def _encode(self, prompts: list[list[int]], lengths: list[int]) -> torch.Tensor:
        """Return the encoder's states (N, d_model) of all tokens."""
        encoder = self.model.encoder
        segments = [
            Segment(stop - length, stop, list(range(stop - length, stop)))
            for stop, length in zip(accumulate(lengths), lengths, strict=True)
        ]
        positions = [position for length in lengths for position in range(length)]
        plan = AttentionPlan(segments, positions, self.device)
        bias = self._position_bias(plan, max(lengths))
        hidden = encoder.embed_tokens(
            torch.tensor([token for prompt in prompts for token in prompt])[None].to(self.device)
        )
        for block in encoder.block:
            hidden = block.layer[0](hidden, position_bias=bias, packed=plan)[0]
            hidden = block.layer[1](hidden)
        return encoder.final_layer_norm(hidden)[0]

    def _position_bias(self, plan: AttentionPlan, longest: int) -> list[torch.Tensor]:
        """Return what is added to each group's attention scores: T5's relative position bias, -inf for padding."""
        table = self.model.encoder.block[0].layer[0].SelfAttention.compute_bias(longest, longest, device=self.device)
        biases = []
        for group in plan.groups:
            bias = table[:, :, : group.queries.shape[1], : group.keys.shape[1]].contiguous()
            if group.real is not None:
                bias = bias.masked_fill(~group.real[:, None, None, :], -torch.inf)
            biases.append(bias)
        return biases

    def _decode(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Decode one step: states (B, T, d_model), additive mask (B, 1, T) -> logits (B, rows of the head) float32."""
        decoder = self.model.decoder
        start = torch.full((len(states),), self.model.config.decoder_start_token_id, device=self.device)
        hidden = decoder.embed_tokens(start)
        for block in decoder.block:
            self_attention, cross, feed_forward = block.layer
            attention = self_attention.SelfAttention  # there is a single token, so its softmax is 1
            hidden = hidden + attention.o(attention.v(self_attention.layer_norm(hidden)))
            hidden = hidden + cross_attention(cross.EncDecAttention, cross.layer_norm(hidden), states, mask)
            hidden = feed_forward(hidden)
        hidden = decoder.final_layer_norm(hidden)
        if getattr(self.model.config, "scale_decoder_outputs", False):  # T5 v1.0 ties its head to its embeddings
            hidden = hidden * self.model.model_dim**-0.5
        return self.model.lm_head(hidden)


def cross_attention(attention: Any, query: torch.Tensor, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Compute T5's cross-attention for one decoder token per row.

    query (B, d_model), states (B, T, d_model), additive mask (B, 1, T) -> (B, d_model).
    """
    heads = attention.n_heads
    key_weight = attention.k.weight.view(heads, -1, states.shape[-1])  # (heads, d_kv, d_model)
    value_weight = attention.v.weight.view(heads, -1, states.shape[-1])
    projected = torch.einsum("bhe,hed->bhd", attention.q(query).view(len(query), heads, -1), key_weight)
    scores = torch.baddbmm(mask, projected, states.transpose(1, 2))  # (B, heads, T)
    pooled = torch.bmm(scores.softmax(-1, dtype=torch.float32).to(states.dtype), states)
    context = torch.einsum("bhd,hed->bhe", pooled, value_weight)
    return attention.o(context.reshape(len(query), -1))


def fuse_operations(model: Any) -> None:
    """Replace the forward of T5's norms and feed-forward parts by the same functions in fewer operations."""
    for module in model.modules():
        if isinstance(module, (T5LayerNorm, MT5LayerNorm)):
            module.forward = _rms_norm.__get__(module)  # type: ignore[method-assign]
        elif isinstance(module, (T5DenseGatedActDense, MT5DenseGatedActDense)):
            if isinstance(module.act, NewGELUActivation):
                module.act = nn.GELU(approximate="tanh")
            module.forward = _gated.__get__(module)  # type: ignore[method-assign]


def _rms_norm(self: Any, hidden: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(hidden, self.weight.shape, self.weight, self.variance_epsilon)


def _gated(self: Any, hidden: torch.Tensor) -> torch.Tensor:
    inner = self.act(self.wi_0(hidden)).mul_(self.wi_1(hidden))
    return self.wo(inner.to(self.wo.weight.dtype) if self.wo.weight.is_floating_point() else inner)
