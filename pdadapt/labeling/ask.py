"""Put questions to a teacher, chunk by chunk, and keep its answers: nothing is asked twice."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pdadapt.errors import ModelError
from pdadapt.labeling.journal import Journal
from pdadapt.labeling.store import LabelStore
from pdadapt.runtime.progress import Progress
from pdadapt.teachers.base import QUESTIONS_PER_CHUNK, Chunk, Question, Score, Task

CHUNKS, LEAST_CHUNK = 64, 256  # as many as that, if they are not smaller than that


class Questions(NamedTuple):
    """What is asked about, chunk by chunk."""

    chunks: Sequence[tuple[Sequence[str], int]]  # ids of queries, or of documents; about how many questions
    of: Callable[[Sequence[str]], Iterable[Question]]  # those of a chunk; some may be alike

    def shard(self, number: int, shards: int) -> Questions:
        """Every so manyeth chunk, from that number (1, 2, ...) on."""
        return self._replace(chunks=self.chunks[number - 1 :: shards])


class Coming(Iterator[Chunk]):
    """Chunks that are made as they are wanted."""

    def __init__(self, chunks: Iterator[Chunk], most: int):
        self._chunks = chunks
        self._most = most

    def __next__(self) -> Chunk:
        return next(self._chunks)

    def __length_hint__(self) -> int:
        """How many there are at most."""
        return self._most


def ask_missing(
    questions: Questions,
    store: LabelStore,
    load: Callable[[], Score],
    progress: Progress,
    name: str,
    journal: Journal | None = None,
) -> int:
    """Have the teacher answer what the store lacks, a batch committed at a time. Each distinct question is asked once;
    one that stands in several chunks, and gets no answer, may be asked in each.

    load: called when there is something to ask, gives a teacher's method. journal: by `name`, how far this came.
    Returns how many were missing when this was first begun. Raises ModelError when a score is not finite (it would be
    no label), and when the teacher stops before it has come to every question.
    """
    journal = journal or Journal()
    waiting: dict[Question, int] = {}  # questions put to the teacher, and their chunks
    left: Counter[int] = Counter()  # how many of a chunk those are
    unanswered: Counter[int] = Counter()
    with progress.task(name, sum(size for _, size in questions.chunks), "prompts") as advance:

        def chunks() -> Iterator[Chunk]:
            for number, (ids, size) in enumerate(questions.chunks):
                if journal.done(name, number):
                    advance(size, earlier=True)
                    continue
                whole = sorted(set(questions.of(ids)))
                asked = [question for question in whole if question not in waiting and store.get(question) is None]
                journal.begin(name, number, len(asked))
                advance(size - len(asked), earlier=True)
                if asked:
                    waiting.update(dict.fromkeys(asked, number))
                    left[number] = len(asked)
                    yield Chunk(asked, whole)
                else:
                    journal.end(name, number)

        ahead = chunks()
        first = next(ahead, None)
        batches = load()(Coming(itertools.chain([first], ahead), len(questions.chunks))) if first else ()
        for batch in batches:
            if not all(score is None or math.isfinite(score) for _, score in batch):
                raise ModelError("The teacher's answer is not a number; try --set teacher.dtype=float32.")
            store.add([(question, score) for question, score in batch if score is not None])
            for question, score in batch:
                number = waiting.pop(question)
                left[number] -= 1
                unanswered[number] += score is None
                if not left[number] and not unanswered[number]:  # else it is asked again, when this is done again
                    journal.end(name, number)
            advance(len(batch))
        if waiting or next(ahead, None) is not None:
            raise ModelError(f"The teacher stopped with at least {len(waiting):,} questions left; try again.")
    journal.unanswered += unanswered.total()
    if unanswered.total():
        progress.say(f"{progress.prefix}{name}: no answer to {unanswered.total():,} prompts.")
    return journal.missing(name)


def check_answers(missing: int, of: int, task: Task) -> None:
    """Raises ModelError when all answers are missing: there is nothing to learn from."""
    if missing and missing == of:
        without = " Without pairs: --set teacher.pair.per_query=0." if task == "pair" else ""
        raise ModelError(
            f"The teacher gave no answer to any of {missing:,} {task}s: an imported teacher needs labels of exactly "
            f"these texts and this --name, a server must list the label words among its top_logprobs.{without}"
        )


def in_chunks(ordered: Iterable[str], sizes: Mapping[str, int], times: int = 1) -> list[tuple[Sequence[str], int]]:
    """Ids in their order, cut where their questions are enough: QUESTIONS_PER_CHUNK, that many times, or
    less where there are few in all, so that many workers have something to do.
    """
    enough = min(times * QUESTIONS_PER_CHUNK, max(LEAST_CHUNK, sum(sizes.values()) // CHUNKS))
    chunks: list[tuple[Sequence[str], int]] = []
    ids: list[str] = []
    total = 0
    for name in ordered:
        ids.append(name)
        total += sizes[name]
        if total >= enough:
            chunks.append((ids, total))
            ids, total = [], 0
    return [*chunks, (ids, total)] if ids else chunks
