"""Remember which chunks of questions are finished, so that a run resumes after a kill."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path


class Journal:
    """The progress of questions by task and chunk, kept in a file.

    The first line names what the questions and answers depend on. Each later line is about one chunk. It says that the
    chunk was begun with a number of missing answers, or that all its questions are answered.
    """

    def __init__(self, file: Path | None = None, identity: str = ""):
        """identity: names the teachers and the label store. A journal of another identity is discarded."""
        self._missing: dict[tuple[str, int], int] = {}
        self._done: set[tuple[str, int]] = set()
        self.unanswered = 0
        """How many questions got no answer since the journal was opened."""
        self._file = file
        self._head = json.dumps({"of": identity})
        if file and file.exists():
            head, *lines = file.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
            if head != self._head:
                file.unlink()
                return
            for line in lines:
                try:
                    task, number, missing = json.loads(line)
                except (ValueError, TypeError):  # a kill can leave an incomplete line
                    continue
                self._note(task, number, missing)

    def begin(self, task: str, number: int, missing: int) -> None:
        """Record that work on a chunk begins. The first count of missing answers is kept."""
        if (task, number) not in self._missing:
            self._write(task, number, missing)

    def end(self, task: str, number: int) -> None:
        """Record that every question of a chunk is answered."""
        self._write(task, number, None)

    def forget(self) -> None:
        """Forget everything, so that every question is looked up again."""
        self._missing.clear()
        self._done.clear()
        if self._file:
            self._file.unlink(missing_ok=True)

    def done(self, task: str, number: int) -> bool:
        """Whether every question of a chunk is answered."""
        return (task, number) in self._done

    def take_in_turn(self, tasks: Sequence[str]) -> None:
        """Forget that chunks are finished if their task comes after a task with missing answers.

        The questions of a later task depend on the answers of the earlier ones.
        """
        for position, task in enumerate(tasks):
            if any(name == task and (name, number) not in self._done for name, number in self._missing):
                for name, number in sorted(done for done in self._done if done[0] in tasks[position + 1 :]):
                    self._write(name, number, self._missing[name, number])

    def missing(self, task: str) -> int:
        """Return how many answers of a task were missing when its chunks were first begun."""
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
                incomplete = file.read() not in (b"", b"\n")  # a kill cut the last line: end it first
                file.write(("\n" * incomplete + "\n".join(lines) + "\n").encode())
