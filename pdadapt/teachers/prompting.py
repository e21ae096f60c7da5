"""Turn questions into token ids: documents are cut evenly, control tokens broken up, texts tokenised in a thread."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from pdadapt.errors import ModelError, RecipeError
from pdadapt.settings.prompt import Prompt
from pdadapt.teachers.control import Span, control_tokens, only_words
from pdadapt.teachers.marks import check_marks, mark_words
from pdadapt.teachers.turns import NO_TURNS, Turns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DOCUMENT_FIELDS = ("document", "document_a", "document_b")
MIN_DOCUMENT_TOKENS = 8  # a prompt must leave room for as many tokens of each document
LONGEST_QUERIES = 32  # so many queries with the most characters are taken to include the one with the most tokens

Item = TypeVar("Item")
Key = TypeVar("Key")


def label_ids(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> list[int]:
    """Return the token ids of the label words as the first token of an answer.

    Raises ModelError unless each is a single known token and all are distinct.
    """
    ids = [tokenizer.encode(word, add_special_tokens=False) for word in words]
    unknown = {tokenizer.unk_token_id} if tokenizer.unk_token_id is not None else set()
    if any(len(tokens) != 1 or tokens[0] in unknown for tokens in ids) or len({tokens[0] for tokens in ids}) < len(ids):
        encoded = ", ".join(f"{word!r} = {tokens}" for word, tokens in zip(words, ids, strict=True))
        raise ModelError(
            f"The label words must be single, distinct tokens of the teacher's tokenizer, but {encoded}. "
            "Choose other words with teacher.point.labels or teacher.pair.labels."
        )
    return [tokens[0] for tokens in ids]


class PromptEncoder:
    """Renders a prompt and tokenises it. If the result is too long, it cuts the documents evenly and nothing else."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt: Prompt,
        max_length: int,
        max_document_length: int | None = None,
        wrap: Callable[[str], str] = lambda text: text,
        add_special_tokens: bool = True,
        reserve: int = 0,
        turns: Turns = NO_TURNS,
    ):
        """Prepare to encode a prompt.

        max_length: tokens of a prompt with its answer. max_document_length: tokens kept of each document; None means no
        limit of its own.
        wrap: puts the rendered prompt into the model's chat format. turns: how that format opens turns.
        reserve: tokens kept free for an answer.
        """
        self.tokenizer = tokenizer
        self.control = control_tokens(tokenizer)
        self.prompt = prompt
        self.max_length = max_length - reserve
        self.reserve = reserve
        self.max_document_length = max_document_length
        self.wrap = wrap
        self.add_special_tokens = add_special_tokens
        self.turns = turns
        text = self._text(dict.fromkeys(prompt.fields, "a"))  # control tokens and turns of prompt and chat template
        self.frame_control = self.control.among(self._tokens([text])[0])
        self.frame_marks, self.frame_turns = turns.count_marks(text), turns.count_turns(text)

    def __call__(self, values: Sequence[Mapping[str, str]]) -> list[list[int]]:
        """Return the token ids of the prompt filled with each of `values`, at most max_length each.

        Raises RecipeError if a query leaves no room for the documents.
        """
        if self.max_document_length is not None:
            cut = functools.cache(functools.partial(cut_tokens, self.tokenizer, keep=self.max_document_length))
            values = [
                {field: cut(text) if field in DOCUMENT_FIELDS else text for field, text in filled.items()}
                for filled in values
            ]
        read = functools.cache(self.control.read)  # many questions contain the same document
        encoded = self._encode(values)
        return [
            ids if len(ids) <= self.max_length else self._fit(filled, read)
            for ids, filled in zip(encoded, values, strict=True)
        ]

    def check_queries(self, queries: Iterable[str]) -> None:
        """Raises RecipeError if a query leaves no room for the documents. Called before the work begins."""
        fields = dict.fromkeys((field for field in DOCUMENT_FIELDS if field in self.prompt.fields), "")
        for query in sorted(queries, key=len, reverse=True)[:LONGEST_QUERIES]:
            self._room({"query": query, **fields}, len(fields))

    def _room(self, frame: Mapping[str, str], documents: int) -> int:
        """Return the tokens left for the documents by the prompt `frame`, which holds none.

        Raises RecipeError if they are too few.
        """
        taken = len(self._encode([frame])[0])
        room = self.max_length - taken
        if room < MIN_DOCUMENT_TOKENS * documents:
            raise no_room(self.max_length + self.reserve, taken + self.reserve, documents)
        return room

    def _fit(self, values: Mapping[str, str], read_text: Callable[[str], tuple[str, list[Span]]]) -> list[int]:
        """Return the token ids of one prompt, with its documents cut evenly until it fits."""
        fields = [field for field in DOCUMENT_FIELDS if field in values]
        room = self._room({**values, **dict.fromkeys(fields, "")}, len(fields))
        read = {field: read_text(values[field]) for field in fields}
        lengths = {field: len(tokens) for field, (_, tokens) in read.items()}
        while True:
            cut = {field: first_tokens(*read[field], keep) for field, keep in share_tokens(lengths, room).items()}
            ids = self._encode([{**values, **cut}])[0]
            if len(ids) <= self.max_length:
                return ids
            room -= len(ids) - self.max_length  # the cut text and the prompt around it may form one token more

    def check(self) -> None:
        """Check that prompt, chat template and tokenizer keep all texts, even long ones and ones with control tokens.

        Called before the work begins, since no label would show the fault. Raises ModelError if a text is lost.
        """
        frame = self.wrap(self.prompt.render(dict.fromkeys(self.prompt.fields, "")))
        words = mark_words(self.tokenizer, len(self.prompt.fields), frame)
        marked = dict(zip(self.prompt.order, words, strict=True))
        control = " ".join(self.control.strings.values())
        long = {field: f"{word} " * self.max_length for field, word in marked.items() if field in DOCUMENT_FIELDS}
        prompts = self._encode([marked, {field: f"{word} {control}" for field, word in marked.items()}])
        for ids in (*prompts, *self([{**marked, **long}])):
            check_marks(self.tokenizer, words, ids, f"the prompt {self.prompt.source}")

    def _encode(self, values: Sequence[Mapping[str, str]]) -> list[list[int]]:
        """Return the token ids of filled prompts. Control tokens and turns come from prompt and chat template only."""
        texts = [self._text(filled) for filled in values]
        encoded = []
        for ids, text, filled in zip(self._tokens(texts), texts, values, strict=True):
            plain = self.control.among(ids) == self.frame_control and self._opens_no_turn(text)
            encoded.append(ids if plain else self._as_text(filled))
        return encoded

    def _opens_no_turn(self, text: str) -> bool:
        """Whether the texts in a filled prompt open no turn. Counting marks is faster, and enough for most texts."""
        return self.turns.count_marks(text) == self.frame_marks or self.turns.count_turns(text) == self.frame_turns

    def _as_text(self, values: Mapping[str, str]) -> list[int]:
        """Return the token ids of one prompt whose texts contain control tokens or open turns, with these broken up.

        Raises ModelError if the control tokens cannot be broken up.
        """
        for plain in (self.control.as_text, lambda text: self.control.as_text(self.turns.as_text(text)), only_words):
            text = self._text({field: plain(value) for field, value in values.items()})
            ids = self._tokens([text])[0]
            if self.control.among(ids) == self.frame_control and (plain is only_words or self._opens_no_turn(text)):
                return ids
        raise ModelError(
            f"{self.tokenizer.name_or_path} reads control tokens in a text that begins with "
            f"{next(iter(values.values()))[:60]!r}, even with spaces in them. Remove the text, or use another model."
        )

    def _text(self, values: Mapping[str, str]) -> str:
        return self.wrap(self.prompt.render(values))

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self.tokenizer(list(texts), add_special_tokens=self.add_special_tokens, verbose=False)
        ids: list[list[int]] = encoded["input_ids"]
        return ids


