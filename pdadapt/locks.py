"""Who is at a folder: one process that writes, or several that share it. A killed process leaves no lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pdadapt.errors import RunError


class Holder(NamedTuple):
    """Who is at a folder."""

    pid: str
    host: str = ""

    def __str__(self) -> str:
        return f"process {self.pid}" + (f" on {self.host}" if self.host else "")


@contextlib.contextmanager
def locked(folder: Path, shared: bool = False) -> Iterator[None]:
    """Keep other processes out of this folder. Raises RunError when one is in it.

    shared: but for those that share it too.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock_file = open(folder / "lock", "a+")  # noqa: SIM115
    except OSError as error:
        raise RunError(f"{folder} cannot be written to ({error.strerror}); give another folder.") from None
    with lock_file as lock:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            shards = ", ".join(f"shard {name}: {who}" for name, who in shards_at_work(folder).items())
            who = shards or str(_read(lock.read()))
            raise RunError(
                f"{folder} is in use by another pdadapt ({who}); wait for it, or give another folder."
            ) from None
        if not shared:
            lock.truncate(0)
            lock.write(f"{os.getpid()} on {socket.gethostname()}")
            lock.flush()
        yield


def holder(folder: Path) -> Holder | None:
    """Who keeps others out of a folder; None when nobody does. Nothing is written, and the lock is free at once."""
    try:
        with open(folder / "lock", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _read(lock.read())
    except FileNotFoundError:
        pass
    return None


def shards_at_work(run: Path) -> dict[str, Holder]:
    """The shards of a run that are being labeled (shards.py), and who is at each."""
    folders = sorted(run.glob("iteration-*/shards/*.lock"))
    return {folder.stem: at_it for folder in folders if (at_it := holder(folder))}


def _read(text: str) -> Holder:
    pid, *more = text.split() or ["unknown"]
    return Holder(pid, *more[-1:])
