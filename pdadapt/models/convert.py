"""Pickled weights -> safetensors: the same tensors under the same names, beside the model's other files."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from pdadapt.errors import ModelError, RunError
from pdadapt.models.hub import LOADED_PATTERNS, fetch_files
from pdadapt.models.source import ModelSource, pickles_in, read_model_json, resolve_model, weight_folders
from pdadapt.runtime.files import atomic_folder
from pdadapt.runtime.progress import Progress

PICKLE_INDEX = "pytorch_model.bin.index.json"  # says which of several files holds a tensor


def convert_to_safetensors(name: str, out: Path, progress: Progress) -> None:
    """Write the model `name` (a hub id or a folder) to the new folder `out`, which appears whole or not at all.

    No code is run: a pickle that holds more than tensors is refused. A pickle can share tied weights, and safetensors
    cannot: they are written once under each of their names. Configuration and tokenizer are copied.

    Raises ModelError when there are no pickled weights, or they cannot be read. Raises RunError when `out` exists.
    """
    if out.exists():
        raise RunError(f"{out} already exists. Give another folder.")
    source = resolve_model(name)
    pickles = pickled_weights(source)
    others = [name for name in source.names() if any(fnmatch(name, pattern) for pattern in LOADED_PATTERNS)]
    folders = {Path(name).parent for name in pickles}
    names = [*pickles, *(name for name in others if Path(name).name != PICKLE_INDEX or Path(name).parent in folders)]
    folder = source.folder or fetch_files(source.path, source.revision, names)
    with atomic_folder(out) as target, progress.task("convert", len(pickles), "files") as advance:
        for each in sorted(names):
            place = target / safetensors_name(each)
            place.parent.mkdir(parents=True, exist_ok=True)
            if each in pickles:
                save_file(unshare_memory(read_pickle(folder / each)), place, {"format": "pt"})
                advance(1)
            elif Path(each).name == PICKLE_INDEX:
                place.write_text(json.dumps(converted_index(folder / each), indent=2) + "\n", encoding="utf-8")
            else:
                shutil.copyfile(folder / each, place)


def pickled_weights(source: ModelSource) -> set[str]:
    """The names of the pickled weights that are loaded: those without safetensors in their folder.

    Raises ModelError when there are none.
    """
    folders = [] if source.gguf_file else [folder for folder in weight_folders(source) if not source.weights_in(folder)]
    found = {name for folder in folders for name in pickles_in(source.names(), folder)}
    if not found:
        raise ModelError(
            f"Model {source.name!r} has no pickled weights (pytorch_model.bin) to convert. Give a model that has."
        )
    return found


def safetensors_name(name: str) -> str:
    """The new name of a file of pickled weights or of their index. Any other file keeps its name."""
    return re.sub(r"(^|/)pytorch_(model(?:-\d+-of-\d+)?)\.bin", r"\1\2.safetensors", name)


def converted_index(file: Path) -> dict[str, Any]:
    """The index of the converted files."""
    found = read_model_json(file, dict)
    parts = found.get("weight_map")
    if not isinstance(parts, dict):
        raise ModelError(f"{file} does not say which file holds which tensor (weight_map). Fetch it again.")
    return {**found, "weight_map": {tensor: safetensors_name(str(part)) for tensor, part in parts.items()}}


def read_pickle(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, by name. Raises ModelError when the file is cut short, or holds anything else."""
    try:
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except (OSError, MemoryError):
        raise
    except Exception as error:  # bytes that are no pickle can raise anything
        if "GLOBAL" in str(error):
            raise ModelError(f"{file} holds code, which pdadapt does not run. Give another model.") from None
        raise ModelError(f"{file} is cut short or damaged. Fetch it again.") from None
    if not isinstance(found, dict) or not found or not all(map(_is_weight, found.keys(), found.values())):
        raise ModelError(f"{file} holds no table of weights by name. Give another model.")
    return found


def _is_weight(name: object, tensor: object) -> bool:
    """Whether safetensors can hold it: a plain tensor under a name."""
    return (
        isinstance(name, str)
        and isinstance(tensor, torch.Tensor)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        and not tensor.is_complex()
    )


def unshare_memory(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors, with those copied that share memory or are a part of a larger tensor."""
    seen: set[int] = set()
    found = {}
    for name, shared in tensors.items():
        tensor = shared.detach().contiguous()
        memory = tensor.untyped_storage()
        if memory.data_ptr() in seen or memory.nbytes() > tensor.nbytes:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        found[name] = tensor
    return found
