"""Label a run in shards, on every machine that shares its folder (for example a SLURM job array), and merge the labels.

RUN/iteration-N/shards/ holds one label store and one journal per shard: 3-of-16.sqlite, 3-of-16.jsonl (see
runs/shard_states.py).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pdadapt.data.corpus import Dataset, DatasetSource, Queries, data_hashes
from pdadapt.data.passages import reload_dataset
from pdadapt.data.run_file import TrecRunFile
from pdadapt.errors import RunError
from pdadapt.labeling.questions import Labeling, labeled_relevant
from pdadapt.labeling.stage import ask_teachers, journal_of
from pdadapt.labeling.store import LabelStore, check_shard, merge_labels, open_frozen
from pdadapt.retrieval.search import sample_queries
from pdadapt.runs.changes import differences, name_changes, with_defaults
from pdadapt.runs.folder import RunFolder
from pdadapt.runs.shard_states import LABELED, MERGED, mark
from pdadapt.runtime.files import read_settings
from pdadapt.runtime.locks import holder, locked
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import Recipe
from pdadapt.teachers.base import Task
from pdadapt.teachers.kind import groups_by_document
from pdadapt.teachers.label_key import teacher_keys
from pdadapt.teachers.load import Teachers


class LabelShard(NamedTuple):
    """One part of a labeling: its number, from 1 to the number of shards."""

    number: int
    shards: int


def parse_shard(text: str) -> LabelShard:
    """Parse a shard such as `3/16`. Raises ValueError, which names the expected form."""
    number, _, shards = text.partition("/")
    if not (number.isdecimal() and shards.isdecimal() and 1 <= int(number) <= int(shards)):
        raise ValueError(f"{text!r} is not a shard: write I/N, where I is from 1 to N, for example 3/16.")
    return LabelShard(int(number), int(shards))


def label_shard(path: Path, shard: LabelShard, progress: Progress) -> Path:
    """Ask the teachers about one shard of the run's candidates. Labels that the run's store holds are not asked again.

    Returns the path of the shard's own store. The same call resumes after a kill. Raises RunError when the run has
    nothing to label, or when its data or teachers have changed since it was begun.
    """
    run, recipe, keys, origin = _open(path)
    folder = _waiting(run)
    dataset, queries = _data(path, recipe, origin)
    store = run.store(recipe)
    labeling = Labeling(
        TrecRunFile(folder / "candidates.run"),
        dataset.corpus,
        queries,
        recipe,
        labeled_relevant(recipe, dataset, queries),
    )
    name = f"{shard.number}-of-{shard.shards}"
    file = folder / "shards" / f"{name}.sqlite"
    lock = folder / "shards" / f"{name}.lock"
    if other := holder(lock):
        raise RunError(
            f"Shard {shard.number}/{shard.shards} of {path} is already being labeled ({other}). Label another shard."
        )
    chunks = labeling.by_query()
    shard_ids = [query_id for ids, _ in chunks[shard.number - 1 :: shard.shards] for query_id in ids]
    asked_keys = keys
    with run.locked(shared=True), locked(lock):
        check_shard(file, keys.values())
        if (
            "pair" in keys
            and groups_by_document(recipe.teacher, "point")
            and not _has_points(labeling, shard_ids, store, keys)
        ):
            progress.say(
                "This teacher labels points by document and pairs by query, so this command labels points only. When "
                f"all shards have finished, run `pdadapt labels merge {path}`, then repeat this command for the pairs."
            )
            asked_keys = {"point": keys["point"]}
        with LabelStore(file, "points", keys["point"]) as shard_store:
            labeling.remember(shard_store, shard_ids)
            journal = journal_of(file.with_suffix(".jsonl"), keys, shard_store)
        if not shard_ids:
            progress.say(
                f"There is nothing for this shard: {len(labeling.ranking):,} queries make {len(chunks)} chunks. Use "
                "fewer shards."
            )
        teachers = Teachers(recipe.teacher, list(asked_keys), progress)
        ask_teachers(labeling, file, asked_keys, teachers, progress, journal, shard, store)
        if asked_keys == keys:
            mark(file, LABELED)
    return file


def _has_points(labeling: Labeling, query_ids: Sequence[str], store: Path, keys: Mapping[Task, str]) -> bool:
    """Whether the run's own store holds all points of these queries."""
    points = open_frozen(store, "points", keys["point"])
    if points is None:
        return False
    with contextlib.closing(points):
        return all(None not in labeling.list_of(query_id, points)[1] for query_id in query_ids)


