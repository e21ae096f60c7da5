"""Locks of folders: one process writes, or several share. A killed process leaves no lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from pdadapt.errors import RunError


class Holder(NamedTuple):
    """The process that holds a folder's lock."""

    pid: str
    host: str = ""

    def __str__(self) -> str:
        return f"process {self.pid}" + (f" on {self.host}" if self.host else "")


@contextlib.contextmanager
def locked(folder: Path, shared: bool = False, sharers: Callable[[Path], str] | None = None) -> Iterator[None]:
    """Lock this folder against other processes. Raises RunError when another process holds it.

    shared: other processes may share the lock. sharers: names the processes that share the folder, for the error.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock_file = open(folder / "lock", "a+")  # noqa: SIM115
    except OSError as error:
        raise RunError(f"{folder} cannot be written to ({error.strerror}). Give another folder.") from None
    with lock_file as lock:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            who = (sharers and sharers(folder)) or str(_parse_holder(lock.read()))
            raise RunError(
                f"{folder} is in use by another pdadapt ({who}). Wait for it, or give another folder."
            ) from None
        if not shared:
            lock.truncate(0)
            lock.write(f"{os.getpid()} on {socket.gethostname()}")
            lock.flush()
        yield


def holder(folder: Path) -> Holder | None:
    """The process that holds a folder's lock; None when nobody does. It writes nothing and keeps no lock."""
    try:
        with open(folder / "lock", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _parse_holder(lock.read())
    except FileNotFoundError:
        pass
    return None


def _parse_holder(text: str) -> Holder:
    pid, *more = text.split() or ["unknown"]
    return Holder(pid, *more[-1:])
