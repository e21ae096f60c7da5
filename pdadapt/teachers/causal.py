"""Decoder-only teachers, through their chat template: label words, or the likelihood of the query.

Prompts of a batch that begin alike (the instruction, the query, document A of several pairs) are computed once: they
form a tree in a flat batch (packed.py). Architectures whose attention cannot be packed take padded batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch

from pdadapt.settings.schema import ModelSettings, PairSettings, PointSettings
from pdadapt.teachers.base import Chunk, Scores
from pdadapt.teachers.chat import may_think
from pdadapt.teachers.language_model import ANSWER_ROOM, Asking, LanguageModelTeacher, pad
from pdadapt.teachers.packed import ATTENTION, Plan, grow, prefixes
from pdadapt.teachers.prompting import tokenised

PROBE = (
    [5] * 20 + [6, 7],
    [5] * 20 + [8, 9, 6],
    [7, 5, 8, 6],
)  # token ids: two prompts that share a beginning, one not
LONGEST_TAG = 8  # tokens that may pass until it shows whether an answer begins with a thought


class CausalTeacher(LanguageModelTeacher):
    kind = "causal"
    cpu_budget = 2_048  # more prompts at once share more of their beginnings

    def __init__(self, settings: ModelSettings, point: PointSettings | None, pair: PairSettings | None):
        super().__init__(settings, point, pair)
        self.packs = not settings.device_map and self._packing_agrees()

    def score_points(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        assert self.point is not None
        yield from super().score_points(chunks) if self.point.labels else self._query_likelihood(chunks)

    @torch.inference_mode()
    def _first_token(self, asked: Asking) -> str:
        if not asked.labels or not self.tokenizer.chat_template:
            return ""
        prompt = asked.encode([dict.fromkeys(asked.encode.prompt.fields, "a")])[0]
        answer: list[int] = []
        while len(answer) < LONGEST_TAG:
            answer.append(int(self._padded_logits([prompt + answer], [1])[0].argmax()))
            if not may_think(self.tokenizer.decode(answer)):
                break
        return str(self.tokenizer.decode(answer))

    @torch.inference_mode()
    def _log_odds(self, prompts: list[list[int]], columns: list[int]) -> Iterator[tuple[list[int], torch.Tensor]]:
        first, second = columns
        yield from self._logits(prompts, [1] * len(prompts), lambda logits, _: logits[:, first] - logits[:, second])

    @torch.inference_mode()
    def _query_likelihood(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        """Mean log p(query token | document, query so far): Sachan et al. 2022, equation 2."""
        assert self.point is not None
        encode = self.point.encode
        as_text = encode.control.as_text
        ordered = (sorted(chunk.asked, key=lambda point: (point.document, point.query)) for chunk in chunks)
        for points, prefix in tokenised(ordered, lambda chunk: encode([{"document": one.document} for one in chunk])):
            answers = {
                query: self.tokenizer.encode(as_text(query), add_special_tokens=False)[:ANSWER_ROOM]
                for query in {point.query for point in points}
            }
            rows = [i for i, point in enumerate(points) if answers[point.query]]
            yield [(point, None) for point in points if not answers[point.query]]
            asked = [answers[points[i].query] for i in rows]
            prompts = [prefix[i] + answer[:-1] for i, answer in zip(rows, asked, strict=True)]

            def mean_log_p(logits: torch.Tensor, batch: list[int], asked: list[list[int]] = asked) -> torch.Tensor:
                tokens = torch.tensor([token for i in batch for token in asked[i]], device=logits.device)
                log_p = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
                return torch.stack([part.mean() for part in log_p.split([len(asked[i]) for i in batch])])

            for batch, scores in self._logits(prompts, [len(answer) for answer in asked], mean_log_p):
                yield [(points[rows[i]], score) for i, score in zip(batch, scores.tolist(), strict=True)]

    def _logits(
        self, prompts: list[list[int]], own: list[int], reduce: Callable[[torch.Tensor, list[int]], torch.Tensor]
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Batches of (which prompts, what `reduce` makes of their logits on the device).

        reduce: given the logits of each prompt's last own[i] tokens, one below the other (sum, rows of the head), and
        which prompts.
        """
        order = sorted(range(len(prompts)), key=lambda i: prompts[i] if self.packs else (-len(prompts[i]), i))
        prompts, own = [prompts[i] for i in order], [own[i] for i in order]
        lengths = [len(prompt) for prompt in prompts]
        if self.packs:
            shared = prefixes(prompts, own)
            costs = [length - common for length, common in zip(lengths, shared, strict=True)]
        else:
            shared, costs = [], lengths

        def score(batch: range) -> torch.Tensor:
            asked, last = prompts[batch.start : batch.stop], own[batch.start : batch.stop]
            if self.packs:
                logits = self._packed_logits(asked, shared[batch.start : batch.stop], last)
            else:
                logits = self._padded_logits(asked, last)
            return reduce(logits, [order[i] for i in batch]).cpu()

        for batch, scores in self.budget.batches(costs, score, not self.packs, lengths):
            yield [order[i] for i in batch], scores

    def _packed_logits(self, prompts: list[list[int]], shared: list[int], own: list[int]) -> torch.Tensor:
        tree = grow(prompts, shared)
        plan = Plan(tree.segments, tree.positions, self.device)
        wanted = [row for last, count in zip(tree.last, own, strict=True) for row in range(last - count + 1, last + 1)]
        output = self.model(
            input_ids=torch.tensor([tree.tokens], device=self.device),
            position_ids=torch.tensor([tree.positions], device=self.device),
            use_cache=False,
            logits_to_keep=torch.tensor(wanted, device=self.device),
            packed=plan,
        )
        return output.logits[0]

    def _padded_logits(self, prompts: list[list[int]], own: list[int]) -> torch.Tensor:
        """The same by the model's own attention, padded on the left."""
        ids, mask = pad(prompts, "left", self.device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        keep = max(own)
        output = self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=keep
        )
        return torch.cat([logits[keep - count :] for logits, count in zip(output.logits, own, strict=True)])

    @torch.inference_mode()
    def _packing_agrees(self) -> bool:
        """Try the packed attention on a few tokens: whether this architecture takes it, and gives the same."""
        own = self.model.config._attn_implementation
        prompts = sorted(list(prompt) for prompt in PROBE)
        last = [1] * len(prompts)
        expected = self._padded_logits(prompts, last)
        try:
            self.model.set_attn_implementation(ATTENTION)
            found = self._packed_logits(prompts, prefixes(prompts, last), last)
            if torch.allclose(found, expected, rtol=0, atol=float(0.1 * expected.std())):
                return True
        except (NotImplementedError, ValueError, TypeError, IndexError, RuntimeError):
            pass
        self.model.set_attn_implementation(own)
        return False
