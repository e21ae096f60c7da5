"""How far the shards of a run are (shards.py), from what lies in its folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pdadapt.runtime.locks import Holder, holder

LABELED, MERGED = ".labeled", ".merged"  # marks beside a shard's store: it came to its end; the run's own store has it


def shards_at_work(run: Path) -> dict[str, Holder]:
    """The shards of a run that are being labeled (shards.py), and who is at each."""
    folders = sorted(run.glob("iteration-*/shards/*.lock"))
    return {folder.stem: at_it for folder in folders if (at_it := holder(folder))}


def name_shards_at_work(run: Path) -> str:
    """The same as one text; empty when no shard is being labeled."""
    return ", ".join(f"shard {name}: {who}" for name, who in shards_at_work(run).items())


def mark(store: Path, what: str) -> None:
    """Note of a shard's store, as it is now, that it is LABELED or MERGED."""
    store.with_suffix(what).touch()


def is_marked(store: Path, what: str) -> bool:
    """Whether that was noted, and nothing written since."""
    noted, log = store.with_suffix(what), store.with_name(store.name + "-wal")
    return noted.exists() and not log.exists() and noted.stat().st_mtime_ns >= store.stat().st_mtime_ns


def unmerged(run: Path) -> list[Path]:
    """The shards that hold labels which the run's own store has not taken in."""
    return [store for store in sorted(run.glob("iteration-*/shards/*.sqlite")) if not is_marked(store, MERGED)]


def shard_summary(run: Path) -> str:
    """A sentence on the shards of the last iteration that has any; empty without shards."""
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
