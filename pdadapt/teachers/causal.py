"""Decoder-only teachers. They are asked through their chat template, for label words or for the query's likelihood.

Prompts of a batch often share a prefix: the instruction, the query, document A of several pairs. Each prefix is
computed once, since the prompts form a tree in a flat batch (packed.py). An architecture that does not support packed
attention gets padded batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch

from pdadapt.settings.schema import ModelSettings, PairSettings, PointSettings
from pdadapt.teachers.base import Chunk, Scores
from pdadapt.teachers.chat import may_think
from pdadapt.teachers.language_model import ANSWER_TOKENS, LanguageModelTeacher, TaskPrompt, pad
from pdadapt.teachers.packed import ATTENTION, AttentionPlan, build_tree, shared_prefixes
from pdadapt.teachers.prompting import tokenised

PROBE_PROMPTS = (  # token ids of two prompts with a common prefix and one without
    [5] * 20 + [6, 7],
    [5] * 20 + [8, 9, 6],
    [7, 5, 8, 6],
)
MAX_TAG_TOKENS = 8  # tokens of an answer that are read to tell whether it begins with a thought


class CausalTeacher(LanguageModelTeacher):
    """A decoder-only teacher for points and pairs."""

    kind = "causal"
    cpu_tokens = 2_048  # larger batches share more prefixes

    def __init__(self, settings: ModelSettings, point: PointSettings | None, pair: PairSettings | None):
        super().__init__(settings, point, pair)
        self.packs = not settings.device_map and self._packing_agrees()

    def score_points(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        """Yield the log-odds of the label words, or the likelihood of the query if that is the point scoring."""
        assert self.point is not None
        yield from super().score_points(chunks) if self.point.labels else self._query_likelihood(chunks)

    @torch.inference_mode()
    def _answer_start(self, task: TaskPrompt) -> str:
        if not task.labels or not self.tokenizer.chat_template:
            return ""
        prompt = task.encode([dict.fromkeys(task.encode.prompt.fields, "a")])[0]
        answer: list[int] = []
        while len(answer) < MAX_TAG_TOKENS:
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
        """Score points by the mean log p(query token | document, query so far): Sachan et al. 2022, equation 2."""
        assert self.point is not None
        encode = self.point.encode
        as_text = encode.control.as_text
        ordered = (sorted(chunk.asked, key=lambda point: (point.document, point.query)) for chunk in chunks)
        for points, prefix in tokenised(ordered, lambda chunk: encode([{"document": one.document} for one in chunk])):
            query_ids = {
                query: self.tokenizer.encode(as_text(query), add_special_tokens=False)[:ANSWER_TOKENS]
                for query in {point.query for point in points}
            }
            rows = [i for i, point in enumerate(points) if query_ids[point.query]]
            yield [(point, None) for point in points if not query_ids[point.query]]
            answers = [query_ids[points[i].query] for i in rows]
            prompts = [prefix[i] + answer[:-1] for i, answer in zip(rows, answers, strict=True)]

            def mean_log_p(logits: torch.Tensor, batch: list[int], answers: list[list[int]] = answers) -> torch.Tensor:
                tokens = torch.tensor([token for i in batch for token in answers[i]], device=logits.device)
                log_p = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
                return torch.stack([part.mean() for part in log_p.split([len(answers[i]) for i in batch])])

            for batch, scores in self._logits(prompts, [len(answer) for answer in answers], mean_log_p):
                yield [(points[rows[i]], score) for i, score in zip(batch, scores.tolist(), strict=True)]

    def _logits(
        self, prompts: list[list[int]], last: list[int], reduce: Callable[[torch.Tensor, list[int]], torch.Tensor]
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Yield batches of (indices of prompts, result of `reduce` for their logits).

        last: the logits of the last last[i] tokens of prompt i are computed.
        reduce: called on the device with these logits, concatenated to (sum of last, rows of the head), and with the
        indices of the prompts.
        """
        order = sorted(range(len(prompts)), key=lambda i: prompts[i] if self.packs else (-len(prompts[i]), i))
        prompts, last = [prompts[i] for i in order], [last[i] for i in order]
        lengths = [len(prompt) for prompt in prompts]
        if self.packs:
            shared = shared_prefixes(prompts, last)
            costs = [length - common for length, common in zip(lengths, shared, strict=True)]
        else:
            shared, costs = [], lengths

        def score(batch: range) -> torch.Tensor:
            rows = slice(batch.start, batch.stop)
            if self.packs:
                logits = self._packed_logits(prompts[rows], shared[rows], last[rows])
            else:
                logits = self._padded_logits(prompts[rows], last[rows])
            return reduce(logits, [order[i] for i in batch]).cpu()

        for batch, scores in self.budget.batches(costs, score, not self.packs, lengths):
            yield [order[i] for i in batch], scores

    def _packed_logits(self, prompts: list[list[int]], shared: list[int], last: list[int]) -> torch.Tensor:
        """Return (sum of last, rows of the head) logits of the prompts' last tokens, from one flat batch."""
        tree = build_tree(prompts, shared)
        plan = AttentionPlan(tree.segments, tree.positions, self.device)
        rows = [row for end, count in zip(tree.last, last, strict=True) for row in range(end - count + 1, end + 1)]
        output = self.model(
            input_ids=torch.tensor([tree.tokens], device=self.device),
            position_ids=torch.tensor([tree.positions], device=self.device),
            use_cache=False,
            logits_to_keep=torch.tensor(rows, device=self.device),
            packed=plan,
        )
        return output.logits[0]

    def _padded_logits(self, prompts: list[list[int]], last: list[int]) -> torch.Tensor:
        """Return the logits that `_packed_logits` returns, from a batch padded on the left."""
        ids, mask = pad(prompts, "left", self.device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        keep = max(last)
        output = self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=keep
        )
        return torch.cat([logits[keep - count :] for logits, count in zip(output.logits, last, strict=True)])

    @torch.inference_mode()
    def _packing_agrees(self) -> bool:
        """Whether the architecture supports packed attention: tried on a few tokens, it must give the same logits.

        Leaves packed attention switched on if it does.
        """
        original = self.model.config._attn_implementation
        prompts = sorted(list(prompt) for prompt in PROBE_PROMPTS)
        last = [1] * len(prompts)
        expected = self._padded_logits(prompts, last)
        try:
            self.model.set_attn_implementation(ATTENTION)
            found = self._packed_logits(prompts, shared_prefixes(prompts, last), last)
            if torch.allclose(found, expected, rtol=0, atol=float(0.1 * expected.std())):
                return True
        except (NotImplementedError, ValueError, TypeError, IndexError, RuntimeError):
            pass
        self.model.set_attn_implementation(original)
        return False
