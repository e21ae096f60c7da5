"""From questions to tokens: documents cut evenly to fit, no text a control token, tokenised ahead of the model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from pdadapt.errors import ModelError, RecipeError
from pdadapt.settings.prompt import Prompt
from pdadapt.teachers.control import Span, control_tokens, only_words
from pdadapt.teachers.marks import check_marks, marks
from pdadapt.teachers.turns import NO_TURNS, Turns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DOCUMENT_FIELDS = ("document", "document_a", "document_b")
SMALLEST_CUT = 8  # tokens of each document that must remain
LONGEST = 32  # queries, by letters, of which the one with the most tokens is among

Question = TypeVar("Question")
Key = TypeVar("Key")


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
        turns: Turns = NO_TURNS,
    ):
        """wrap: puts the rendered prompt into the model's chat format; reserve: tokens kept free for an answer; turns:
        how that format opens turns.
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
        text = self._text(dict.fromkeys(prompt.fields, "a"))
        self.own = self.control.among(self._tokens([text])[0])  # of prompt and template, as the turns
        self.alike, self.opened = turns.alike(text), turns.opened(text)

    def __call__(self, values: Sequence[Mapping[str, str]]) -> list[list[int]]:
        """Token ids of the prompt filled with each of `values`, at most max_length of them.

        Raises RecipeError when a query leaves no room for the documents.
        """
        if self.max_document_length is not None:
            cut = functools.cache(functools.partial(cut_tokens, self.tokenizer, keep=self.max_document_length))
            values = [
                {field: cut(text) if field in DOCUMENT_FIELDS else text for field, text in filled.items()}
                for filled in values
            ]
        read = functools.cache(self.control.read)  # a document stands in many questions
        encoded = self._encode(values)
        return [
            ids if len(ids) <= self.max_length else self._fit(filled, read)
            for ids, filled in zip(encoded, values, strict=True)
        ]

    def check_queries(self, queries: Iterable[str]) -> None:
        """Raises RecipeError when a query leaves no room for the documents: before the work, not in the middle."""
        fields = dict.fromkeys((field for field in DOCUMENT_FIELDS if field in self.prompt.fields), "")
        for query in sorted(queries, key=len, reverse=True)[:LONGEST]:
            self._room({"query": query, **fields}, len(fields))

    def _room(self, frame: Mapping[str, str], documents: int) -> int:
        """Tokens left for the documents by a prompt without them. Raises RecipeError when they are too few."""
        taken = len(self._encode([frame])[0])
        room = self.max_length - taken
        if room < SMALLEST_CUT * documents:
            raise no_room(self.max_length + self.reserve, taken + self.reserve, documents)
        return room

    def _fit(self, values: Mapping[str, str], read_text: Callable[[str], tuple[str, list[Span]]]) -> list[int]:
        """One prompt whose documents are cut evenly until it fits."""
        fields = [field for field in DOCUMENT_FIELDS if field in values]
        room = self._room({**values, **dict.fromkeys(fields, "")}, len(fields))
        read = {field: read_text(values[field]) for field in fields}
        lengths = {field: len(tokens) for field, (_, tokens) in read.items()}
        while True:
            cut = {field: first_tokens(*read[field], keep) for field, keep in share(lengths, room).items()}
            ids = self._encode([{**values, **cut}])[0]
            if len(ids) <= self.max_length:
                return ids
            room -= len(ids) - self.max_length  # a token more may arise where the cut text meets the prompt

    def check(self) -> None:
        """Raises ModelError unless marked texts come out of prompt, chat template and tokenizer as they went in, also
        when they are long, or hold control tokens: before the work, for no label would show it.
        """
        frame = self.wrap(self.prompt.render(dict.fromkeys(self.prompt.fields, "")))
        words = marks(self.tokenizer, len(self.prompt.fields), frame)
        marked = dict(zip(self.prompt.order, words, strict=True))
        control = " ".join(self.control.strings.values())
        long = {field: f"{word} " * self.max_length for field, word in marked.items() if field in DOCUMENT_FIELDS}
        prompts = self._encode([marked, {field: f"{word} {control}" for field, word in marked.items()}])
        for ids in (*prompts, *self([{**marked, **long}])):
            check_marks(self.tokenizer, words, ids, f"the prompt {self.prompt.source}")

    def _encode(self, values: Sequence[Mapping[str, str]]) -> list[list[int]]:
        """Token ids of filled prompts, with no control token and no turn but those of prompt and chat template."""
        texts = [self._text(filled) for filled in values]
        return [
            ids if self.control.among(ids) == self.own and self._opens_none(text) else self._as_text(filled)
            for ids, text, filled in zip(self._tokens(texts), texts, values, strict=True)
        ]

    def _opens_none(self, text: str) -> bool:
        """Whether no turn begins in the texts of a prompt; most hold nothing that looks like one."""
        return self.turns.alike(text) == self.alike or self.turns.opened(text) == self.opened

    def _as_text(self, values: Mapping[str, str]) -> list[int]:
        """One prompt, whose texts would be control tokens or open turns. Raises ModelError when nothing keeps them
        from being control tokens.
        """
        for plain in (self.control.as_text, lambda text: self.control.as_text(self.turns.as_text(text)), only_words):
            text = self._text({field: plain(value) for field, value in values.items()})
            ids = self._tokens([text])[0]
            if self.control.among(ids) == self.own and (plain is only_words or self._opens_none(text)):
                return ids
        raise ModelError(
            f"{self.tokenizer.name_or_path} takes a text that begins with {next(iter(values.values()))[:60]!r} for "
            "control tokens, however it is written. Take it out, or give another model."
        )

    def _text(self, values: Mapping[str, str]) -> str:
        return self.wrap(self.prompt.render(values))

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self.tokenizer(list(texts), add_special_tokens=self.add_special_tokens, verbose=False)
        ids: list[list[int]] = encoded["input_ids"]
        return ids


