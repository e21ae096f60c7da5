"""Files and folders that are whole or absent, and the folders that ship with the package."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from pdadapt.errors import RunError, reason


def resource_folder(name: str) -> Path:
    """The folder `prompts` or `recipes`: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    return package / name if (package / name).is_dir() else package.parent / name


def check_parent_folder(path: Path) -> None:
    """Raises RunError when a file stands where the folder of this path should."""
    above = next(parent for parent in (*path.parents, Path()) if parent.exists())
    if not above.is_dir():
        raise RunError(f"{path} cannot be made, because {above} is a file. Give another place.")


def read_settings(path: Path) -> dict[str, Any]:
    """The content of a run's YAML or JSON file, by key. Raises RunError when the file is damaged."""
    try:
        found = (json.loads if path.suffix == ".json" else yaml.safe_load)(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        said = reason(error)
        raise RunError(f"{path.parent} holds a damaged run ({path.name}: {said}). Give another folder.") from None
    if not isinstance(found, dict):
        raise RunError(f"{path.parent} holds a damaged run ({path.name}: no settings). Give another folder.")
    return found


def write_atomic(path: Path, text: str | Iterable[str]) -> None:
    """Write a text, or lines, to a file. The file is whole or absent, even after kill -9."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "w", encoding="utf-8", errors="backslashreplace") as file:  # paths may not be UTF-8
        file.writelines([text] if isinstance(text, str) else text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder to fill. It takes its name when it is whole. An unfinished one from before is removed."""
    temporary = path.with_name(path.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise RunError(f"{path} cannot be made ({error.strerror}). Give another folder.") from None
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    mask = os.umask(0)
    os.umask(mask)
    for file in temporary.rglob("*"):
        file.chmod((0o777 if file.is_dir() else 0o666) & ~mask)  # safetensors lets only its user read
    shutil.rmtree(path, ignore_errors=True)
    os.replace(temporary, path)
