"""Environments of their own, for engines whose packages cannot live beside ours; spoken to in files and lines."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from pdadapt.errors import ModelError
from pdadapt.retrieval.engines.base import Advance
from pdadapt.runtime.files import write_atomic

WORKERS = Path(__file__).parent / "workers"


def requirements(engine: str) -> list[str]:
    """What pip installs for an engine; colbert-ai 0.2.22 fails beside newer transformers and datasets."""
    if engine == "plaid":
        return ["fast-plaid>=1.7", "safetensors>=0.5"]
    faiss = "faiss-gpu-cu12" if torch.cuda.is_available() else "faiss-cpu"
    ours = f"torch=={torch.__version__.partition('+')[0]}"
    return [ours, "colbert-ai>=0.2.22", "transformers<5", "datasets<4.5", faiss, "ninja"]


def environment_folder(engine: str) -> Path:
    """Where an engine's environment is: PDADAPT_CACHE, or pdadapt in the user's cache."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("PDADAPT_CACHE") or f"{caches}/pdadapt").expanduser().absolute() / engine


def set_up(engine: str) -> Path:
    """Build an engine's environment, or keep the one that is there; returns its folder.

    Raises ModelError with pip's last words; what is half built is built anew by the next call.
    """
    folder = environment_folder(engine)
    if (folder / "ready").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True, text=True)
        pip = [str(_python(folder)), "-m", "pip", "install", "--disable-pip-version-check", *requirements(engine)]
        subprocess.run(pip, check=True, stderr=subprocess.PIPE, text=True, env=_environment(folder))
    except subprocess.CalledProcessError as error:
        reason = next(
            (line for line in error.stderr.splitlines() if line.startswith("ERROR")), _last_line(error.stderr)
        )
        raise ModelError(f"The environment of {engine} could not be built in {folder}: {reason}") from None
    write_atomic(folder / "ready", "\n".join(requirements(engine)) + "\n")
    return folder


def interpreter(engine: str) -> Path:
    """The Python that has the engine's packages. Raises ModelError when its environment was not built."""
    if engine == "plaid" and importlib.util.find_spec("fast_plaid"):
        return Path(sys.executable)
    folder = environment_folder(engine)
    if not (folder / "ready").exists():
        raise ModelError(f"retrieve.engine={engine} needs an environment of its own; run `pdadapt setup-{engine}`.")
    return _python(folder)


def work(engine: str, arguments: Sequence[object], log: Path, advance: Advance) -> None:
    """Run an engine's worker; each line that it prints is a number of units more that are done.

    log: a file for everything else that it says. Raises ModelError when the environment lacks, or the worker fails.
    """
    command = [str(part) for part in (interpreter(engine), WORKERS / f"{engine}_worker.py", *arguments)]
    environment = _environment(environment_folder(engine))
    with (
        open(log, "w", encoding="utf-8") as words,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=words, text=True, env=environment, start_new_session=True
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                advance(int(line))
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # its own processes too
            raise
    if process.returncode:
        reason = _last_line(log.read_text(encoding="utf-8", errors="replace"))
        raise ModelError(f"The {engine} engine stopped with code {process.returncode}: {reason}")


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _environment(folder: Path) -> dict[str, str]:
    """Ours without what would bring our packages along; its own programs (ninja) come first."""
    ours = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    return {**ours, "PATH": os.pathsep.join([str(folder / "bin"), ours.get("PATH", "")])}


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]
