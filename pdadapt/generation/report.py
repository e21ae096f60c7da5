"""What FILE and FILE.report.json say of the queries that were written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pdadapt.generation.filters import clean
from pdadapt.generation.mix import KINDS, meant_by
from pdadapt.generation.notes import Notes

SHOWN = 5  # queries in the report that ended alike


def rows(kept: Sequence[int], notes: Notes, doc_ids: Sequence[str]) -> Iterator[str]:
    """The lines of the file, of the numbers of queries; doc_ids: of the documents that they are about."""
    for written, number in enumerate(kept, 1):
        place, kind = meant_by(number)
        row = {"_id": f"g{written}", "text": clean(notes.answers[number]), "kind": kind, "doc_id": doc_ids[place]}
        yield json.dumps(row, ensure_ascii=False) + "\n"


def count_reasons(ends: Iterable[str | None]) -> str:
    """Why they went, in one line."""
    return ", ".join(f"{count:,} {reason}" for reason, count in Counter(filter(None, ends)).most_common())


def summarise(kept: Sequence[int], notes: Notes) -> dict[str, Any]:
    """How many were written and kept, by kind, and why the others went, with some of them."""
    last = set(kept)
    asked = {number: meant_by(number)[1] for number in notes.verdicts}
    kinds: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS if kind in asked.values()}
    examples: dict[str, list[str]] = {}
    for number, kind in asked.items():
        end = notes.verdicts[number] or ("kept" if number in last else "more than wanted")
        kinds[kind].update(["written", end])
        examples.setdefault(end, []).append(clean(notes.answers[number]))
    return {
        "kept": len(kept),
        "written": len(asked),
        "kinds": kinds,
        "examples": {end: texts[:SHOWN] for end, texts in examples.items()},
    }
