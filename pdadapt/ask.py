"""Put questions to a teacher, chunk by chunk, and keep its answers: nothing is asked twice."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pdadapt.errors import ModelError
from pdadapt.labels import LabelStore
from pdadapt.progress import Progress
from pdadapt.teachers import CHUNK, Chunk, Question, Score, Task

CHUNKS, LEAST_CHUNK = 64, 256  # as many as that, if they are not smaller than that


class Questions(NamedTuple):
    """What is asked about, chunk by chunk."""

    chunks: Sequence[tuple[Sequence[str], int]]  # ids of queries, or of documents; about how many questions
    of: Callable[[Sequence[str]], Iterable[Question]]  # those of a chunk; some may be alike

    def shard(self, number: int, shards: int) -> Questions:
        """Every so manyeth chunk, from that number (1, 2, ...) on."""
        return self._replace(chunks=self.chunks[number - 1 :: shards])


class Journal:
    """How far questions came, by task and chunk, kept in a file through kills.

    The first line says what the questions and answers depend on. A line says that a chunk is begun, and how many of its
    questions were missing; another, that all are answered.
    """

    def __init__(self, file: Path | None = None, of: str = ""):
        """of: names the teachers and the label store. A journal of others says nothing, and is begun anew."""
        self._missing: dict[tuple[str, int], int] = {}
        self._done: set[tuple[str, int]] = set()
        self.unanswered = 0
        """How many questions got no answer since this was opened."""
        self._file = file
        self._head = json.dumps({"of": of})
        if file and file.exists():
            head, *lines = file.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
            if head != self._head:
                file.unlink()
                return
            for line in lines:
                try:
                    task, number, missing = json.loads(line)
                except (ValueError, TypeError):  # torn by a kill, or damaged
                    continue
                self._note(task, number, missing)

    def begin(self, task: str, number: int, missing: int) -> None:
        if (task, number) not in self._missing:
            self._write(task, number, missing)

    def end(self, task: str, number: int) -> None:
        self._write(task, number, None)

    def forget(self) -> None:
        """So that every question is looked up again."""
        self._missing.clear()
        self._done.clear()
        if self._file:
            self._file.unlink(missing_ok=True)

    def done(self, task: str, number: int) -> bool:
        return (task, number) in self._done

    def take_in_turn(self, tasks: Sequence[str]) -> None:
        """Forget what is done of tasks after one that lacks answers, on which it depends what they ask."""
        for place, task in enumerate(tasks):
            if any(name == task and (name, number) not in self._done for name, number in self._missing):
                for name, number in sorted(done for done in self._done if done[0] in tasks[place + 1 :]):
                    self._write(name, number, self._missing[name, number])

    def missing(self, task: str) -> int:
        """How many questions were missing when their chunks were first begun."""
        return sum(missing for (name, _), missing in self._missing.items() if name == task)

    def _note(self, task: str, number: int, missing: int | None) -> None:
        if missing is None:
            self._done.add((task, number))
        else:
            self._missing[task, number] = missing
            self._done.discard((task, number))

    def _write(self, task: str, number: int, missing: int | None) -> None:
        self._note(task, number, missing)
        if self._file:
            lines = [json.dumps([task, number, missing])]
            with open(self._file, "a+b") as file:
                if not file.tell():
                    lines.insert(0, self._head)
                file.seek(max(0, file.tell() - 1))
                torn = file.read() not in (b"", b"\n")
                file.write(("\n" * torn + "\n".join(lines) + "\n").encode())


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
    """Ids in their order, cut where so many come together that their questions are enough: CHUNK, that many times, or
    less where there are few in all, so that many workers have something to do.
    """
    enough = min(times * CHUNK, max(LEAST_CHUNK, sum(sizes.values()) // CHUNKS))
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
