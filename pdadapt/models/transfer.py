"""A model's files, to be sent to a machine that does not share this disk."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pdadapt.models.source import resolve_model

FileContents = dict[str, bytes]  # by name: a local model's files (model/...), or a prompt of the user's own


def read_model_files(model: str) -> FileContents:
    """The files of a model that is a folder or a file on this machine. Empty for any other model."""
    source = resolve_model(model)
    if not source.is_local or model.startswith("package:"):
        return {}
    folder = Path(source.path)
    return {f"model/{file.relative_to(folder)}": file.read_bytes() for file in source.files()}


def unpacked_model(model: str, folder: Path) -> str:
    """The model's name on a machine where its files, if any, are unpacked into this folder."""
    own = folder / "model"
    if not own.is_dir():
        return model
    return str(own / Path(model).name) if model.endswith(".gguf") else str(own)


@contextlib.contextmanager
def unpack_files(files: FileContents) -> Iterator[Path]:
    """A temporary folder that holds these files."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        yield Path(folder)
