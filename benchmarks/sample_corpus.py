"""A BEIR folder made smaller: some test queries, the documents judged for them, and others up to a number.

    python benchmarks/sample_corpus.py FOLDER OUT --queries 1000 --documents 2000

Train queries stay whose labeled documents all do. Queries and documents are seeded samples. A smaller corpus is an
easier one, so figures on it are to be compared with each other only.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from pathlib import Path

HEADER = "query-id\tcorpus-id\tscore"


def read_qrels(file: Path) -> dict[str, list[str]]:
    """Query -> its lines."""
    lines: dict[str, list[str]] = defaultdict(list)
    for line in file.read_text(encoding="utf-8").splitlines()[1:]:
        lines[line.split("\t")[0]].append(line)
    return lines


def documents(lines: list[str]) -> set[str]:
    return {line.split("\t")[1] for line in lines}


def copy_lines(source: Path, target: Path, ids: set[str]) -> None:
    with open(source, encoding="utf-8") as lines:
        target.write_text("".join(line for line in lines if json.loads(line)["_id"] in ids), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--documents", type=int, default=2_000)
    options = parser.parse_args()
    rng = random.Random(42)
    test, train = (read_qrels(options.folder / "qrels" / f"{split}.tsv") for split in ("test", "train"))
    tested = sorted(test)
    test = {query_id: test[query_id] for query_id in rng.sample(tested, min(options.queries, len(tested)))}
    kept = {doc_id for lines in test.values() for doc_id in documents(lines)}
    with open(options.folder / "corpus.jsonl", encoding="utf-8") as file:
        others = [doc_id for line in file if (doc_id := json.loads(line)["_id"]) not in kept]
    kept.update(rng.sample(others, min(len(others), max(0, options.documents - len(kept)))))
    train = {query_id: lines for query_id, lines in train.items() if documents(lines) <= kept}
    (options.out / "qrels").mkdir(parents=True, exist_ok=True)
    for split, qrels in (("test", test), ("train", train)):
        lines = [line for of_query in qrels.values() for line in of_query]
        (options.out / "qrels" / f"{split}.tsv").write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    copy_lines(options.folder / "corpus.jsonl", options.out / "corpus.jsonl", kept)
    copy_lines(options.folder / "queries.jsonl", options.out / "queries.jsonl", {*test, *train})
    print(f"{options.out}: {len(kept):,} documents, {len(test):,} test queries, {len(train):,} others")


if __name__ == "__main__":
    main()
