"""The Hugging Face hub: which files a model has there, or in the cache, and how to get them."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from pdadapt.errors import ModelError

LOADED_PATTERNS = (  # the files that are loaded; a repository may hold the same weights in five formats
    "*model*.safetensors",
    "*.json",
    "*.txt",
    "*.model",
    "*.jinja",
    "*.spm",
    "*.codes",
    "*.tiktoken",
    "artifact.metadata",
)
CONFIG_NAMES = ("config.json", "modules.json")  # every model has one of them
HUB_TIMEOUT = 10.0  # seconds to wait for an answer


class Repository(NamedTuple):
    """A model's files, by their names in its repository."""

    names: frozenset[str]
    folder: Path | None = None  # the folder on this disk that holds all of them; None: they are on the hub
    commit: str | None = None  # as the hub named it


@functools.cache
def find_repository(repo: str, revision: str | None) -> Repository:
    """The files of a model on the hub (one request), or in the cache when the hub does not answer.

    Raises ModelError when the hub has no such model or revision, and when neither hub nor cache can tell.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError, HTTPError

    try:
        found = HfApi().model_info(repo, revision=revision, timeout=HUB_TIMEOUT)
        return Repository(frozenset(file.rfilename for file in found.siblings or []), commit=found.sha)
    except HFValidationError:
        raise ModelError(
            f"Model {repo!r} is neither an existing folder nor a hub id such as `google/flan-t5-xl`."
        ) from None
    except (HTTPError, OSError, ValueError) as error:  # ValueError: a network answered with a page of its own
        _raise_if_refused(repo, revision, error)
        for name in CONFIG_NAMES:
            file = try_to_load_from_cache(repo, name, revision=revision)
            if isinstance(file, str):
                return Repository(frozenset(files_below(Path(file).parent)), Path(file).parent)
        _raise_unavailable(repo, revision, error)


@functools.cache
def download(repo: str, name: str, revision: str | None) -> Path:
    """The path of a file of the repository. Raises ModelError when neither cache nor network has it.

    A request by commit does not ask the hub about cached files again. The first files are requested by the revision's
    name, so that the cache knows, without a network, which commit the name means.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HTTPError

    known = find_repository(repo, revision)
    at = revision if name in CONFIG_NAMES else known.commit or revision
    try:
        return known.folder / name if known.folder else Path(hf_hub_download(repo, name, revision=at))
    except (HTTPError, OSError) as error:
        _raise_if_refused(repo, revision, error)
        _raise_unavailable(repo, revision, error)


def fetch_files(repo: str, revision: str | None, names: Sequence[str]) -> Path:
    """Fetch these files; returns the cache's folder that holds them. Raises ModelError when they cannot be fetched."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(names)))
    except (HTTPError, OSError) as error:
        _raise_if_refused(repo, revision, error)
        _raise_unavailable(repo, revision, error)


def files_below(folder: Path) -> Iterator[str]:
    """The names of the files in a folder, relative to it, without hidden ones such as those of `hf download`."""
    names = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    return (name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts))


def fetch_command(repo: str, revision: str | None) -> str:
    """The command that fetches the files that are loaded, and no others."""
    at = ["--revision", revision] if revision else []
    patterns = [part for pattern in LOADED_PATTERNS for part in ("--include", pattern)]
    return f"`{shlex.join(['hf', 'download', repo, *at, *patterns])}`"


def _raise_if_refused(repo: str, revision: str | None, error: Exception) -> None:
    """Raises ModelError when the hub has refused the model."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        raise ModelError(
            f"Model {repo!r} can be fetched only after you accept its terms. Accept them on "
            f"https://huggingface.co/{repo}, and run `hf auth login`."
        ) from None
    if isinstance(error, RepositoryNotFoundError):
        raise ModelError(
            f"The hub has no model {repo!r}, or shows it to its owner only. Check the name, or run `hf auth login`."
        ) from None
    if isinstance(error, RevisionNotFoundError):
        raise ModelError(f"Model {repo!r} has no revision {revision!r}. Give one that exists, or none.") from None


def _raise_unavailable(repo: str, revision: str | None, error: Exception) -> NoReturn:
    raise ModelError(
        f"Model {repo!r} is not in the local cache, and the hub did not deliver it ({type(error).__name__}). Fetch it "
        f"where there is a network with {fetch_command(repo, revision)}, and give the folder. Or use the embedded "
        "models (`--recipe small`)."
    ) from None
