"""The states of the shards of a run, read from its folder (labeling/shards.py labels them)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pdadapt.runtime.locks import Holder, holder

LABELED = ".labeled"  # suffix of the file that marks a shard as finished
MERGED = ".merged"  # suffix of the file that marks a shard as merged into the run's label store


def shards_at_work(run: Path) -> dict[str, Holder]:
    """The shards that are being labeled now, and the process that labels each."""
    folders = sorted(run.glob("iteration-*/shards/*.lock"))
    return {folder.stem: at_it for folder in folders if (at_it := holder(folder))}


def name_shards_at_work(run: Path) -> str:
    """The shards that are being labeled now, as one text; empty if there are none."""
    return ", ".join(f"shard {name}: {who}" for name, who in shards_at_work(run).items())


def mark(store: Path, what: str) -> None:
    """Mark a shard's store, in its present state, as LABELED or MERGED."""
    store.with_suffix(what).touch()


def is_marked(store: Path, what: str) -> bool:
    """Whether the store has this mark, and has not changed since."""
    noted, log = store.with_suffix(what), store.with_name(store.name + "-wal")
    return noted.exists() and not log.exists() and noted.stat().st_mtime_ns >= store.stat().st_mtime_ns


def unmerged(run: Path) -> list[Path]:
    """The label stores of shards that are not merged into the run's label store."""
    return [store for store in sorted(run.glob("iteration-*/shards/*.sqlite")) if not is_marked(store, MERGED)]


def shard_summary(run: Path) -> str:
    """A sentence about the shards of the last iteration that has any; empty if there are none."""
    folders = sorted(run.glob("iteration-*/shards"), key=lambda folder: int(folder.parent.name.split("-")[1]))
    stores = sorted(folders[-1].glob("*.sqlite")) if folders else []
    at_work = shards_at_work(run)
    parts = []
    for of in sorted({store.stem.partition("-of-")[2] for store in stores}, key=lambda number: number.zfill(9)):
        states: Counter[str] = Counter()
        named: dict[str, list[str]] = {}
        for number in range(1, int(of) + 1) if of.isdecimal() else ():
            name = f"{number}-of-{of}"
            store = folders[-1] / f"{name}.sqlite"
            if name in at_work:
                state, said = "being labeled", f"{number}: {at_work[name]}"
            elif store not in stores:
                state, said = "not begun", str(number)
            elif not is_marked(store, LABELED):
                state, said = "not finished", str(number)
            else:
                state, said = "labeled" if is_marked(store, MERGED) else "labeled, not merged", ""
            states[state] += 1
            if said:
                named.setdefault(state, []).append(said)
        found = (
            f"{count} {state}" + (f" ({', '.join(named[state])})" if state in named else "")
            for state, count in states.items()
        )
        parts.append(f"Shards of {of}: {'; '.join(found)}.")
    return " ".join(parts)
