"""What every worker does: report progress, and never outlive a process that it belongs to. Needs nothing installed."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import TextIO


def start(watch: Callable[[], None] = lambda: None) -> Callable[[int], None]:
    """Turn everything printed to stderr, and watch from a thread; returns what reports units done.

    The worker ends when its parent has gone, and when a process that it started has died (colbert-ai would wait for
    that one's answer for ever). watch: called every second too.
    """
    report: TextIO = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    started: list[BaseProcess] = []
    start_process = BaseProcess.start

    def remember(process: BaseProcess) -> None:
        start_process(process)
        started.append(process)

    BaseProcess.start = remember  # type: ignore[method-assign, assignment]
    threading.Thread(target=_watch, args=(os.getppid(), started, watch), daemon=True).start()

    def done(units: int) -> None:
        print(units, file=report, flush=True)

    return done


def _watch(parent: int, started: list[BaseProcess], watch: Callable[[], None]) -> None:
    while True:
        dead = [process for process in started if process.exitcode]
        if dead or os.getppid() != parent:
            for process in started:
                process.kill()
            if dead:
                print(f"{dead[0].name} died with code {dead[0].exitcode}", file=sys.stderr, flush=True)
            os._exit(1)
        watch()
        time.sleep(1)
