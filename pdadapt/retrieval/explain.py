"""Try a retriever by hand: show the passages for a query, with the words that MaxSim matched."""

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

MATCHABLE_WORD = regex.compile(rf"(?V1)[{UNSPACED_SCRIPTS}]\p{{M}}*|[[\w\p{{M}}]--[{UNSPACED_SCRIPTS}]]+")
# A piece is a word, or a similar amount of text.
EXCERPT_PIECE = regex.compile(rf"(?V1)[{UNSPACED_SCRIPTS}]{{1,3}}|[\S--[{UNSPACED_SCRIPTS}]]{{1,40}}")
EXCERPT_PIECES = 60  # pieces of a passage that are shown

CharSpan = tuple[int, int]  # start and end, in characters


class SearchHit(NamedTuple):
    """A document that was retrieved."""

    document: Document
    score: float
    matched: list[CharSpan]  # words of its contents


class Searcher:
    """A model with its index of a corpus. The index is kept in a folder for the next time."""

    def __init__(
        self,
        name: str,
        dataset: Dataset,
        root: Path,
        student: Mapping[str, Any],
        settings: RetrieveSettings,
        progress: Progress,
    ):
        """Load the model (or `bm25`), and index the corpus unless `root` already holds the index.

        student: the student's settings that the user asked for (see load_engine). Raises ModelError if the model
        cannot be loaded.
        """
        self.dataset = dataset
        self.engine, self.folder = open_index(last_checkpoint(name), dataset, student, settings, root, progress)

    def __call__(self, query: str, k: int) -> list[SearchHit]:
        """Return the k best documents, best first."""
        quiet = Progress(console(quiet=True))
        ranked = retrieve(self.engine, self.dataset.corpus, {"": query}, self.folder, k, quiet)[""]
        documents = [self.dataset.corpus[doc_id] for doc_id, _ in ranked]
        return [
            SearchHit(document, score, self._matched(query, document.contents))
            for document, (_, score) in zip(documents, ranked, strict=True)
        ]

    def _matched(self, query: str, text: str) -> list[CharSpan]:
        engine = self.engine.encoder if isinstance(self.engine, Plaid) else self.engine
        return matched_words(engine.model, query, text) if isinstance(engine, (Exact, Colbert)) else []


def matched_words(model: Any, query: str, text: str) -> list[CharSpan]:
    """Return the words of the text that contain the most similar token of some query token.

    The list is empty for a model with one vector per text.
    """
    query_tokens, query_words, _ = _encode(model, query, "query")
    tokens, words, spans = _encode(model, text, "document")
    if len(spans) != len(tokens):
        return []
    similarities = (query_tokens[query_words] @ tokens.T).masked_fill(~words, -1.0)
    best = {spans[column] for column in similarities.argmax(1).tolist()}
    return [
        word.span()
        for word in MATCHABLE_WORD.finditer(text)
        if any(start < word.end() and word.start() < end for start, end in best)
    ]


def _encode(model: Any, text: str, task: str) -> tuple[Any, Any, list[CharSpan]]:
    """Return token embeddings (tokens, dim), a mask of those that are words of the text, and each token's characters.

    The characters are an empty list if the model's tokens do not correspond to the embeddings.
    """
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


def show_hits(hits: Sequence[SearchHit]) -> RenderableType:
    """Return a table of ranked passages. Each excerpt is the part with the most matched words, which are set off."""
    if not hits:
        return plain("Nothing found.")
    table = WholeTable("", Name(), box=None, show_header=False, padding=(0, 1, 1, 0))
    for rank, hit in enumerate(hits, 1):
        heading = plain(f"{hit.document.doc_id}  {hit.score:.3f}", "dim")
        table.add_row(f"{rank}.", Group(heading, excerpt(hit)))
    return table


def side_by_side(base: Sequence[SearchHit], other: Sequence[SearchHit], names: tuple[str, str]) -> RenderableType:
    """Return a table of two rankings of one query. Each document is shown with its rank in the other ranking."""
    table = WholeTable("", *map(Name, map(plain, names)), show_lines=True)
    ranks = [{hit.document.doc_id: rank for rank, hit in enumerate(hits, 1)} for hits in (base, other)]
    for row in range(max(len(base), len(other))):
        cells: list[RenderableType] = []
        for hits, other_ranks in ((base, ranks[1]), (other, ranks[0])):
            if row >= len(hits):
                cells.append("")
                continue
            hit = hits[row]
            rank = other_ranks.get(hit.document.doc_id)
            there = f"there {rank}" if rank else "not there"
            cells.append(Group(plain(f"{hit.document.doc_id}  {hit.score:.3f}  ({there})", "dim"), excerpt(hit)))
        table.add_row(f"{row + 1}.", *cells)
    return table


def excerpt(hit: SearchHit) -> Text:
    """Return at most EXCERPT_PIECES pieces of the contents: the part with the most matches."""
    contents = hit.document.contents
    spans = [piece.span() for piece in EXCERPT_PIECE.finditer(contents)]
    matches = [any(start < end_ and begin < end for begin, end_ in hit.matched) for start, end in spans]
    last = max(0, len(spans) - EXCERPT_PIECES)
    first = max(range(last + 1), key=lambda i: (sum(matches[i : i + EXCERPT_PIECES]), -i))
    window = spans[first : first + EXCERPT_PIECES]
    if not window:
        return Text()
    start, end = window[0][0], window[-1][1]
    text = Text("… " if first else "")
    for begin, stop in sorted(hit.matched):
        if start <= begin and stop <= end:
            text.append(plain(contents[start:begin])).append(plain(contents[begin:stop], "bold green"))
            start = stop
    return text.append(plain(contents[start:end])).append(" …" if first < last else "")
