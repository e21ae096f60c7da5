"""What FILE and FILE.report.json say of the queries that were written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pdadapt.generation.filters import clean
from pdadapt.generation.mix import KINDS, Task
from pdadapt.generation.notes import Notes

SHOWN = 5  # queries in the report that ended alike


def rows(kept: Sequence[Task], notes: Notes) -> Iterator[str]:
    """The lines of the file."""
    for place, task in enumerate(kept, 1):
        row = {"_id": f"g{place}", "text": clean(notes.answers[task.number]), "kind": task.kind, "doc_id": task.doc_id}
        yield json.dumps(row, ensure_ascii=False) + "\n"


def count_reasons(ends: Iterable[str | None]) -> str:
    """Why they went, in one line."""
    return ", ".join(f"{count:,} {reason}" for reason, count in Counter(filter(None, ends)).most_common())


def summarise(tasks: Sequence[Task], kept: Sequence[Task], notes: Notes) -> dict[str, Any]:
    """How many were written and kept, by kind, and why the others went, with some of them."""
    asked = {task.kind for task in tasks}
    last = {task.number for task in kept}
    kinds: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS if kind in asked}
    examples: dict[str, list[str]] = {}
    judged = tasks[: len(notes.verdicts)]
    for task in judged:
        end = notes.verdicts[task.number] or ("kept" if task.number in last else "more than wanted")
        kinds[task.kind].update(["written", end])
        examples.setdefault(end, []).append(clean(notes.answers[task.number]))
    return {
        "kept": len(kept),
        "written": len(judged),
        "kinds": kinds,
        "examples": {end: texts[:SHOWN] for end, texts in examples.items()},
    }