def merge_shards(path: Path, files: Sequence[Path] = ()) -> tuple[int, Path]:
    """Copy the labels of the files, or of all shards in the run's folder, into the run's label store.

    Returns the number of new labels, and the store's path. Raises RunError when there are no shards or the run is in
    use. Raises DataError when a file holds labels of another teacher or prompt. The labels of files before it are kept.
    """
    run, recipe, teachers, _ = _open(path)
    shard_files = sorted(files or path.glob("iteration-*/shards/*.sqlite"))
    if not shard_files:
        raise RunError(
            f"{path} has no shards. Make them with `pdadapt label {path} --shard 1/16`, ... `--shard 16/16`."
        )
    keys = {f"{task}s": key for task, key in teachers.items()}
    store = run.store(recipe)
    count = 0
    with run.locked():
        for file in shard_files:
            count += merge_labels(file, store, keys)
            if file.resolve().parent.parent.parent == path.resolve():
                mark(file, MERGED)
    return count, store


def _open(path: Path) -> tuple[RunFolder, Recipe, dict[Task, str], dict[str, Any]]:
    """Return the run, its settings, the keys of its labels and its origin. Raises RunError when there is no run, or
    when its teachers or prompts have changed.
    """
    run = RunFolder(path)
    origin = read_settings(run.run_file) if run.run_file.is_file() else {}
    if not origin or "reranker" in origin:
        raise RunError(f"{path} holds no run. Give the folder of a `pdadapt adapt --stop-before-labeling`.")
    recipe = Recipe.model_validate(with_defaults(read_settings(run.recipe_file), str(path)))
    keys = teacher_keys(recipe)
    _check_same(path, origin, {"teachers": {task: json.loads(key) for task, key in keys.items()}})
    return run, recipe, keys, origin


def _check_same(path: Path, origin: Mapping[str, Any], current: dict[str, Any]) -> None:
    """Raises RunError when something differs from what the run was begun with."""
    if changes := differences({key: origin.get(key) for key in current}, current):
        raise RunError(f"Since {path} was begun: {name_changes(changes)}. Restore what it was begun with.")


def _waiting(run: RunFolder) -> Path:
    """Return the folder of the iteration whose candidates wait for labels. Raises RunError when there is none."""
    for file in sorted(run.path.glob("iteration-*/candidates.run")):
        if not (file.parent / "lists.jsonl").exists():
            return file.parent
    labeled = any(run.path.glob("iteration-*/lists.jsonl"))
    raise RunError(
        f"No candidates of {run.path} wait for labels"
        + (": all are labeled" if labeled else "")
        + ". To retrieve the next candidates, run `pdadapt adapt --stop-before-labeling` with the run's other options."
    )


def _data(path: Path, recipe: Recipe, origin: Mapping[str, Any]) -> tuple[Dataset, Queries]:
    """Read the run's dataset again, and return it with its queries. Raises RunError when they have changed since the
    run was begun.
    """
    if not origin.get("source"):
        raise RunError(f"{path} was begun by an earlier version, which did not record its data. Give another --out.")
    dataset = reload_dataset(DatasetSource(**origin["source"]))
    queries = sample_queries(dataset.queries, recipe.retrieve.max_queries, recipe.seed)
    _check_same(path, origin, data_hashes(dataset, queries))
    return dataset, queries
