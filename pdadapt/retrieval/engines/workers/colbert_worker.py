"""Run colbert-ai in its own environment: `index CHECKPOINT COLLECTION ROOT BITS`, `search ROOT QUERIES K OUT`."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import reporting
import torch
from colbert import Indexer, Searcher
from colbert.indexing.codecs.residual import ResidualCodec
from colbert.infra import ColBERTConfig, Run, RunConfig

INDEX_NAME = "index"


def index(checkpoint: str, collection: str, root: str, bits: str) -> None:
    """Index a collection (lines of number and text) with a Stanford checkpoint. Interrupted indexing is resumed."""
    seen: set[Path] = set()
    folder, counting = Path(root) / INDEX_NAME, threading.Lock()

    def chunks() -> None:
        with counting:
            for file in set(folder.glob("*.metadata.json")) - seen:
                with open(folder / f"doclens.{file.name.partition('.')[0]}.json") as lengths:
                    done(len(json.load(lengths)))
                seen.add(file)

    done = reporting.start(chunks)
    mend(folder)
    ranks = max(1, torch.cuda.device_count())
    with Run().context(RunConfig(nranks=ranks, index_root=root, avoid_fork_if_possible=True)):
        config = ColBERTConfig(nbits=int(bits), index_root=root)
        Indexer(checkpoint, config).index(INDEX_NAME, collection, overwrite="resume")
    chunks()


def mend(folder: Path) -> None:
    """Remove files that are incomplete after a kill. colbert-ai would use them; now it writes them again."""
    for file in folder.glob("*.metadata.json"):
        try:
            json.loads(file.read_text())
        except ValueError:
            file.unlink()
    plan = folder / "plan.json"
    try:
        ResidualCodec.load(index_path=str(folder))
        json.loads(plan.read_text())
    except Exception:  # torch raises many kinds of errors for incomplete files
        plan.unlink(missing_ok=True)


def search(root: str, queries: str, k: str, out: str) -> None:
    """Search queries (lines of number and text) with Searcher's defaults.

    Writes lines of query number, passage number and score, best first, to `out`.
    """
    done = reporting.start()
    with Run().context(RunConfig(index_root=root)):
        searcher = Searcher(INDEX_NAME)
        with open(queries, encoding="utf-8") as lines, open(out, "w", encoding="utf-8") as ranking:
            for line in lines:
                number, _, text = line.rstrip("\n").partition("\t")
                for passage, _, score in zip(*searcher.search(text, k=int(k)), strict=False):
                    print(number, passage, score, sep="\t", file=ranking)
                done(1)


if __name__ == "__main__":
    commands: dict[str, Callable[..., None]] = {"index": index, "search": search}
    commands[sys.argv[1]](*sys.argv[2:])
