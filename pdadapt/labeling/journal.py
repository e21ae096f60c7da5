"""Which chunks of questions a killed run had finished."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path


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
