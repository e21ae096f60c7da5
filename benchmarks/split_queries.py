"""A BEIR folder whose judged queries are halved: a seeded half stays the test, the other half is text to adapt on.

python benchmarks/split_queries.py FOLDER OUT

The judgments of the other half are qrels/train.tsv, for checking only. Queries that nobody judged are left out.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path


def main() -> None:
    source, out = Path(sys.argv[1]), Path(sys.argv[2])
    header, *lines = (source / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()
    judged = {line.split("\t")[0] for line in lines}
    test = set(random.Random(42).sample(sorted(judged), len(judged) // 2))
    (out / "qrels").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / "corpus.jsonl", out / "corpus.jsonl")
    queries = (source / "queries.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in queries if json.loads(line)["_id"] in judged]
    (out / "queries.jsonl").write_text("".join(kept), encoding="utf-8")
    for split, queries_of in (("test", test), ("train", judged - test)):
        own = [line for line in lines if line.split("\t")[0] in queries_of]
        (out / "qrels" / f"{split}.tsv").write_text("\n".join([header, *own]) + "\n", encoding="utf-8")
    print(f"{out}: {len(test)} of {len(judged)} judged queries are the test")


if __name__ == "__main__":
    main()
