"""Run engines in Python environments of their own, since their packages conflict with ours.

Data is exchanged in files, and progress as lines of the worker's output.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from pdadapt.errors import ModelError
from pdadapt.runtime.files import write_atomic

WORKERS = Path(__file__).parent / "workers"


def requirements(engine: str) -> list[str]:
    """Return the packages that pip installs for an engine.

    colbert-ai 0.2.22 does not work with newer versions of transformers and datasets.
    """
    if engine == "plaid":
        return ["fast-plaid>=1.7", "safetensors>=0.5"]
    faiss = "faiss-gpu-cu12" if torch.cuda.is_available() else "faiss-cpu"
    same_torch = f"torch=={torch.__version__.partition('+')[0]}"
    return [same_torch, "colbert-ai>=0.2.22", "transformers<5", "datasets<4.5", faiss, "ninja"]


def environment_folder(engine: str) -> Path:
    """Return the folder of an engine's environment, in PDADAPT_CACHE or in `pdadapt` of the user's cache."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("PDADAPT_CACHE") or f"{caches}/pdadapt").expanduser().absolute() / engine


def set_up(engine: str) -> Path:
    """Build an engine's environment unless it exists. Return its folder.

    An environment that was not completed is built again. Raises ModelError with pip's error.
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
        errors = (line for line in error.stderr.splitlines() if line.startswith("ERROR"))
        reason = next(errors, _last_line(error.stderr))
        raise ModelError(f"The environment of {engine} could not be built in {folder}: {reason}") from None
    write_atomic(folder / "ready", "\n".join(requirements(engine)) + "\n")
    return folder


def interpreter(engine: str) -> Path:
    """Return the Python with the engine's packages. Raises ModelError if its environment was not built."""
    if engine == "plaid" and importlib.util.find_spec("fast_plaid"):
        return Path(sys.executable)
    folder = environment_folder(engine)
    if not (folder / "ready").exists():
        raise ModelError(f"retrieve.engine={engine} needs an environment of its own. Run `pdadapt setup-{engine}`.")
    return _python(folder)


def run_worker(engine: str, arguments: Sequence[object], log: Path, advance: Callable[[int], None]) -> None:
    """Run an engine's worker script until it ends.

    advance: called with each number that the worker prints, the units done since the last one.
    log: the file for everything else that the worker prints.
    Raises ModelError if the environment is missing or the worker fails.
    """
    command = [str(part) for part in (interpreter(engine), WORKERS / f"{engine}_worker.py", *arguments)]
    environment = _environment(environment_folder(engine))
    with (
        open(log, "w", encoding="utf-8") as output,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=output, text=True, env=environment, start_new_session=True
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                advance(int(line))
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # also the processes that it started
            raise
    if process.returncode:
        reason = _last_line(log.read_text(encoding="utf-8", errors="replace"))
        raise ModelError(f"The {engine} engine stopped with code {process.returncode}: {reason}")


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _environment(folder: Path) -> dict[str, str]:
    """Return our environment variables without those that add our packages. PATH begins with the engine's programs."""
    variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    return {**variables, "PATH": os.pathsep.join([str(folder / "bin"), variables.get("PATH", "")])}


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it printed nothing"])[-1]
