"""Cross-encoder teachers: sentence-transformers' CrossEncoder. The raw logit is the score.

Published cross-encoders (MiniLM) judge points. A model that `pdadapt train-reranker` fitted to pairs judges pairs: its
second text holds both documents, and its logit is the log-odds that the first document is more relevant. The model's
config.json says which task it judges.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import torch

from pdadapt.errors import ModelError, RecipeError
from pdadapt.models.device import default_device, pick_dtype
from pdadapt.models.encoders import prepare_encoder
from pdadapt.models.source import ModelSource, has_modules, resolve_model, translate_errors
from pdadapt.models.token_budget import TokenBudget
from pdadapt.settings.schema import ModelSettings
from pdadapt.teachers.base import Chunk, Pair, Point, Scores, Task
from pdadapt.teachers.control import Span, control_tokens
from pdadapt.teachers.kind import TASK_KEY
from pdadapt.teachers.language_model import load_tokenizer
from pdadapt.teachers.marks import check_marks, mark_words
from pdadapt.teachers.precision import float32_behind_body
from pdadapt.teachers.prompting import LONGEST_QUERIES, MIN_DOCUMENT_TOKENS, first_tokens, share_tokens

CROSS_ENCODER_CPU_TOKENS, CROSS_ENCODER_GPU_TOKENS = 2_048, 131_072  # tokens per batch, padding included

TextPair = tuple[str, str]  # the model's first and second text


class CrossEncoderTeacher:
    """A teacher for points, or for pairs if the model was fitted to them."""

    def __init__(self, settings: ModelSettings):
        """Load the model.

        Raises ModelError if it cannot be loaded, has several outputs, or loses a part of its texts.
        """
        from sentence_transformers import CrossEncoder

        source = resolve_model(settings.model)
        device = default_device()
        dtype = pick_dtype(settings.dtype, device)
        weights = {"use_safetensors": True, "dtype": dtype}
        with translate_errors(f"Teacher {source.name!r} does not load as a cross_encoder"):
            self.model = CrossEncoder(
                source.place, revision=source.commit, model_kwargs=weights, device=device.type, num_labels=None
            )
        if self.model.num_labels != 1:
            raise ModelError(
                f"Teacher {source.name!r} has {self.model.num_labels} outputs, but a point teacher has one. Use a "
                "model with one output."
            )
        prepare_encoder(self.model, source, "Teacher", unused=())
        float32_behind_body(self.model, dtype)
        self.max_document_length = settings.max_document_length
        self.model.max_length = min(self.model.max_length or settings.max_length, settings.max_length)
        task: Task = "pair" if getattr(self.model.config, TASK_KEY, "point") == "pair" else "point"
        with translate_errors(f"Teacher {source.name!r} cannot be asked"):
            self.length = check_reading(self._read, self.model.tokenizer, task, self.model.max_length)
        tokens = CROSS_ENCODER_GPU_TOKENS if device.type == "cuda" else CROSS_ENCODER_CPU_TOKENS
        self.budget = TokenBudget(f"teacher {settings.model}", settings.batch_tokens or tokens)

    def score_points(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        """Yield raw logits. A sigmoid would flatten the distribution that the student learns."""
        yield from self._score(chunks)

    def score_pairs(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        """Yield the log-odds that document a is more relevant than document b (PairDistill, section 4.1)."""
        yield from self._score(chunks)

    def _read(self, texts: TextPair) -> list[int]:
        prompt = self.model.prompts.get(self.model.default_prompt_name)
        ids: list[int] = self.model.preprocess([texts], prompt=prompt)["input_ids"][0].tolist()
        return ids

    def _score(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        for chunk in chunks:
            yield from self._score_chunk(chunk.asked)

    def _score_chunk(self, asked: Sequence[Any]) -> Iterator[Scores]:
        characters = {question: sum(map(len, question)) for question in asked}
        ordered = sorted(asked, key=lambda question: (-characters[question], question))
        costs = [min(characters[question] // 4 + 8, self.model.max_length) for question in ordered]  # tokens, estimated
        read = TextReader(self.model.tokenizer)
        lengths = self.length, self.max_document_length

        def score(batch: range) -> torch.Tensor:
            read.ahead({text for i in batch for text in ordered[i]})
            return self.model.predict(
                [cut_question(self.model.tokenizer, ordered[i], *lengths, read) for i in batch],
                batch_size=len(batch),
                activation_fn=torch.nn.Identity(),
                show_progress_bar=False,
                convert_to_tensor=True,
            )

        for batch, scores in self.budget.batches(costs, score, padded=True):
            yield [(ordered[i], value) for i, value in zip(batch, scores.float().tolist(), strict=True)]


class TextReader:
    """Reads texts as `ControlTokens.read` does, but tokenises many texts at once and each text only once."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.control = control_tokens(tokenizer)
        self.known: dict[str, tuple[str, list[Span]]] = {}

    def ahead(self, texts: Collection[str]) -> None:
        """Tokenise the texts that were not read before."""
        new = sorted(text for text in texts if text not in self.known)
        if not new:
            return
        encoded = self.tokenizer(new, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        for text, ids, tokens in zip(new, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            self.known[text] = self.control.read(text) if self.control.among(ids) else (text, tokens)

    def __call__(self, text: str) -> tuple[str, list[Span]]:
        return self.known.get(text) or self.control.read(text)


def cut_question(
    tokenizer: Any,
    question: Any,
    max_length: int,
    max_document_length: int | None = None,
    read: TextReader | None = None,
) -> TextPair:
    """Return the model's two texts for a question. Documents are cut until both texts fit in `max_length` tokens.

    max_document_length: tokens kept of each document; None means no limit of its own.
    read: the texts tokenised so far; None means none.
    Raises RecipeError if the query leaves no room for the documents.
    """
    if isinstance(question, Pair):
        return join_pair(tokenizer, question, max_length, max_document_length, read)
    lengths = max_length, max_document_length
    query, (document,) = cut_texts(tokenizer, question.query, [question.document], *lengths, read)
    return query, document


def cut_texts(
    tokenizer: Any,
    query: str,
    documents: Sequence[str],
    max_length: int,
    max_document_length: int | None = None,
    read: TextReader | None = None,
) -> tuple[str, list[str]]:
    """Return the whole query, and the documents cut evenly to the room that is left in `max_length` tokens.

    There is room for one separator between two documents. Control tokens in the texts are broken up. Raises RecipeError
    if the query leaves no room for the documents.
    """
    read = read or TextReader(tokenizer)
    query, query_tokens = read(query)
    taken = len(query_tokens) + tokenizer.num_special_tokens_to_add(pair=True)
    room = max_length - taken - (len(documents) - 1)
    if room < MIN_DOCUMENT_TOKENS * len(documents):
        raise RecipeError(
            f"{max_length} tokens leave no room for the documents beside a query of {taken} tokens. Shorten the query, "
            "or raise max_length if the model reads more."
        )
    texts = [read(text) for text in documents]
    kept = share_tokens({i: min(len(tokens), max_document_length or room) for i, (_, tokens) in enumerate(texts)}, room)
    return query, [first_tokens(text, tokens, kept[i]) for i, (text, tokens) in enumerate(texts)]


def join_pair(
    tokenizer: Any,
    pair: Pair,
    max_length: int,
    max_document_length: int | None = None,
    read: TextReader | None = None,
) -> TextPair:
    """Return (query, both documents with the separator token between them), cut as `cut_texts` does."""
    documents = (pair.document_a, pair.document_b)
    query, (first, second) = cut_texts(tokenizer, pair.query, documents, max_length, max_document_length, read)
    return query, f"{first} {tokenizer.sep_token} {second}"


def check_reading(read: Callable[[TextPair], list[int]], tokenizer: Any, task: Task, max_length: int) -> int:
    """Check that a model reads its texts completely, even if they are long or contain control tokens.

    read: returns the token ids that the model reads for a pair of texts.
    Returns max_length without the tokens that a chat template adds. Raises ModelError if a text is lost.
    """
    control = control_tokens(tokenizer)
    kind: type[Point | Pair] = Pair if task == "pair" else Point
    words = mark_words(tokenizer, len(kind._fields))
    left = max_length - len(read(("a", "a"))) + len(tokenizer("a", "a")["input_ids"])
    strings = list(control.strings.values())
    markup, long = " ".join(strings), f"{words[-1]} " * max_length
    control_ids = []
    for query, document in (("", ""), (" ".join(strings[:2]), markup), ("", long)):
        texts = (f"{words[0]} {query}", *(f"{word} {document}" for word in words[1:]))
        ids = read(cut_question(tokenizer, kind(*texts), left))
        check_marks(tokenizer, words, ids, "a query with its documents")
        control_ids.append(control.among(ids))
    if control_ids[1:] != control_ids[:-1]:  # the texts must add none
        raise ModelError(
            f"{tokenizer.name_or_path} reads parts of texts as control tokens, even with spaces in them. Use another "
            "model."
        )
    return left


def check_prompt(settings: ModelSettings, task: Task, queries: Collection[str]) -> None:
    """Check how a cross-encoder reads its texts, without loading its weights.

    Raises ModelError if it loses a part of its texts, RecipeError if a query leaves no room for the documents.
    """
    source, tokenizer = resolve_model(settings.model), load_tokenizer(settings.model)
    longest = min(tokenizer.model_max_length, settings.max_length)
    left = check_reading(token_reader(source, tokenizer), tokenizer, task, longest)
    for query in sorted(queries, key=len, reverse=True)[:LONGEST_QUERIES]:
        cut_texts(tokenizer, query, ["", ""] if task == "pair" else [""], left)


def token_reader(source: ModelSource, tokenizer: Any) -> Callable[[TextPair], list[int]]:
    """Return the function from a pair of texts to the token ids that sentence-transformers will compute.

    A model with a chat template is given its texts through it.
    """
    from sentence_transformers.base.modules import Transformer

    saved = Transformer.load_config(source.place, revision=source.commit) if has_modules(source) else {}
    if not tokenizer.chat_template or "message" not in saved.get("modality_config", ["message"]):
        return lambda texts: list(tokenizer(*texts, verbose=False)["input_ids"])

    def read(texts: TextPair) -> list[int]:
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