def no_room(max_length: int, taken: int, documents: int, about: str = "") -> RecipeError:
    """Return the error for a prompt and query that take too many tokens. about: a word before their number."""
    enough = max_length
    while enough < taken + MIN_DOCUMENT_TOKENS * documents:
        enough *= 2
    return RecipeError(
        f"teacher.max_length={max_length} leaves no room for the documents beside a prompt and query of {about}{taken} "
        f"tokens. Raise it with --set teacher.max_length={enough}."
    )


def cut_tokens(tokenizer: Any, text: str, keep: int) -> str:
    """Return the text of the first `keep` tokens, with control tokens broken up."""
    if len(text.encode()) < keep:  # a text has at most one token per byte, and one for a leading space
        return text
    return first_tokens(*control_tokens(tokenizer).read(text), keep)


def first_tokens(text: str, tokens: Sequence[Span], keep: int) -> str:
    """Return the text up to the end of its `keep`th token. tokens: the character spans of its tokens."""
    return text if len(tokens) <= keep else text[: tokens[keep - 1][1]] if keep > 0 else ""


def share_tokens(lengths: dict[Key, int], room: int) -> dict[Key, int]:
    """Divide `room` tokens evenly among texts of these lengths. What a short text does not need goes to the others."""
    kept: dict[Key, int] = {}
    for position, (field, length) in enumerate(sorted(lengths.items(), key=lambda item: item[1])):
        kept[field] = min(length, (room - sum(kept.values())) // (len(lengths) - position))
    return kept


def tokenised(
    chunks: Iterable[Sequence[Item]], encode: Callable[[Sequence[Item]], list[list[int]]]
) -> Iterator[tuple[Sequence[Item], list[list[int]]]]:
    """Yield (questions, prompts) of each chunk. A thread tokenises the next chunk while the caller works."""
    with ThreadPoolExecutor(1) as ahead:
        pending: list[tuple[Sequence[Item], Future[list[list[int]]]]] = []
        for chunk in chunks:
            pending.append((chunk, ahead.submit(encode, chunk)))
            if len(pending) > 1:
                questions, prompts = pending.pop(0)
                yield questions, prompts.result()
        for questions, prompts in pending:
            yield questions, prompts.result()
