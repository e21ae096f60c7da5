"""Server processes for tests: a script of this folder that prints its address and serves until it is killed."""

import contextlib
import subprocess
import sys
from pathlib import Path


@contextlib.contextmanager
def serving(script, *arguments):
    """A server process; what it prints first says where it listens."""
    command = [sys.executable, str(Path(__file__).with_name(script)), *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    yield process.stdout.readline().strip()
    process.kill()
    process.wait()
    process.stdout.close()
