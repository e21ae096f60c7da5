"""The answers that an LLM has written so far with the verdicts about them, and the reports made of both."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pdadapt.generation.filters import clean
from pdadapt.generation.kinds import KINDS, place_and_kind
from pdadapt.runtime.files import write_atomic

EXAMPLES_PER_REASON = 5  # queries that the report shows for each reason


class AnswerLog:
    """Answers and verdicts by the number of the query (see kinds.number_for), in a file that survives kills.

    A line holds a batch of answers, {"answers": [[number, text], ...]}, or verdicts, {"verdicts": [[number, reason or
    null], ...]}. The reason says why a query is not kept. A last line that a kill has left incomplete is removed.
    """

    def __init__(self, file: Path):
        """Read the file if it exists."""
        self.file = file
        self.answers: dict[int, str] = {}
        self.verdicts: dict[int, str | None] = {}
        content = file.read_bytes() if file.exists() else b""
        complete = content[: content.rfind(b"\n") + 1]
        if len(complete) < len(content):
            os.truncate(file, len(complete))
        for line in complete.splitlines():
            row = json.loads(line)
            self.answers.update(row.get("answers", ()))
            self.verdicts.update(row.get("verdicts", ()))

    def add_answers(self, answers: Sequence[tuple[int, str]]) -> None:
        """Add (number, text) of queries that were written."""
        self._write("answers", answers)
        self.answers.update(answers)

    def add_verdicts(self, verdicts: Mapping[int, str | None]) -> None:
        """Add the reasons why queries are not kept, by number; None means that a query is kept."""
        self._write("verdicts", list(verdicts.items()))
        self.verdicts.update(verdicts)

    def forget_verdicts(self) -> None:
        """Remove all verdicts, so that all queries are judged again."""
        write_atomic(self.file, json.dumps({"answers": list(self.answers.items())}) + "\n")
        self.verdicts = {}

    def _write(self, name: str, pairs: Sequence[tuple[int, str | None]]) -> None:
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps({name: pairs}) + "\n")


def query_lines(kept: Sequence[int], log: AnswerLog, doc_ids: Sequence[str]) -> Iterator[str]:
    """Yield the JSON lines of the query file.

    kept: the numbers of the queries. doc_ids: the documents that queries are written about, in the order of places.
    """
    for row_number, number in enumerate(kept, 1):
        place, kind = place_and_kind(number)
        row = {"_id": f"g{row_number}", "text": clean(log.answers[number]), "kind": kind, "doc_id": doc_ids[place]}
        yield json.dumps(row, ensure_ascii=False) + "\n"


def count_reasons(reasons: Iterable[str | None]) -> str:
    """Return the reasons with their counts in one line, most frequent first. None is not counted."""
    return ", ".join(f"{count:,} {reason}" for reason, count in Counter(filter(None, reasons)).most_common())


def summarise_answers(kept: Sequence[int], log: AnswerLog) -> dict[str, Any]:
    """Return the counts of queries written and kept, by kind and by the reason why others are not kept, with examples.

    kept: the numbers of the queries in the query file.
    """
    chosen = set(kept)
    kind_by_number = {number: place_and_kind(number)[1] for number in log.verdicts}
    kinds: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS if kind in kind_by_number.values()}
    examples: dict[str, list[str]] = {}
    for number, kind in kind_by_number.items():
        reason = log.verdicts[number] or ("kept" if number in chosen else "more than wanted")
        kinds[kind].update(["written", reason])
        examples.setdefault(reason, []).append(clean(log.answers[number]))
    return {
        "kept": len(kept),
        "written": len(kind_by_number),
        "kinds": kinds,
        "examples": {reason: texts[:EXAMPLES_PER_REASON] for reason, texts in examples.items()},
    }
