"""How much memory a corpus takes that stays on disk: MS MARCO's `collection.tsv`, in made-up passages.

    python benchmarks/corpus_memory.py [--passages 1000000]

Writes a folder with MS MARCO's files (passages of about 56 words, as there), loads it, looks 10,000 passages up, and
prints: seconds to load, the growth of this process's own (anonymous) memory, and the growth per million passages.
"""

from __future__ import annotations

import argparse
import gc
import random
import tempfile
import time
from pathlib import Path

from pdadapt.data.load import load_dataset

WORDS = 56


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, options.passages)
        size = (folder / "collection.tsv").stat().st_size / 2**20
        gc.collect()
        before, start = own_memory(), time.perf_counter()
        dataset = load_dataset(name)
        seconds = time.perf_counter() - start
        chosen = random.Random(1)
        for _ in range(10_000):
            doc_id = str(chosen.randrange(options.passages))
            assert dataset.corpus[doc_id].doc_id == doc_id
        gc.collect()
        grown = own_memory() - before
        print(
            f"{options.passages:,} passages ({size:,.0f} MiB on disk) in {seconds:.1f} s: {grown:,.0f} MiB of memory, "
            f"{grown / options.passages * 1e6:,.0f} MiB per million"
        )


def write(folder: Path, passages: int) -> None:
    chosen = random.Random(0)
    words = [f"word{number}" for number in range(5_000)]
    sentences = [" ".join(chosen.choices(words, k=WORDS // 4)) for _ in range(10_000)]
    with open(folder / "collection.tsv", "w", encoding="utf-8") as file:
        for number in range(passages):
            file.write(f"{number}\t{' '.join(chosen.choices(sentences, k=4))}\n")
    (folder / "queries.train.tsv").write_text("1\twhat is word7\n", encoding="utf-8")
    (folder / "qrels.train.tsv").write_text("1\t0\t7\t1\n", encoding="utf-8")


def own_memory() -> float:
    """Of this process, without the pages of files that it has mapped, MiB (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    found = {name: value for name, _, value in (line.partition(":") for line in lines)}
    return int(found["RssAnon"].split()[0]) / 1024


if __name__ == "__main__":
    main()
