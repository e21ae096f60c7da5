"""The label store at many labels, beside the same in a JSONL file: `python benchmarks/label_store.py --rows 1e6 1e7`.

Labels are pairs (query, document a, document b) of synthetic texts, 100 a query, committed 256 at a time as a teacher
answers; both orders of a pair lie in the same commit. JSONL is what a script keeps: a line a label, ids and score,
flushed 256 at a time, read back into a dict to be looked up. A resumed run is one of as many points, of which the last
chunk is missing: how long until the teacher is asked.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import resource
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pdadapt.data.corpus import Corpus, Document
from pdadapt.data.run_file import TrecRunFile, write_run
from pdadapt.labeling.ask import ask_missing
from pdadapt.labeling.journal import Journal
from pdadapt.labeling.questions import Labeling
from pdadapt.labeling.store import LabelStore, batched
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import Recipe

PER_QUERY, BATCH, LOOKUPS = 100, 256, 200_000


class Texts:
    """A document for every position, made when it is asked for."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Document:
        if i >= self.count:
            raise IndexError(i)
        return Document(f"d{i}", "", f"passage {i * 2654435761 % 2**32:08x} about {i % 977} things, some words long")


def pairs(rows: int, documents: Texts) -> Iterator[tuple[int, int, int, float]]:
    for query in range(rows // PER_QUERY):
        chosen = random.Random(query).sample(range(len(documents)), PER_QUERY // 2 + 1)
        for a, b in itertools.pairwise(chosen):
            yield query, a, b, 0.5
            yield query, b, a, -0.5


def texts(row: tuple[int, int, int, float], documents: Texts) -> tuple[str, str, str]:
    query, a, b, _ = row
    return f"query number {query}", documents[a].text, documents[b].text


def chosen_rows(rows: int, documents: Texts) -> list[tuple[int, int, int, float]]:
    every = max(1, rows // LOOKUPS)
    found = [row for number, row in enumerate(pairs(rows, documents)) if number % every == 0]
    random.Random(0).shuffle(found)
    return found


def measure_store(folder: Path, rows: int, documents: Texts) -> list[str]:
    seconds = 0.0
    with LabelStore(folder / "labels.sqlite", "pairs", "teacher") as store:
        for batch in batched(pairs(rows, documents), BATCH):
            ready = [(texts(row, documents), row[3]) for row in batch]
            started = time.monotonic()
            store.add(ready)
            seconds += time.monotonic() - started
    size = (folder / "labels.sqlite").stat().st_size
    with contextlib.closing(sqlite3.connect(folder / "labels.sqlite")) as database:
        told = database.execute("SELECT sum(length(text)) FROM texts").fetchone()[0]
    asked = [texts(row, documents) for row in chosen_rows(rows, documents)]
    with LabelStore(folder / "labels.sqlite", "pairs", "teacher") as store:
        started = time.monotonic()
        assert all(store.get(question) is not None for question in asked)
        looking = time.monotonic() - started
    return [
        f"{rows / seconds:,.0f} inserts/s",
        f"{len(asked) / looking:,.0f} look-ups/s",
        f"{size / rows:.0f} bytes a label with the texts, {(size - told) / rows:.0f} without",
    ]


def measure_jsonl(folder: Path, rows: int, documents: Texts) -> list[str]:
    seconds = 0.0
    with open(folder / "labels.jsonl", "w", encoding="utf-8") as file:
        for batch in batched(pairs(rows, documents), BATCH):
            started = time.monotonic()
            for query, a, b, score in batch:
                file.write(json.dumps({"query_id": f"q{query}", "a": f"d{a}", "b": f"d{b}", "score": score}) + "\n")
            file.flush()
            seconds += time.monotonic() - started
    size = (folder / "labels.jsonl").stat().st_size
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    with open(folder / "labels.jsonl", encoding="utf-8") as file:
        found = {(row["query_id"], row["a"], row["b"]): row["score"] for row in map(json.loads, file)}
    reading = time.monotonic() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    asked = chosen_rows(rows, documents)
    started = time.monotonic()
    assert all((f"q{query}", f"d{a}", f"d{b}") in found for query, a, b, _ in asked)
    looking = time.monotonic() - started
    return [
        f"{rows / seconds:,.0f} inserts/s",
        f"{len(asked) / looking:,.0f} look-ups/s once {reading:,.1f} s have read it into {memory / 2**20:.2f} GiB",
        f"{size / rows:.0f} bytes a label, no texts",
    ]


def measure_resuming(folder: Path, rows: int, documents: Texts) -> str:
    queries = {f"q{number}": f"query number {number}" for number in range(rows // PER_QUERY)}
    drawn = ((name, random.Random(name).sample(range(len(documents)), PER_QUERY)) for name in queries)
    write_run(folder / "candidates.run", ((name, [(f"d{i}", 0.0) for i in found]) for name, found in drawn), "x")
    corpus = Corpus(documents)
    recipe = Recipe.model_validate({"teacher": {"kind": "seq2seq"}})

    def questions() -> Labeling:
        return Labeling(TrecRunFile(folder / "candidates.run"), corpus, queries, recipe)

    journal = Journal(folder / "asked.jsonl")
    for number in range(len(questions().points().chunks) - 1):
        journal.begin("label points", number, 2_048)
        journal.end("label points", number)
    with LabelStore(folder / "labels.sqlite", "points", "teacher") as store:
        started = time.monotonic()
        journal = Journal(folder / "asked.jsonl")
        asked: list[float] = []

        def score(chunks):
            for chunk in chunks:
                asked.append(time.monotonic() - started)
                yield [(question, 0.0) for question in chunk.asked]

        ask_missing(questions().points(), store, lambda: score, Progress(), "label points", journal)
    return f"resumed: the first question after {asked[0]:.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=lambda text: int(float(text)), nargs="+", default=[1_000_000, 10_000_000])
    for rows in parser.parse_args().rows:
        documents = Texts(rows // 10)
        folder = Path(tempfile.mkdtemp(dir="."))
        try:
            for name, measure in (("SQLite", measure_store), ("JSONL", measure_jsonl)):
                print(f"{rows:,} pair labels, {name}: " + "; ".join(measure(folder, rows, documents)), flush=True)
            print(f"{rows:,} points, " + measure_resuming(folder, rows, documents), flush=True)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
