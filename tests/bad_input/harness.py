"""What a case of bad input is, how it is run, and what must hold of every message.

A case's full message stands in tests/golden/messages. `pytest --golden tests/bad_input` writes these files.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from golden_files import GoldenFile

from pdadapt.cli import main
from pdadapt.errors import DataError, causes_of, reason

RECIPE = """
student: {model: ./encoder}
teacher:
  model: ./llama
  dtype: float32
  max_length: 256
  batch_tokens: 256
  pair: {per_query: 4, window: 4}
reranker: {model: ./encoder}
retrieve: {k: 8, batch_tokens: 64}
train: {batch_size: 4, n_way: 6, steps: 1, learning_rate: 1.0e-3, held_out: 0}
evaluate: {k: 10, resamples: 200, general: false}
"""
ADAPT = "adapt --corpus data --recipe tiny.yaml --out out"
OF_RUN = "adapt --corpus data --recipe tiny.yaml --out run"
EVALUATE = "evaluate --corpus data --model ./encoder --no-bm25 --out out"
RUNS = "evaluate --run mine.run --qrels data/qrels/test.tsv --out out"
IMPORT = "labels import l.jsonl --store labels.sqlite --name expert"
RERANK = "rerank --corpus data --recipe tiny.yaml --run mine.run --out out.run"
LABEL = '{"query": "q", "document": "d", "score": 1}\n'
ONE_RUN = "q12 Q0 d0 1 2.0 x\n"

Content = str | bytes | Callable[[bytes], bytes] | None
Files = Mapping[str, Content]


@dataclass(frozen=True)
class Case:
    """A command that must be refused. The workshop of conftest.py is where it runs."""

    command: str
    files: Files = field(default_factory=dict)  # to write before: see `prepare`
    names: str = ""  # files, lines and keys that the message must name, whatever its wording is
    error: type[Exception] | None = DataError  # None: typer's own
    code: int = 1
    without_gpu: bool = False  # with a GPU the command is not refused


def cut(content: bytes) -> bytes:
    """A file whose download broke off."""
    return content[: len(content) // 2]


def more(text: str) -> Callable[[bytes], bytes]:
    """The file with another line."""
    return lambda content: content + text.encode() + b"\n"


def changed(old: str, new: str) -> Callable[[bytes], bytes]:
    """The file with a text replaced."""
    return lambda content: content.replace(old.encode(), new.encode())


def query(**fields: object) -> Files:
    """The queries with another one, in line 19."""
    return {"data/queries.jsonl": more(json.dumps({"_id": "q90", "text": "rim", **fields}))}


def document(**fields: object) -> Files:
    """The corpus with another document, in line 21."""
    return {"data/corpus.jsonl": more(json.dumps({"_id": "d90", "text": "rim", **fields}))}


def corpus(*texts: str) -> Files:
    """A corpus of these documents."""
    rows = (json.dumps({"_id": f"d{number}", "text": text}) + "\n" for number, text in enumerate(texts))
    return {"data/corpus.jsonl": "".join(rows)}


def other_corpus(name: str, content: str | bytes) -> Files:
    """A corpus in a file of another name."""
    return {"data/corpus.jsonl": None, f"data/{name}": content}


def without(*names: str) -> Files:
    """Files to remove."""
    return dict.fromkeys(names)


def gguf(architecture: str) -> bytes:
    """A GGUF file of no tensor and one key."""
    key, value = b"general.architecture", architecture.encode()
    text = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text


def prepare(files: Files) -> None:
    """Write files (text, bytes, or what becomes of the file that is there), or remove them (None)."""
    for name, content in files.items():
        file = Path(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            file.unlink()
            continue
        if callable(content):
            content = content(file.read_bytes() if file.exists() else b"")
        file.write_bytes(content.encode() if isinstance(content, str) else content)


def snapshot(folder: Path) -> dict[Path, bytes | bool]:
    """What is there, byte for byte. A run's lock is left out, for it names who came last."""
    files = (file for file in folder.rglob("*") if file != folder / "run" / "lock")
    return {file: file.is_file() and hashlib.sha256(file.read_bytes()).digest() for file in files}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    errors: str
    error: BaseException | None  # that ended it

    def sentence(self) -> str:
        """What is said after `Error:`, whole; it is the last line."""
        return sentence(self.errors)

    def usage(self) -> str:
        """What is said of a wrong command line after `Error:`."""
        assert "Traceback" not in self.errors
        return " ".join(self.errors.partition("Error: ")[2].split())

    def normalised(self, text: str) -> str:
        """A message without what differs between machines and between the versions of libraries."""
        for said, name in sorted(foreign(self.error), key=lambda pair: -len(pair[0])):
            text = text.replace(said, name)
        return text.replace(str(Path.cwd()), "HERE")


def foreign(error: BaseException | None) -> Iterator[tuple[str, str]]:
    """What libraries and the operating system said, each with the exception's name to put in its place."""
    for one in causes_of(error):
        if isinstance(one, KeyError) or is_ours(one):
            continue
        package = type(one).__module__.partition(".")[0].lstrip("_")
        name = f"<{type(one).__name__}>" if package == "builtins" else f"<{package}.{type(one).__name__}>"
        texts = [reason(one), *(getattr(one, part, None) for part in ("strerror", "problem", "msg"))]
        yield from ((text, name) for text in texts if isinstance(text, str) and len(text) > 3)
        if last := str(one).strip().rpartition(": ")[2]:
            yield f"({last})", f"({name})"


def is_ours(error: BaseException) -> bool:
    """Whether our own code raised it: an exception of ours, or a ValueError with a text of ours."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    here = place is not None and place.tb_frame.f_globals.get("__name__", "").startswith("pdadapt.")
    return type(error).__module__.startswith("pdadapt.") or (type(error) is ValueError and here)


def sentence(errors: str) -> str:
    """One sentence of ours, that says what is wrong and the way out, at the end of what is printed."""
    said = [line for line in errors.splitlines() if line.strip()]
    assert [line for line in said if line.startswith("Error: ")] == said[-1:], errors
    found = said[-1].removeprefix("Error: ")
    assert re.search(r"; |: |\. [A-Z]|, such as |\(did you mean", found) and found.endswith((".", ")")), found
    assert not found.startswith("unexpected") and "Traceback" not in errors
    return found


class CommandLine:
    """Runs commands in this process, in the folder where the test is."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
        self.capsys, self.monkeypatch = capsys, monkeypatch

    def run(self, command: str) -> Ended:
        """As the installed command does, but for signals, which are the test runner's."""
        self.monkeypatch.setattr(sys, "argv", ["pdadapt", *shlex.split(command)])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main.run()
        code = stopped.value.code
        assert isinstance(code, int)
        return Ended(code, *self.capsys.readouterr(), stopped.value.__context__)

    def refuses(self, case: Case, golden: GoldenFile, name: str, port: int | None = None) -> Ended:
        """The command is refused with the expected code, error and message, and nothing changes on the disk.

        port: of the test's own server, which is another at every run.
        """
        if case.without_gpu and torch.cuda.is_available():
            pytest.skip("there is a GPU")
        prepare(case.files)
        before = snapshot(Path.cwd())
        ended = self.run(case.command)
        assert ended.code == case.code, ended.errors
        message = ended.sentence() if case.error else ended.usage()
        assert case.error in (None, type(ended.error)), repr(ended.error)
        assert case.names and all(part in message for part in case.names.split()), message
        assert snapshot(Path.cwd()) == before
        text = ended.normalised(message) if case.error else message
        golden.check(name, text.replace(f":{port}/", ":PORT/"))
        return ended
