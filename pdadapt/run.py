"""The run folder: the only place that knows its paths. Stages leave a marker when done; a lock keeps others out.

RUN/
  recipe.yaml           the resolved settings
  run.json              what the run was made from: hashes of corpus and queries, versions
  labels.sqlite         what the teacher said (labels.py)
  student/              the student before training
  iteration-0/          base: test.run and its index
  iteration-N/          candidates.run, lists.jsonl, train.jsonl, checkpoint/, test.run, index/
  metrics.json          base against adapted
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pdadapt.errors import DataError, RunError, reason
from pdadapt.readers import open_text
from pdadapt.recipe import Recipe

Ranking = dict[str, list[tuple[str, float]]]  # query_id -> (doc_id, score), best first

# Settings of speed and memory, which may differ when a run goes on: they change no finished artefact.
FREE = (
    "teacher.batch_tokens",
    "teacher.concurrency",
    "teacher.compile",
    "teacher.device_map",
    "retrieve.batch_tokens",
    "train.chunk_tokens",
    "train.gradient_cache",
    "train.gradient_checkpointing",
    "train.save_steps",
    "train.report_to",
)
BEGINNINGS = ("lock", "recipe.yaml", "run.json")  # what a run that was killed as it began may have left


class RunFolder:
    def __init__(self, path: Path):
        self.path = path
        self.recipe_file = path / "recipe.yaml"
        self.run_file = path / "run.json"
        self.metrics_file = path / "metrics.json"
        self.student = path / "student"

    def iteration(self, number: int) -> Path:
        """The folder of one iteration; 0 is the base student."""
        return self.path / f"iteration-{number}"

    def checkpoint(self, number: int) -> Path:
        """The student after `number` iterations."""
        return self.student if number == 0 else self.iteration(number) / "checkpoint"

    def store(self, recipe: Recipe) -> Path:
        """The label store: the run's own, or the one that the recipe shares."""
        return Path(recipe.label_store) if recipe.label_store else self.path / "labels.sqlite"

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Keep other processes out of this run. Raises RunError when the folder is not empty and holds no run."""
        there = self.path.iterdir() if self.path.is_dir() and not self.run_file.exists() else ()
        if any(not entry.name.startswith(BEGINNINGS) for entry in there):
            raise RunError(f"{self.path} is not empty and holds no run; give another --out.")
        return locked(self.path)

    def claim(self, recipe: Recipe, origin: dict[str, Any]) -> None:
        """Begin a run here, or make sure that the one begun here is the same.

        origin: what the run is made from besides the recipe. More iterations than before may be asked, `versions` of
        packages and settings of memory (FREE) may differ, and the teacher until it has labeled a list; anything else
        that does raises RunError, naming it, and nothing is touched.
        """
        wanted = json.loads(recipe.model_dump_json())
        labeled = any(self.path.glob("iteration-*/lists.jsonl"))
        if self.run_file.exists():
            begun = with_defaults(read_settings(self.recipe_file))
            found = read_settings(self.run_file)
            changes = differences(begun, wanted) + differences(found, {**origin, "versions": found.get("versions")})
            changes = [change for change in changes if change[0] not in FREE]
            changes = [change for change in changes if labeled or not change[0].startswith("teacher")]
            changes = [change for change in changes if change[0] != "iterations" or change[1] > change[2]]
            if changes:
                named = "; ".join(f"{key} was {old!r}, now {new!r}" for key, old, new in changes)
                raise RunError(
                    f"{self.path} holds a run with other settings ({named}); give another --out "
                    "(its labels serve again where teacher and prompts are the same: "
                    f"--set label_store={self.path}/labels.sqlite)."
                )
        write_atomic(self.recipe_file, yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True))
        if not labeled:
            write_atomic(self.run_file, json.dumps(origin, indent=2) + "\n")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of this folder. Raises RunError when one is in it; a killed one leaves no lock."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock_file = open(folder / "lock", "a+")  # noqa: SIM115
    except OSError as error:
        raise RunError(f"{folder} cannot be written to ({error.strerror}); give another folder.") from None
    with lock_file as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise RunError(
                f"{folder} is in use by another pdadapt (process {lock.read().strip() or 'unknown'}); wait for it, or "
                "give another folder."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def check_place(path: Path) -> None:
    """Raises RunError when a file stands where the folder of this path should."""
    above = next(parent for parent in (*path.parents, Path()) if parent.exists())
    if not above.is_dir():
        raise RunError(f"{path} cannot be made, for {above} is a file; give another place.")


def read_settings(path: Path) -> dict[str, Any]:
    """What a run's YAML or JSON file holds, by key. Raises RunError when it is damaged."""
    try:
        found = (json.loads if path.suffix == ".json" else yaml.safe_load)(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RunError(f"{path} cannot be read ({reason(error)}): the run is damaged; give another folder.") from None
    if not isinstance(found, dict):
        raise RunError(f"{path} holds no settings: the run is damaged; give another folder.")
    return found


def with_defaults(tree: dict[str, Any]) -> dict[str, Any]:
    """A recipe of an earlier version with the settings that came since; as it is when it is no recipe any more."""
    try:
        filled: dict[str, Any] = json.loads(Recipe.model_validate(tree).model_dump_json())
    except ValidationError:
        return tree
    return filled


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Where two trees differ: (dotted key, old, new)."""
    found: list[tuple[str, Any, Any]] = []
    for key in {**old, **new}:
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append((prefix + key, a, b))
    return found


def write_atomic(path: Path, text: str | Iterable[str]) -> None:
    """Write a file, or its lines, so that it is there whole or not at all, even after kill -9."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "w", encoding="utf-8") as file:
        file.writelines([text] if isinstance(text, str) else text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that takes its name only when whole; an unfinished one from before is removed."""
    temporary = path.with_name(path.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise RunError(f"{path} cannot be made ({error.strerror}); give another folder.") from None
    yield temporary
    mask = os.umask(0)
    os.umask(mask)
    for file in temporary.rglob("*"):
        file.chmod((0o777 if file.is_dir() else 0o666) & ~mask)  # safetensors writes for its user alone
    shutil.rmtree(path, ignore_errors=True)
    os.replace(temporary, path)


def write_run(path: Path, ranking: Ranking, tag: str) -> None:
    """A TREC run file: query_id Q0 doc_id rank score tag."""
    lines = (
        f"{query_id} Q0 {doc_id} {rank} {score:.6f} {tag}\n"
        for query_id, ranked in ranking.items()
        for rank, (doc_id, score) in enumerate(ranked, 1)
    )
    write_atomic(path, lines)


def read_run(path: Path) -> Ranking:
    """The rankings of a TREC run file, in the order of their scores, as trec_eval reads it.

    Raises DataError, with file and line, when it is not one.
    """
    ranking: Ranking = {}
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            fields = line.split()
            if len(fields) < 6 or not _is_number(fields[4]):
                raise DataError(
                    f"{path}:{number}: not a line of a TREC run; write six fields, query_id Q0 doc_id rank score tag."
                )
            ranking.setdefault(fields[0], []).append((fields[2], float(fields[4])))
    for query_id, ranked in ranking.items():
        if len({doc_id for doc_id, _ in ranked}) < len(ranked):
            raise DataError(f"{path}: query {query_id!r} ranks a document twice; keep the first of the two.")
    return {query_id: sorted(ranked, key=lambda entry: -entry[1]) for query_id, ranked in ranking.items()}


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def label_store(folder: Path) -> Path:
    """Where the run keeps its labels. Raises RunError when the folder is no run."""
    if not (folder / "recipe.yaml").is_file():
        raise RunError(f"{folder} holds no run; give the folder of a `pdadapt adapt`.")
    shared = read_settings(folder / "recipe.yaml").get("label_store")
    return Path(shared) if shared else folder / "labels.sqlite"


def last_checkpoint(name: str) -> str:
    """Of a run folder the checkpoint for use, or the newest while it goes on; any other model name as it is."""
    run = RunFolder(Path(name))
    if not run.run_file.is_file():
        return name
    found = [int(path.parent.name.split("-")[1]) for path in run.path.glob("iteration-*/checkpoint")]
    if not found:
        raise RunError(f"{name} holds no checkpoint yet; finish it by running the same `pdadapt adapt` again.")
    metrics = read_settings(run.metrics_file) if run.metrics_file.exists() else {}
    return str(run.checkpoint(metrics.get("iteration", max(found))))
