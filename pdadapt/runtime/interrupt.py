"""Ctrl-C and SIGTERM end the program at once: nothing that is finished is lost by it, as by a kill."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE_PERIOD = 1.0  # seconds to unwind in
STOP_MESSAGE = "Stopped. What is finished is kept: the same command goes on from there."
SHOW_CURSOR = "\x1b[?25h"


class Stopped(SystemExit):
    """Someone asked to end: of a kind that event loops let through, but no KeyboardInterrupt, which the command-line
    library would take for its own.
    """


def install_signal_handlers() -> None:
    """From now on the main thread raises Stopped when a signal comes; if that does not end the program within GRACE,
    since native code does not return or something is being waited for, a thread of its own does.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, _raise_stopped)
    threading.Thread(target=_watch_signals, args=(read,), daemon=True).start()


def ignore_signals() -> None:
    """From now on a signal changes nothing: the program has been stopped, or has done its work and is leaving."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _raise_stopped(number: int, _frame: object) -> None:
    ignore_signals()  # a launcher sends a second signal when Ctrl-C was the first
    raise Stopped(number)


def _watch_signals(read: int) -> None:
    """Signals are told through a pipe as they come, whatever the main thread is at."""
    number = 0
    while number not in SIGNALS:
        number = os.read(read, 1)[0]
    time.sleep(GRACE_PERIOD)
    exit_at_once(number)


def exit_at_once(number: int) -> None:
    """Say so and leave, without waiting for anything."""
    with contextlib.suppress(OSError):  # who read it was stopped too
        if sys.stderr.isatty():
            sys.stderr.write(SHOW_CURSOR)
        sys.stderr.write(STOP_MESSAGE + "\n")
        sys.stderr.flush()
    os._exit(128 + number)
