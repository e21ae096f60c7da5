"""The run folder: its paths, its lock, and whether a run can be started, resumed or restarted in it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag

import yaml

from pdadapt.data.lines import has_utf8_name
from pdadapt.errors import RunError
from pdadapt.runs.changes import LABEL_KEYS, UNCOMPARED_PARTS, Change, differences, name_changes, with_defaults
from pdadapt.runs.shard_states import name_shards_at_work, unmerged
from pdadapt.runs.stages import (
    MAY_COME_FIRST,
    RERANKER_FILES,
    STAGE_NAMES,
    STAGES,
    StageName,
    artefacts_before,
    is_free,
    stage_that_reads,
)
from pdadapt.runtime.files import read_settings, write_atomic
from pdadapt.runtime.locks import locked
from pdadapt.settings.schema import Recipe

PACKAGES = ("pdadapt", "torch", "transformers", "sentence-transformers")


class RunFolder:
    """The folder of one run. runs/stages.py says what lies in it."""

    def __init__(self, path: Path):
        self.path = path
        self.recipe_file = path / "recipe.yaml"
        self.run_file = path / "run.json"
        self.metrics_file = path / "metrics.json"
        self.values_file = path / "queries.tsv"
        self.written_queries = path / "queries.jsonl"
        self.student = path / "student"

    def iteration(self, number: int) -> Path:
        """The folder of an iteration; 0 is the base student."""
        return self.path / f"iteration-{number}"

    def checkpoint(self, number: int) -> Path:
        """The student after `number` iterations."""
        return self.student if number == 0 else self.iteration(number) / "checkpoint"

    def store(self, recipe: Recipe) -> Path:
        """The label store: that of the recipe, or the run's own."""
        return Path(recipe.label_store) if recipe.label_store else self.path / "labels.sqlite"

    def locked(self, shared: bool = False) -> contextlib.AbstractContextManager[None]:
        """Keep other processes out of this run. shared: let in those that share it too."""
        return locked(self.path, shared, name_shards_at_work)

    def claim(
        self, recipe: Recipe, origin: dict[str, Any], restart_from: StageName | None = None, staged: bool = True
    ) -> str:
        """Start a run here, or make sure that it can be resumed; return what `check` says.

        Results that a restart redoes are removed. Raises what `check` raises.
        """
        said, outdated = self.check(recipe, origin, restart_from, staged)
        removed = self.path / "removed"
        for number, path in enumerate(outdated):
            removed.mkdir(exist_ok=True)
            os.replace(
                path, removed / f"{number}-{os.getpid()}-{path.name}"
            )  # Move, then remove: a kill must not leave half a folder.
        shutil.rmtree(removed, ignore_errors=True)
        write_atomic(self.recipe_file, dump(recipe))
        if said or not self.run_file.exists():
            write_atomic(self.run_file, json.dumps(origin, indent=2) + "\n")
        return said

    def check(
        self, recipe: Recipe, origin: dict[str, Any], restart_from: StageName | None = None, staged: bool = True
    ) -> tuple[str, list[Path]]:
        """Find out whether a run with these settings can start or resume here. Nothing is changed.

        origin: what the run is made from besides the recipe (run.json). These may differ: versions of packages,
        settings of speed and memory, and settings that no started stage reads. staged: False if every stage reads
        every setting.

        Returns a sentence about what differs, or an empty text; and what a restart from `restart_from` must remove.
        Raises RunError if something else differs, and restart_from is missing or too late a stage.
        """
        if not has_utf8_name(self.path):
            raise RunError(f"{self.path}: the name is not UTF-8, so no model can be saved there. Choose another --out.")
        if not self.run_file.exists():
            if self.path.is_dir() and any(not entry.name.startswith(MAY_COME_FIRST) for entry in self.path.iterdir()):
                raise RunError(f"{self.path} is not empty and holds no run. Choose another --out.")
            if restart_from:
                raise RunError(
                    f"--restart-from: {self.path} holds no run to restart. Check --out, or leave out --restart-from."
                )
            return "", []
        changes = self._changes(json.loads(recipe.model_dump_json()), origin, staged)
        stages = {key: stage_that_reads(key) if staged else STAGE_NAMES[0] for key, *_ in changes}
        stale = [change for change in changes if self._has_begun(stages[change[0]])]
        if not stale:
            if changes:
                return f"Changed settings that no stage has read yet: {name_changes(changes)}.", []
            same = "No setting that a stage has read has changed, so nothing is redone."
            return (same if restart_from else ""), []
        earliest = min((stages[key] for key, *_ in stale), key=STAGE_NAMES.index)
        if restart_from is None or STAGE_NAMES.index(restart_from) > STAGE_NAMES.index(earliest):
            redo = (
                f"Redo stage {earliest} and all later ones with --restart-from {earliest}, or choose another --out."
                if staged
                else "Choose another --out."
            )
            raise RunError(
                f"{self.path} holds a run with other settings: {name_changes(stale, staged)}. {redo} Labels of the "
                f"same teacher and prompts can be reused (--set label_store={self.path}/labels.sqlite)."
            )
        outdated = self.outputs(restart_from)
        if any(stages[key] == "evaluate" for key, *_ in stale):  # measures of the base are outdated too
            measured = self.outputs("evaluate")
            outdated += [path for path in measured if not {path, *path.parents} & set(outdated)]
        if shards := [store for store in unmerged(self.path) if set(store.parents) & set(outdated)]:
            raise RunError(
                f"{self.path} has shards whose labels would be lost ({', '.join(file.stem for file in shards)}). Merge "
                f"them first: pdadapt labels merge {self.path}"
            )
        return f"Redone from stage {restart_from}, because {name_changes(stale)}.", outdated

    def _has_begun(self, stage: StageName) -> bool:
        """Whether this stage or a later one has left something, even unfinished."""
        return any(path.name != "report.html" and path.suffix != ".part" for path in self.outputs(stage))

    def outputs(self, stage: StageName) -> list[Path]:
        """What this stage and the later ones have left here, newest iteration first: what a restart removes.

        The label store is never among it.

        Everything in the folder of an iteration counts, unless an earlier stage wrote it. Label and train do not touch
        iteration-0, which belongs to the base student.
        """
        folders = sorted(self.path.glob("iteration-*"), key=lambda folder: -int(folder.name.split("-")[1]))
        results = [artefact.path for artefact in STAGES[-1].writes]
        found = [self.path / name for name in results if "/" not in name]
        if stage == STAGES[-1].name:
            found += [folder / name.split("/")[1] for folder in folders for name in results if "/" in name]
        elif stage in ("label", "train"):
            found += [folder for folder in folders if folder.name not in ("iteration-0", "iteration-1")]
            earlier = artefacts_before(stage)
            found += [entry for entry in self.iteration(1).glob("*") if entry.name not in earlier]
        else:
            found += folders
        if stage == STAGE_NAMES[0]:
            found += [self.student, *(self.path / name for name in RERANKER_FILES)]
        return [path for path in dict.fromkeys(found) if path.exists()]

    def _changes(self, wanted: dict[str, Any], origin: dict[str, Any], staged: bool) -> list[Change]:
        """What differs from the run in this folder and must not. Raises RunError if its files are unusable."""
        found, begun = read_settings(self.run_file), read_settings(self.recipe_file)
        if ("reranker" in found) != ("reranker" in origin):
            raise RunError(f"{self.path} holds a run of another command. Choose another --out.")
        if "corpus_sha256" in origin and "corpus_sha256" not in found:
            raise RunError(f"{self.path} holds a run of another version (run.json). Choose another --out.")
        version = found.get("versions", {}).get("pdadapt", "another version")
        changes = differences(with_defaults(begun, f"{self.path} (begun by pdadapt {version})"), wanted)
        named = {key.rpartition(".")[2] for key, *_ in changes if key.startswith("teacher.")}
        changes += [
            change
            for change in differences(found, {**origin, **{key: found.get(key) for key in UNCOMPARED_PARTS}})
            if not (
                change[0].startswith(LABEL_KEYS) and change[0].rpartition(".")[2] in named
            )  # The setting itself is named.
        ]
        changes = [change for change in changes if not is_free(change[0], staged)]
        return [
            (key, old, new)
            for key, old, new in changes
            if key != "iterations" or (new < old and self.iteration(new + 1).exists())
            if not (key.endswith(".model") and _served_alike(old, new))
        ]


