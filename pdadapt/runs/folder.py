"""The order of the stages. Each leaves a file that is whole or absent; a stage whose file is there is not run again."""

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
from pdadapt.runs.changes import (
    FREE,
    KEPT,
    LABEL_KEYS,
    STAGES,
    UNCOMPARED,
    WRITING,
    Change,
    Stage,
    differences,
    name_changes,
    read_by,
    with_defaults,
)
from pdadapt.runs.shards import name_shards_at_work, unmerged
from pdadapt.runtime.files import read_settings, write_atomic
from pdadapt.runtime.locks import locked
from pdadapt.settings.schema import Recipe

PACKAGES = ("pdadapt", "torch", "transformers", "sentence-transformers")
BEGINNINGS = (
    "lock",
    "recipe.yaml",
    "run.json",
    "queries.jsonl",
    "labels.sqlite",
    "report.html",
    "timings.jsonl",
    "progress.json",
    "memory.json",
)  # what a run that was killed as it began may have left


class RunFolder:
    def __init__(self, path: Path):
        self.path = path
        self.recipe_file = path / "recipe.yaml"
        self.run_file = path / "run.json"
        self.metrics_file = path / "metrics.json"
        self.values_file = path / "queries.tsv"
        self.written_queries = path / "queries.jsonl"
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

    def locked(self, shared: bool = False) -> contextlib.AbstractContextManager[None]:
        """Keep other processes out of this run; shared: let in those that share it too."""
        return locked(self.path, shared, name_shards_at_work)

    def claim(
        self, recipe: Recipe, origin: dict[str, Any], restart_from: Stage | None = None, staged: bool = True
    ) -> str:
        """Begin a run here, or make sure that the one begun here is the same; returns what `check` says.

        What a restart makes anew is removed.
        """
        said, outdated = self.check(recipe, origin, restart_from, staged)
        removed = self.path / "removed"
        for number, path in enumerate(outdated):
            removed.mkdir(exist_ok=True)
            os.replace(path, removed / f"{number}-{os.getpid()}-{path.name}")  # at once, so that a kill halves nothing
        shutil.rmtree(removed, ignore_errors=True)
        write_atomic(self.recipe_file, dump(recipe))
        if said or not self.run_file.exists():
            write_atomic(self.run_file, json.dumps(origin, indent=2) + "\n")
        return said

    def check(
        self, recipe: Recipe, origin: dict[str, Any], restart_from: Stage | None = None, staged: bool = True
    ) -> tuple[str, list[Path]]:
        """Whether a run of these settings can begin or go on here; nothing is touched.

        origin: what the run is made from besides the recipe. `versions` of packages, settings of memory (FREE), and
        whatever no stage that has begun here reads, may differ. staged: else every stage reads every setting.
        Returns a sentence on what differs, if anything, and what to remove: where something else differs, the results
        of restart_from and of later stages. Raises RunError, naming it, when that stage is not as early as need be.
        """
        if not has_utf8_name(self.path):
            raise RunError(f"{self.path}: no model can be saved there, for the name is not UTF-8; give another --out.")
        if not self.run_file.exists():
            if self.path.is_dir() and any(not entry.name.startswith(BEGINNINGS) for entry in self.path.iterdir()):
                raise RunError(f"{self.path} is not empty and holds no run; give another --out.")
            if restart_from:
                raise RunError(f"--restart-from: {self.path} holds no run to restart; leave it out, or check --out.")
            return "", []
        changes = self._changes(json.loads(recipe.model_dump_json()), origin)
        stages = {key: read_by(key) if staged else STAGES[0] for key, *_ in changes}
        stale = [change for change in changes if self._has_begun(stages[change[0]])]
        if not stale:
            if changes:
                return f"Settings that no stage has read yet are changed: {name_changes(changes)}.", []
            same = "No setting that a stage has read is changed, so nothing is made anew."
            return (same if restart_from else ""), []
        earliest = min((stages[key] for key, *_ in stale), key=STAGES.index)
        if restart_from is None or STAGES.index(restart_from) > STAGES.index(earliest):
            anew = (
                f"make stage {earliest} and those after it anew with --restart-from {earliest}, or " if staged else ""
            )
            raise RunError(
                f"{self.path} holds a run with other settings: {name_changes(stale, staged)}; {anew}give another --out "
                f"(labels serve again where teacher and prompts are the same: --set label_store={self.path}/"
                "labels.sqlite)."
            )
        outdated = self.outputs(restart_from)
        if any(stages[key] == "evaluate" for key, *_ in stale):  # measures of the base are outdated too
            measured = self.outputs("evaluate")
            outdated += [path for path in measured if not {path, *path.parents} & set(outdated)]
        if restart_from != "evaluate" and (shards := unmerged(self.path)):
            raise RunError(
                f"{self.path} has shards whose labels would go ({', '.join(file.stem for file in shards)}); take them "
                f"in first: pdadapt labels merge {self.path}"
            )
        return f"Made anew from stage {restart_from}, since {name_changes(stale)}.", outdated

    def _has_begun(self, stage: Stage) -> bool:
        """Whether the stage, or one after it, has left something, be it half done."""
        return any(path.name != "report.html" and path.suffix != ".part" for path in self.outputs(stage))

    def outputs(self, stage: Stage) -> list[Path]:
        """What this stage and those after it have left here, the last made first."""
        folders = sorted(self.path.glob("iteration-*"), key=lambda folder: -int(folder.name.split("-")[1]))
        found = [self.path / "report.html", self.metrics_file, self.values_file]
        if stage == "evaluate":
            found += [folder / name for folder in folders for name in ("test.run", "agreement.json")]
        elif stage in KEPT:
            found += [folder for folder in folders if folder.name not in ("iteration-0", "iteration-1")]
            found += [entry for entry in self.iteration(1).glob("*") if entry.name not in KEPT[stage]]
        else:
            found += folders
        if stage == STAGES[0]:
            of_reranker = ("model", "trainer", "candidates.run", "index")
            found += [self.student, *(self.path / name for name in of_reranker)]
        return [path for path in dict.fromkeys(found) if path.exists()]

    def _changes(self, wanted: dict[str, Any], origin: dict[str, Any]) -> list[Change]:
        """What differs from the run begun here, but for what may. Raises RunError when that cannot be told."""
        found, begun = read_settings(self.run_file), read_settings(self.recipe_file)
        if ("reranker" in found) != ("reranker" in origin):
            raise RunError(f"{self.path} holds a run of another command; give another --out.")
        if "corpus_sha256" in origin and "corpus_sha256" not in found:
            raise RunError(f"{self.path} holds a run of another version (run.json); give another --out.")
        version = found.get("versions", {}).get("pdadapt", "another version")
        changes = differences(with_defaults(begun, f"{self.path} (begun by pdadapt {version})"), wanted)
        named = {key.rpartition(".")[2] for key, *_ in changes if key.startswith("teacher.")}
        changes += [
            change
            for change in differences(found, {**origin, **{key: found.get(key) for key in UNCOMPARED}})
            if not (change[0].startswith(LABEL_KEYS) and change[0].rpartition(".")[2] in named)  # it is said already
        ]
        changes = [change for change in changes if change[0] not in FREE and not change[0].startswith(WRITING)]
        return [
            (key, old, new)
            for key, old, new in changes
            if key != "iterations" or (new < old and self.iteration(new + 1).exists())
            if not (key.endswith(".model") and _served_alike(old, new))
        ]


def system(number: int) -> str:
    """What the student after so many iterations is called where students stand side by side."""
    return f"iteration-{number}" if number else "base"


def _served_alike(old: str | None, new: str | None) -> bool:
    """Whether one model is meant, served at two addresses."""
    (url, name), (other_url, other_name) = urldefrag(old or ""), urldefrag(new or "")
    return url.startswith("http") and other_url.startswith("http") and name == other_name


def dump(recipe: Recipe) -> str:
    """As YAML, every setting."""
    text: str = yaml.safe_dump(json.loads(recipe.model_dump_json()), sort_keys=False, allow_unicode=True)
    return text


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