def no_room(max_length: int, taken: int, documents: int, about: str = "") -> RecipeError:
    """That prompt and query alone have `taken` tokens."""
    enough = max_length
    while enough < taken + SMALLEST_CUT * documents:
        enough *= 2
    return RecipeError(
        f"teacher.max_length {max_length} leaves no room for the documents beside a prompt and query of {about}{taken} "
        f"tokens; raise it with --set teacher.max_length={enough}."
    )


def cut_tokens(tokenizer: Any, text: str, keep: int) -> str:
    """The text's first `keep` tokens, as text, none of which is a control token."""
    if len(text.encode()) < keep:  # no tokenizer makes more tokens than bytes and a space before them
        return text
    return first_tokens(*control_tokens(tokenizer).read(text), keep)


def first_tokens(text: str, tokens: Sequence[Span], keep: int) -> str:
    """The text up to the `keep`th of its tokens, which stand where `tokens` says."""
    return text if len(tokens) <= keep else text[: tokens[keep - 1][1]] if keep > 0 else ""


def share(lengths: dict[Key, int], room: int) -> dict[Key, int]:
    """Divide `room` tokens evenly; what a short document leaves goes to the others."""
    kept: dict[Key, int] = {}
    for position, (field, length) in enumerate(sorted(lengths.items(), key=lambda item: item[1])):
        kept[field] = min(length, (room - sum(kept.values())) // (len(lengths) - position))
    return kept


def tokenised(
    chunks: Iterable[Sequence[Question]], encode: Callable[[Sequence[Question]], list[list[int]]]
) -> Iterator[tuple[Sequence[Question], list[list[int]]]]:
    """(questions, prompts) of a chunk at a time, tokenised in a thread ahead of the caller's work."""
    with ThreadPoolExecutor(1) as ahead:
        pending: list[tuple[Sequence[Question], Future[list[list[int]]]]] = []
        for chunk in chunks:
            pending.append((chunk, ahead.submit(encode, chunk)))
            if len(pending) > 1:
                questions, prompts = pending.pop(0)
                yield questions, prompts.result()
        for questions, prompts in pending:
            yield questions, prompts.result()
