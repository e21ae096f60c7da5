"""A model's files, sent to a machine that does not share this one's disk."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pdadapt.models.source import resolve_model

FileContents = dict[str, bytes]  # by name: of a model that is a folder here (model/...), a prompt of the user's own


def read_model_files(model: str) -> FileContents:
    """Of a model that is a folder or a file here, which other machines may not have."""
    source = resolve_model(model)
    if not source.is_local or model.startswith("package:"):
        return {}
    folder = Path(source.path)
    return {f"model/{file.relative_to(folder)}": file.read_bytes() for file in source.files()}


def unpacked_model(model: str, folder: Path) -> str:
    """The model's name where its files, if there are some, are unpacked into this folder."""
    own = folder / "model"
    if not own.is_dir():
        return model
    return str(own / Path(model).name) if model.endswith(".gguf") else str(own)


@contextlib.contextmanager
def unpack_files(files: FileContents) -> Iterator[Path]:
    """A folder that holds them, for as long as a model is loaded from it."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        yield Path(folder)
