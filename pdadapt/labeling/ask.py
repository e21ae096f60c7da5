"""Ask a teacher the questions that the label store cannot answer, chunk by chunk, and store the answers."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pdadapt.errors import ModelError
from pdadapt.labeling.guard import ScoreGuard
from pdadapt.labeling.journal import Journal
from pdadapt.labeling.store import LabelStore
from pdadapt.runtime.progress import Progress
from pdadapt.teachers.base import QUESTIONS_PER_CHUNK, Chunk, Question, Score

TARGET_CHUNKS, MIN_CHUNK_QUESTIONS = 64, 256  # small sets of questions make fewer chunks, of at least this size


class Questions(NamedTuple):
    """The questions for a teacher, divided into chunks."""

    chunks: Sequence[tuple[Sequence[str], int]]  # ids of queries or of documents; approximate number of questions
    questions_about: Callable[[Sequence[str]], Iterable[Question]]  # questions about a chunk's ids, perhaps repeated

    def shard(self, number: int, shards: int) -> Questions:
        """Return every `shards`-th chunk, starting with chunk `number` (1, 2, ...)."""
        return self._replace(chunks=self.chunks[number - 1 :: shards])


class ChunkStream(Iterator[Chunk]):
    """Chunks that are made when they are needed."""

    def __init__(self, chunks: Iterator[Chunk], max_chunks: int):
        self._chunks = chunks
        self._max_chunks = max_chunks

    def __next__(self) -> Chunk:
        return next(self._chunks)

    def __length_hint__(self) -> int:
        """Return the highest possible number of chunks. A Ray cluster sizes its work by it."""
        return self._max_chunks


def ask_missing(
    questions: Questions,
    store: LabelStore,
    load: Callable[[], Score],
    progress: Progress,
    name: str,
    journal: Journal | None = None,
) -> int:
    """Ask the teacher every question that the store cannot answer. Each batch of answers is committed at once.

    A question that gets an answer is asked once. A question without an answer may be asked again for each chunk that
    contains it.

    load: returns the teacher's scoring method. It is called only if there is something to ask. journal: records the
    progress under `name`.

    Returns how many answers were missing when the work was first begun. Raises ModelError when scores cannot be right
    (not finite, or see ScoreGuard), or when the teacher stops before it has scored every question.
    """
    journal = journal or Journal()
    pending: dict[Question, int] = {}  # questions put to the teacher -> chunk number
    pending_of_chunk: Counter[int] = Counter()
    unanswered: Counter[int] = Counter()  # by chunk number
    with progress.task(name, sum(size for _, size in questions.chunks), "prompts") as advance:

        def chunks() -> Iterator[Chunk]:
            for number, (ids, size) in enumerate(questions.chunks):
                if journal.done(name, number):
                    advance(size, earlier=True)
                    continue
                distinct = sorted(set(questions.questions_about(ids)))
                asked = [question for question in distinct if question not in pending and store.get(question) is None]
                journal.begin(name, number, len(asked))
                advance(size - len(asked), earlier=True)
                if asked:
                    pending.update(dict.fromkeys(asked, number))
                    pending_of_chunk[number] = len(asked)
                    yield Chunk(asked, distinct)
                else:
                    journal.end(name, number)

        open_chunks = chunks()
        first = next(open_chunks, None)  # the teacher is loaded only if there is something to ask
        batches = load()(ChunkStream(itertools.chain([first], open_chunks), len(questions.chunks))) if first else ()
        guard = ScoreGuard(new=store.is_empty)
        for batch in batches:
            if not all(score is None or math.isfinite(score) for _, score in batch):
                raise ModelError("A score of the teacher is not a finite number. Try --set teacher.dtype=float32.")
            guard.watch(batch)
            store.add([(question, score) for question, score in batch if score is not None])
            for question, score in batch:
                number = pending.pop(question)
                pending_of_chunk[number] -= 1
                unanswered[number] += score is None
                if not pending_of_chunk[number] and not unanswered[number]:
                    journal.end(name, number)  # a chunk with unanswered questions stays open: a later call asks again
            advance(len(batch))
        if pending or next(open_chunks, None) is not None:
            raise ModelError(
                f"The teacher stopped with at least {len(pending):,} questions left. Repeat the same command."
            )
    journal.unanswered += unanswered.total()
    if unanswered.total():
        progress.say(f"{progress.prefix}{name}: no answer to {unanswered.total():,} prompts.")
    return journal.missing(name)


def in_chunks(ordered: Iterable[str], sizes: Mapping[str, int], times: int = 1) -> list[tuple[Sequence[str], int]]:
    """Divide ids into chunks, without changing their order.

    A chunk ends once its ids have `times` QUESTIONS_PER_CHUNK questions. If there are few questions in all, chunks are
    smaller, so that many workers get one. sizes: the number of questions of each id.
    """
    chunk_size = min(times * QUESTIONS_PER_CHUNK, max(MIN_CHUNK_QUESTIONS, sum(sizes.values()) // TARGET_CHUNKS))
    chunks: list[tuple[Sequence[str], int]] = []
    ids: list[str] = []
    total = 0
    for ordered_id in ordered:
        ids.append(ordered_id)
        total += sizes[ordered_id]
        if total >= chunk_size:
            chunks.append((ids, total))
            ids, total = [], 0
    return [*chunks, (ids, total)] if ids else chunks
