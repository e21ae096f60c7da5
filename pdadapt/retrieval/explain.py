"""A retriever tried by hand: passages of a query, with the words that MaxSim matched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import regex
from rich.console import Group, RenderableType
from rich.text import Text

from pdadapt.data.corpus import Dataset, Document
from pdadapt.data.words import UNSPACED_SCRIPTS
from pdadapt.retrieval.engines.colbert import Colbert
from pdadapt.retrieval.engines.exact import Exact
from pdadapt.retrieval.engines.plaid import Plaid
from pdadapt.retrieval.search import open_index, retrieve
from pdadapt.runs.folder import last_checkpoint
from pdadapt.runtime.progress import Progress
from pdadapt.runtime.terminal import Name, WholeTable, console, plain
from pdadapt.settings.schema import RetrieveSettings

WORD = regex.compile(rf"(?V1)[{UNSPACED_SCRIPTS}]\p{{M}}*|[[\w\p{{M}}]--[{UNSPACED_SCRIPTS}]]+")
PIECE = regex.compile(
    rf"(?V1)[{UNSPACED_SCRIPTS}]{{1,3}}|[\S--[{UNSPACED_SCRIPTS}]]{{1,40}}"
)  # a word, or as much text as one
SHOWN = 60  # pieces of a passage

Span = tuple[int, int]  # of characters: start, end


class Found(NamedTuple):
    document: Document
    score: float
    matched: list[Span]  # of its contents


class Searcher:
    """A model with its index of a corpus, kept in a folder for the next time."""

    def __init__(
        self,
        name: str,
        dataset: Dataset,
        root: Path,
        student: Mapping[str, Any],
        settings: RetrieveSettings,
        progress: Progress,
    ):
        """Loads the model (or `bm25`) and indexes the corpus, unless its index is kept under `root`.

        Raises ModelError when the model does not load.
        """
        self.dataset = dataset
        self.engine, self.folder = open_index(last_checkpoint(name), dataset, student, settings, root, progress)

    def __call__(self, query: str, k: int) -> list[Found]:
        """The k best documents, best first."""
        quiet = Progress(console(quiet=True))
        ranked = retrieve(self.engine, self.dataset.corpus, {"": query}, self.folder, k, quiet)[""]
        documents = [self.dataset.corpus[doc_id] for doc_id, _ in ranked]
        return [
            Found(document, score, self._matched(query, document.contents))
            for document, (_, score) in zip(documents, ranked, strict=True)
        ]

    def _matched(self, query: str, text: str) -> list[Span]:
        engine = self.engine.encoder if isinstance(self.engine, Plaid) else self.engine
        return matched_words(engine.model, query, text) if isinstance(engine, (Exact, Colbert)) else []


def matched_words(model: Any, query: str, text: str) -> list[Span]:
    """The words of the text that hold a query token's most similar token; none of a model with one vector a text."""
    tokens, mask, _ = _encode(model, query, "query")
    known, counted, spans = _encode(model, text, "document")
    if len(spans) != len(known):
        return []
    similarities = (tokens[mask] @ known.T).masked_fill(~counted, -1.0)
    best = {spans[column] for column in similarities.argmax(1).tolist()}
    return [
        word.span()
        for word in WORD.finditer(text)
        if any(start < word.end() and word.start() < end for start, end in best)
    ]


def _encode(model: Any, text: str, task: str) -> tuple[Any, Any, list[Span]]:
    """(embeddings, which of them are words of the text, the characters that each stands for)."""
    import torch

    prompt = model.prompts.get(task) or ""
    features = model.preprocess([text], prompt=prompt or None, task=task)
    ids = features["input_ids"][0]
    with torch.no_grad():
        output = model(
            {key: value.to(model.device) for key, value in features.items() if hasattr(value, "to")}, task=task
        )
    tokens, mask = output["token_embeddings"][0].float().cpu(), output["attention_mask"][0].bool().cpu()
    if len(tokens) != len(ids):
        return tokens, mask, []
    words = mask & ~torch.isin(ids.cpu(), torch.tensor(model.tokenizer.all_special_ids))
    plain = model.tokenizer(prompt + text, return_offsets_mapping=True, truncation=True, max_length=len(ids))
    shift = len(prompt)
    spans = [(start - shift, end - shift) for start, end in plain["offset_mapping"]]
    return tokens, words, spans


def show(found: Sequence[Found]) -> RenderableType:
    """Ranked passages, matched words set off, each around where most of them stand."""
    if not found:
        return plain("Nothing is found.")
    table = WholeTable("", Name(), box=None, show_header=False, padding=(0, 1, 1, 0))
    for rank, one in enumerate(found, 1):
        heading = plain(f"{one.document.doc_id}  {one.score:.3f}", "dim")
        table.add_row(f"{rank}.", Group(heading, excerpt(one)))
    return table


def side_by_side(base: Sequence[Found], other: Sequence[Found], names: tuple[str, str]) -> RenderableType:
    """Two rankings of one query: rank by rank, with where the other has each document."""
    table = WholeTable("", *map(Name, map(plain, names)), show_lines=True)
    places = [{one.document.doc_id: rank for rank, one in enumerate(found, 1)} for found in (base, other)]
    for row in range(max(len(base), len(other))):
        cells: list[RenderableType] = []
        for found, elsewhere in ((base, places[1]), (other, places[0])):
            if row >= len(found):
                cells.append("")
                continue
            one = found[row]
            rank = elsewhere.get(one.document.doc_id)
            there = f"there {rank}" if rank else "not there"
            cells.append(Group(plain(f"{one.document.doc_id}  {one.score:.3f}  ({there})", "dim"), excerpt(one)))
        table.add_row(f"{row + 1}.", *cells)
    return table


def excerpt(found: Found) -> Text:
    """At most SHOWN pieces of the contents, those with the most matches."""
    contents = found.document.contents
    spans = [piece.span() for piece in PIECE.finditer(contents)]
    hits = [any(start < end_ and begin < end for begin, end_ in found.matched) for start, end in spans]
    last = max(0, len(spans) - SHOWN)
    first = max(range(last + 1), key=lambda i: (sum(hits[i : i + SHOWN]), -i))
    window = spans[first : first + SHOWN]
    if not window:
        return Text()
    start, end = window[0][0], window[-1][1]
    text = Text("… " if first else "")
    for begin, stop in sorted(found.matched):
        if start <= begin and stop <= end:
            text.append(plain(contents[start:begin])).append(plain(contents[begin:stop], "bold green"))
            start = stop
    return text.append(plain(contents[start:end])).append(" …" if first < last else "")