def student_name(number: int) -> str:
    """The name of the student after this many iterations, in tables and files that compare students."""
    return f"iteration-{number}" if number else "base"


def _served_alike(old: str | None, new: str | None) -> bool:
    """Whether both names mean one model, served at two addresses."""
    (url, name), (other_url, other_name) = urldefrag(old or ""), urldefrag(new or "")
    return url.startswith("http") and other_url.startswith("http") and name == other_name


def dump(recipe: Recipe) -> str:
    """Every setting as YAML."""
    text: str = yaml.safe_dump(json.loads(recipe.model_dump_json()), sort_keys=False, allow_unicode=True)
    return text


def store_of_run(folder: Path) -> Path:
    """The label store of a run. Raises RunError if the folder is not a run."""
    if not (folder / "recipe.yaml").is_file():
        raise RunError(f"{folder} holds no run. Give the folder of a `pdadapt adapt`.")
    shared = read_settings(folder / "recipe.yaml").get("label_store")
    return Path(shared) if shared else folder / "labels.sqlite"


def last_checkpoint(name: str) -> str:
    """The checkpoint to use of a run folder, or its newest while the run goes on. Other names are returned as given.

    Raises RunError if the run has no checkpoint yet.
    """
    run = RunFolder(Path(name))
    if not run.run_file.is_file():
        return name
    found = [int(path.parent.name.split("-")[1]) for path in run.path.glob("iteration-*/checkpoint")]
    if not found:
        raise RunError(f"{name} has no checkpoint yet. Repeat its `pdadapt adapt` command to finish it.")
    metrics = read_settings(run.metrics_file) if run.metrics_file.exists() else {}
    return str(run.checkpoint(metrics.get("iteration", max(found))))
