"""What every worker does: report progress, and end when a process that it depends on ends. Needs no packages."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import TextIO


def start(watch: Callable[[], None] = lambda: None) -> Callable[[int], None]:
    """Redirect stdout to stderr, start a watching thread, and return the function that reports units done.

    The thread ends the worker when the parent process has ended, or when a process that the worker started has died:
    colbert-ai would wait forever for its answer.
    watch: called every second as well.
    """
    report: TextIO = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    started: list[BaseProcess] = []
    start_process = BaseProcess.start

    def remember(process: BaseProcess) -> None:
        start_process(process)
        started.append(process)

    BaseProcess.start = remember  # type: ignore[method-assign, assignment]
    threading.Thread(target=_watch_processes, args=(os.getppid(), started, watch), daemon=True).start()

    def done(units: int) -> None:
        print(units, file=report, flush=True)

    return done


def _watch_processes(parent: int, started: list[BaseProcess], watch: Callable[[], None]) -> None:
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
