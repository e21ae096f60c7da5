"""From a question to tokens: documents cut evenly to fit, prompts packed by length into batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from pdadapt.errors import ModelError, RecipeError
from pdadapt.prompt import Prompt

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from pdadapt.teachers import Scores

DOCUMENT_FIELDS = ("document", "document_a", "document_b")
SMALLEST_CUT = 8  # tokens of each document that must remain


def label_ids(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> list[int]:
    """Token ids of the label words, as the first thing the model would write.

    Raises ModelError unless each is a single known token, and all are distinct.
    """
    ids = [tokenizer.encode(word, add_special_tokens=False) for word in words]
    known = {tokenizer.unk_token_id} if tokenizer.unk_token_id is not None else set()
    if any(len(tokens) != 1 or tokens[0] in known for tokens in ids) or len({tokens[0] for tokens in ids}) < len(ids):
        found = ", ".join(f"{word!r} = {tokens}" for word, tokens in zip(words, ids, strict=True))
        raise ModelError(
            f"The label words must be single, distinct tokens of the teacher's tokenizer, but {found}; "
            "choose other words with teacher.point.labels or teacher.pair.labels."
        )
    return [tokens[0] for tokens in ids]


class PromptEncoder:
    """Renders a prompt and tokenises it; too long, its documents are cut evenly, and nothing else ever is."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt: Prompt,
        max_length: int,
        max_document_length: int | None = None,
        wrap: Callable[[str], str] = lambda text: text,
        add_special_tokens: bool = True,
        reserve: int = 0,
    ):
        """wrap: puts the rendered prompt into the model's chat format; reserve: tokens kept free for an answer."""
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.max_length = max_length - reserve
        self.max_document_length = max_document_length
        self.wrap = wrap
        self.add_special_tokens = add_special_tokens

    def __call__(self, **values: str) -> list[int]:
        """Token ids of the prompt filled with `values`, at most max_length of them.

        Raises RecipeError when the query leaves no room for the documents.
        """
        fields = [field for field in DOCUMENT_FIELDS if field in values]
        if self.max_document_length is not None:
            values |= {field: self._cut(values[field], self.max_document_length) for field in fields}
        ids = self._encode(values)
        if len(ids) <= self.max_length:
            return ids
        frame = len(self._encode({**values, **dict.fromkeys(fields, "")}))
        room = self.max_length - frame
        lengths = {field: self._length(values[field]) for field in fields}
        while room >= SMALLEST_CUT * len(fields):
            cut = {field: self._cut(values[field], keep) for field, keep in share(lengths, room).items()}
            ids = self._encode({**values, **cut})
            if len(ids) <= self.max_length:
                return ids
            room -= len(ids) - self.max_length  # a token more may arise where the cut text meets the prompt
        raise RecipeError(
            f"teacher.max_length {self.max_length} leaves no room for the documents beside a prompt and query of "
            f"{frame} tokens; raise it with --set teacher.max_length={2 * self.max_length}."
        )

    def _encode(self, values: dict[str, str]) -> list[int]:
        text = self.wrap(self.prompt.render(values))
        return self.tokenizer.encode(text, add_special_tokens=self.add_special_tokens)

    def _length(self, text: str) -> int:
        return len(self.tokenizer.encode(text, add_special_tokens=False))

    def _cut(self, text: str, keep: int) -> str:
        offsets = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return text if len(offsets) <= keep else text[: offsets[keep - 1][1]]


def share(lengths: dict[str, int], room: int) -> dict[str, int]:
    """Divide `room` tokens evenly; what a short document leaves goes to the others."""
    kept: dict[str, int] = {}
    for position, (field, length) in enumerate(sorted(lengths.items(), key=lambda item: item[1])):
        kept[field] = min(length, (room - sum(kept.values())) // (len(lengths) - position))
    return kept


def pack(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in batches, longest first, each of at most `budget` tokens padding included (one item at least)."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def score_packed(lengths: Sequence[int], budget: int, score: Callable[[list[int]], torch.Tensor]) -> Iterator[Scores]:
    """Score prompts in packed batches. score: the indices of B prompts -> (B,) float32."""
    for batch in pack(lengths, budget):
        yield list(zip(batch, score(batch).tolist(), strict=True))
