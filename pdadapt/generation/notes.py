"""What an LLM has written so far, and what became of it, in a file that outlives kills."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pdadapt.runtime.files import write_atomic


class Notes:
    """A line holds a batch of answers, {"answers": [[number, text], ...]}, or what was found about some of them,
    {"verdicts": [[number, why it went or null], ...]}; the last is left out if a kill has torn it.
    """

    def __init__(self, file: Path):
        self.file = file
        self.answers: dict[int, str] = {}
        self.verdicts: dict[int, str | None] = {}
        content = file.read_bytes() if file.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):  # torn by a kill
            os.truncate(file, len(whole))
        for line in whole.splitlines():
            row = json.loads(line)
            self.answers.update(row.get("answers", ()))
            self.verdicts.update(row.get("verdicts", ()))

    def add(self, answers: Sequence[tuple[int, str]]) -> None:
        self._write("answers", answers)
        self.answers.update(answers)

    def judge(self, verdicts: Mapping[int, str | None]) -> None:
        self._write("verdicts", list(verdicts.items()))
        self.verdicts.update(verdicts)

    def forget_verdicts(self) -> None:
        """So that all is judged anew."""
        write_atomic(self.file, json.dumps({"answers": list(self.answers.items())}) + "\n")
        self.verdicts = {}

    def _write(self, name: str, pairs: Sequence[tuple[int, str | None]]) -> None:
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps({name: pairs}) + "\n")
