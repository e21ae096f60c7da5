"""colbert-ai, in an environment that has it: `index CHECKPOINT COLLECTION ROOT BITS`, `search ROOT QUERIES K OUT`."""

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

NAME = "index"


def index(checkpoint: str, collection: str, root: str, bits: str) -> None:
    """A Stanford checkpoint, and lines of number and text -> an index; what a killed call left is gone on with."""
    seen: set[Path] = set()
    folder, counting = Path(root) / NAME, threading.Lock()

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
        Indexer(checkpoint, config).index(NAME, collection, overwrite="resume")
    chunks()


def mend(folder: Path) -> None:
    """Remove what colbert-ai takes for whole, though a kill left it half-written: then it makes that anew."""
    for file in folder.glob("*.metadata.json"):
        try:
            json.loads(file.read_text())
        except ValueError:
            file.unlink()
    plan = folder / "plan.json"
    try:
        ResidualCodec.load(index_path=str(folder))
        json.loads(plan.read_text())
    except Exception:  # whatever torch says of a torso
        plan.unlink(missing_ok=True)


def search(root: str, queries: str, k: str, out: str) -> None:
    """Lines of number and text -> lines of query number, passage number, score; best first, Searcher's settings."""
    done = reporting.start()
    with Run().context(RunConfig(index_root=root)):
        searcher = Searcher(NAME)
        with open(queries, encoding="utf-8") as asked, open(out, "w", encoding="utf-8") as answers:
            for line in asked:
                number, _, text = line.rstrip("\n").partition("\t")
                for passage, _, score in zip(*searcher.search(text, k=int(k)), strict=False):
                    print(number, passage, score, sep="\t", file=answers)
                done(1)


if __name__ == "__main__":
    commands: dict[str, Callable[..., None]] = {"index": index, "search": search}
    commands[sys.argv[1]](*sys.argv[2:])
