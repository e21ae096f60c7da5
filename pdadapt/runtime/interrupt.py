"""Ctrl-C and SIGTERM end the program at once. As after a kill, finished work is kept."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE_PERIOD = 1.0  # seconds to unwind in
STOP_MESSAGE = "Stopped. Finished work is kept. Run the same command to continue."
SHOW_CURSOR = "\x1b[?25h"


class Stopped(SystemExit):
    """Someone asked the program to end.

    It is a SystemExit, because event loops let that through. It is no KeyboardInterrupt, because the command-line
    library catches that.
    """


def install_signal_handlers() -> None:
    """Let the main thread raise Stopped when a signal comes.

    Native code or a wait can keep the main thread busy. So a second thread ends the program after GRACE_PERIOD.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, _raise_stopped)
    threading.Thread(target=_watch_signals, args=(read,), daemon=True).start()


def ignore_signals() -> None:
    """Ignore signals from now on: the program has been stopped, or has done its work and is leaving."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _raise_stopped(number: int, _frame: object) -> None:
    ignore_signals()  # a launcher sends a second signal when Ctrl-C was the first
    raise Stopped(number)


def _watch_signals(read: int) -> None:
    """Wait for a signal. Signals come through a pipe, whatever the main thread does."""
    number = 0
    while number not in SIGNALS:
        number = os.read(read, 1)[0]
    time.sleep(GRACE_PERIOD)
    exit_at_once(number)


def exit_at_once(number: int) -> None:
    """Print the message and leave, without waiting for anything."""
    with contextlib.suppress(OSError):  # the reader was stopped too
        if sys.stderr.isatty():
            sys.stderr.write(SHOW_CURSOR)
        sys.stderr.write(STOP_MESSAGE + "\n")
        sys.stderr.flush()
    os._exit(128 + number)
