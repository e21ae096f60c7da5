"""A BEIR folder whose judged queries are halved: a seeded half stays the test, the other half is text to adapt on.

python benchmarks/split_queries.py FOLDER OUT
"""

from __future__ import annotations

import random
import shutil
import sys
from pathlib import Path


def main() -> None:
    source, out = Path(sys.argv[1]), Path(sys.argv[2])
    header, *lines = (source / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()
    queries = sorted({line.split("\t")[0] for line in lines})
    kept = set(random.Random(42).sample(queries, len(queries) // 2))
    (out / "qrels").mkdir(parents=True, exist_ok=True)
    for name in ("corpus.jsonl", "queries.jsonl"):
        shutil.copyfile(source / name, out / name)
    test = [line for line in lines if line.split("\t")[0] in kept]
    (out / "qrels" / "test.tsv").write_text("\n".join([header, *test]) + "\n", encoding="utf-8")
    print(f"{out}: {len(kept)} of {len(queries)} judged queries are the test")


if __name__ == "__main__":
    main()
