"""Cross-encoder teachers: sentence-transformers' CrossEncoder, whose raw logit is the score.

MiniLM and its like judge points. One that `pdadapt train-reranker` fitted to pairs judges those: its second text is
both documents, its logit the log-odds that the first is the more relevant. Which it is, its config.json says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import torch

from pdadapt.errors import ModelError, RecipeError
from pdadapt.models.device import default_device, pick_dtype
from pdadapt.models.encoders import settle
from pdadapt.models.memory import Budget
from pdadapt.models.source import ModelSource, has_modules, loading, resolve_model
from pdadapt.settings.schema import ModelSettings
from pdadapt.teachers.base import Chunk, Pair, Point, Scores, Task
from pdadapt.teachers.control import Span, control_tokens
from pdadapt.teachers.kind import TASK
from pdadapt.teachers.language_model import load_tokenizer
from pdadapt.teachers.marks import check_marks, marks
from pdadapt.teachers.precision import float32_behind_body
from pdadapt.teachers.prompting import LONGEST, SMALLEST_CUT, first_tokens, share

CPU_BUDGET, GPU_BUDGET = 2_048, 131_072  # tokens at once, padding included

Texts = tuple[str, str]  # as the model reads them


class CrossEncoderTeacher:
    def __init__(self, settings: ModelSettings):
        """Raises ModelError when the model does not load, has several outputs, or does not read its texts."""
        from sentence_transformers import CrossEncoder

        source = resolve_model(settings.model)
        device = default_device()
        dtype = pick_dtype(settings.dtype, device)
        weights = {"use_safetensors": True, "dtype": dtype}
        with loading(f"Teacher {source.name!r} does not load as a cross_encoder"):
            self.model = CrossEncoder(
                source.place, revision=source.commit, model_kwargs=weights, device=device.type, num_labels=None
            )
        if self.model.num_labels != 1:
            raise ModelError(f"Teacher {source.name!r} has {self.model.num_labels} outputs; a point teacher has one.")
        settle(self.model, source, "Teacher", unused=())
        float32_behind_body(self.model, dtype)
        self.max_document_length = settings.max_document_length
        self.model.max_length = min(self.model.max_length or settings.max_length, settings.max_length)
        task: Task = "pair" if getattr(self.model.config, TASK, "point") == "pair" else "point"
        with loading(f"Teacher {source.name!r} cannot be asked"):
            self.length = check_reading(self._read, self.model.tokenizer, task, self.model.max_length)
        self.budget = Budget(
            f"teacher {settings.model}", settings.batch_tokens or (GPU_BUDGET if device.type == "cuda" else CPU_BUDGET)
        )

    def score_points(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        """Raw logits: a sigmoid would flatten the distribution that the student learns."""
        yield from self._score(chunks)

    def score_pairs(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        """Log-odds that document a is the more relevant (PairDistill, section 4.1)."""
        yield from self._score(chunks)

    def _read(self, texts: Texts) -> list[int]:
        prompt = self.model.prompts.get(self.model.default_prompt_name)
        ids: list[int] = self.model.preprocess([texts], prompt=prompt)["input_ids"][0].tolist()
        return ids

    def _score(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        for chunk in chunks:
            yield from self._score_chunk(chunk.asked)

    def _score_chunk(self, asked: Sequence[Any]) -> Iterator[Scores]:
        letters = {question: sum(map(len, question)) for question in asked}
        ordered = sorted(asked, key=lambda question: (-letters[question], question))
        costs = [min(letters[question] // 4 + 8, self.model.max_length) for question in ordered]  # tokens, about

        reading = Reading(self.model.tokenizer)

        def score(batch: range) -> torch.Tensor:
            reading.ahead({text for i in batch for text in ordered[i]})
            return self.model.predict(
                [cut(self.model.tokenizer, ordered[i], self.length, self.max_document_length, reading) for i in batch],
                batch_size=len(batch),
                activation_fn=torch.nn.Identity(),
                show_progress_bar=False,
                convert_to_tensor=True,
            )

        for batch, scores in self.budget.batches(costs, score, padded=True):
            yield [(ordered[i], value) for i, value in zip(batch, scores.float().tolist(), strict=True)]


class Reading:
    """Texts as `ControlTokens.read` gives them, those that are known beforehand at once: each is tokenised once."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.control = control_tokens(tokenizer)
        self.known: dict[str, tuple[str, list[Span]]] = {}

    def ahead(self, texts: Collection[str]) -> None:
        """Read those of the texts that are not known."""
        new = sorted(text for text in texts if text not in self.known)
        if not new:
            return
        encoded = self.tokenizer(new, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        for text, ids, tokens in zip(new, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            self.known[text] = self.control.read(text) if self.control.among(ids) else (text, tokens)

    def __call__(self, text: str) -> tuple[str, list[Span]]:
        return self.known.get(text) or self.control.read(text)


def cut(
    tokenizer: Any,
    question: Any,
    max_length: int,
    max_document_length: int | None = None,
    read: Reading | None = None,
) -> Texts:
    """A question's texts, the documents cut to fit `max_length` tokens; read: what is known of the texts."""
    if isinstance(question, Pair):
        return join(tokenizer, question, max_length, max_document_length, read)
    query, (document,) = fit(tokenizer, question.query, [question.document], max_length, max_document_length, read)
    return query, document


def fit(
    tokenizer: Any,
    query: str,
    documents: Sequence[str],
    max_length: int,
    max_document_length: int | None = None,
    read: Reading | None = None,
) -> tuple[str, list[str]]:
    """The query, which stays whole, and documents cut evenly to fit beside it with a separator between each two.

    No part of them is a control token. Raises RecipeError when the query leaves them no room.
    """
    read = read or Reading(tokenizer)
    query, asked = read(query)
    taken = len(asked) + tokenizer.num_special_tokens_to_add(pair=True)
    room = max_length - taken - (len(documents) - 1)
    if room < SMALLEST_CUT * len(documents):
        raise RecipeError(
            f"{max_length} tokens leave no room for the documents beside a query of {taken}; shorten it, or raise "
            "max_length where the model reads more."
        )
    found = [read(text) for text in documents]
    kept = share({i: min(len(tokens), max_document_length or room) for i, (_, tokens) in enumerate(found)}, room)
    return query, [first_tokens(text, tokens, kept[i]) for i, (text, tokens) in enumerate(found)]


def join(
    tokenizer: Any,
    pair: Pair,
    max_length: int,
    max_document_length: int | None = None,
    read: Reading | None = None,
) -> Texts:
    """(query, both documents around the tokenizer's separator), the documents cut evenly to fit `max_length` tokens."""
    documents = (pair.document_a, pair.document_b)
    query, (first, second) = fit(tokenizer, pair.query, documents, max_length, max_document_length, read)
    return query, f"{first} {tokenizer.sep_token} {second}"


def check_reading(read: Callable[[Texts], list[int]], tokenizer: Any, task: Task, max_length: int) -> int:
    """Raises ModelError unless marked texts are read as they are, also when they are long, or hold control tokens.

    read: what tokens a model makes of its texts. Returns what is left of max_length for texts and the tokenizer's own
    special tokens, where a chat template puts more around them.
    """
    control = control_tokens(tokenizer)
    kind: type[Point | Pair] = Pair if task == "pair" else Point
    words = marks(tokenizer, len(kind._fields))
    left = max_length - len(read(("a", "a"))) + len(tokenizer("a", "a")["input_ids"])
    strings = list(control.strings.values())
    markup, long = " ".join(strings), f"{words[-1]} " * max_length
    own = []
    for query, document in (("", ""), (" ".join(strings[:2]), markup), ("", long)):
        asked = (f"{words[0]} {query}", *(f"{word} {document}" for word in words[1:]))
        ids = read(cut(tokenizer, kind(*asked), left))
        check_marks(tokenizer, words, ids, "a query with its documents")
        own.append(control.among(ids))
    if own[1:] != own[:-1]:
        raise ModelError(
            f"{tokenizer.name_or_path} takes texts for control tokens, however they are written. Give another model."
        )
    return left


def check_prompt(settings: ModelSettings, task: Task, queries: Collection[str]) -> None:
    """What of a teacher's reading shows without its weights. Raises ModelError when it does not read its texts,
    RecipeError when a query leaves no room for them.
    """
    source, tokenizer = resolve_model(settings.model), load_tokenizer(settings.model)
    longest = min(tokenizer.model_max_length, settings.max_length)
    left = check_reading(reader(source, tokenizer), tokenizer, task, longest)
    for query in sorted(queries, key=len, reverse=True)[:LONGEST]:
        fit(tokenizer, query, ["", ""] if task == "pair" else [""], left)


def reader(source: ModelSource, tokenizer: Any) -> Callable[[Texts], list[int]]:
    """What tokens sentence-transformers will make of a pair of texts: by the chat template, if the model has one."""
    from sentence_transformers.base.modules import Transformer

    saved = Transformer.load_config(source.place, revision=source.commit) if has_modules(source) else {}
    if not tokenizer.chat_template or "message" not in saved.get("modality_config", ["message"]):
        return lambda texts: list(tokenizer(*texts, verbose=False)["input_ids"])

    def read(texts: Texts) -> list[int]:
        rendered = ""
        for shape in (str, lambda text: [{"type": "text", "text": text}]):
            messages = [
                {"role": role, "content": shape(text)} for role, text in zip(("query", "document"), texts, strict=True)
            ]
            rendered = str(tokenizer.apply_chat_template(messages, tokenize=False))
            if all(text in rendered for text in texts):
                break
        return list(tokenizer(rendered, add_special_tokens=False, verbose=False)["input_ids"])

    return read
