"""Label a run in shards, on as many machines as share its folder (a job array of SLURM), and merge what they said.

RUN/iteration-N/shards/ holds a label store and a journal of each: 3-of-16.sqlite, 3-of-16.jsonl (see shard_states.py).
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
from pdadapt.runs.shards import LABELED, MERGED, mark
from pdadapt.runtime.files import read_settings
from pdadapt.runtime.locks import holder, locked
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import Recipe
from pdadapt.teachers.base import Task
from pdadapt.teachers.kind import groups_by_document
from pdadapt.teachers.label_key import teacher_keys
from pdadapt.teachers.load import Teachers


class Shard(NamedTuple):
    """One of `of` parts of a labeling: number 1 to `of`."""

    number: int
    of: int


def parse_shard(text: str) -> Shard:
    """Of `3/16`. Raises ValueError, saying what is expected, when it is none."""
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise ValueError(f"{text!r} is no shard: write I/N, I from 1 to N, as 3/16.")
    return Shard(int(number), int(of))


def label_shard(path: Path, shard: Shard, progress: Progress) -> Path:
    """Ask the teachers about a shard of the run's candidates, but for what its label store holds already; returns the
    shard's own store. The same call goes on after a kill.

    Raises RunError when the run has nothing to label, or its data or teachers are not what it was begun with.
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
    name = f"{shard.number}-of-{shard.of}"
    file = folder / "shards" / f"{name}.sqlite"
    lock = folder / "shards" / f"{name}.lock"
    if at_it := holder(lock):
        raise RunError(
            f"Shard {shard.number}/{shard.of} of {path} is being labeled already ({at_it}); take another one."
        )
    chunks = labeling.by_query()
    own_ids = [query_id for ids, _ in chunks[shard.number - 1 :: shard.of] for query_id in ids]
    asked = keys
    with run.locked(shared=True), locked(lock):
        check_shard(file, keys.values())
        if (
            "pair" in keys
            and groups_by_document(recipe.teacher, "point")
            and not _has_points(labeling, own_ids, store, keys)
        ):
            progress.say(
                "This teacher's points are asked by document, pairs by query: these are points. When all shards have "
                f"come to their end, `pdadapt labels merge {path}`, then the same again asks about pairs."
            )
            asked = {"point": keys["point"]}
        with LabelStore(file, "points", keys["point"]) as own:
            labeling.remember(own, own_ids)
            journal = journal_of(file.with_suffix(".jsonl"), keys, own)
        if not own_ids:
            progress.say(
                f"There is nothing for this shard: {len(labeling.ranking):,} queries make {len(chunks)} chunks; take "
                "fewer shards."
            )
        teachers = Teachers(recipe.teacher, list(asked), progress)
        ask_teachers(labeling, file, asked, teachers, progress, journal, shard, store)
        if asked == keys:
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
    """Take the labels of the files, or of all shards that the run's folder holds, into the run's label store.

    Returns how many labels it did not hold yet, and the store. Raises RunError when there are none, or the run is in
    use, and DataError when they are of another teacher or prompt: those before are kept.
    """
    run, recipe, teachers, _ = _open(path)
    found = sorted(files or path.glob("iteration-*/shards/*.sqlite"))
    if not found:
        raise RunError(
            f"{path} has no shards; make them with `pdadapt label {path} --shard 1/16`, ... `--shard 16/16`."
        )
    keys = {f"{task}s": key for task, key in teachers.items()}
    store = run.store(recipe)
    count = 0
    with run.locked():
        for file in found:
            count += merge_labels(file, store, keys)
            if file.resolve().parent.parent.parent == path.resolve():
                mark(file, MERGED)
    return count, store


def _open(path: Path) -> tuple[RunFolder, Recipe, dict[Task, str], dict[str, Any]]:
    """The run, its settings, the keys of its labels, and what it is made from. Raises RunError when there is none, or
    its teachers or prompts changed.
    """
    run = RunFolder(path)
    origin = read_settings(run.run_file) if run.run_file.is_file() else {}
    if not origin or "reranker" in origin:
        raise RunError(f"{path} holds no run; give the folder of a `pdadapt adapt --stop-before-labeling`.")
    recipe = Recipe.model_validate(with_defaults(read_settings(run.recipe_file), str(path)))
    keys = teacher_keys(recipe)
    _check_same(path, origin, {"teachers": {task: json.loads(key) for task, key in keys.items()}})
    return run, recipe, keys, origin


def _check_same(path: Path, origin: Mapping[str, Any], found: dict[str, Any]) -> None:
    """Raises RunError when something differs from what the run was begun with."""
    if changes := differences({key: origin.get(key) for key in found}, found):
        raise RunError(f"Since {path} was begun: {name_changes(changes)}. Give back what was there.")


def _waiting(run: RunFolder) -> Path:
    """The iteration whose candidates wait for labels. Raises RunError when none does."""
    for file in sorted(run.path.glob("iteration-*/candidates.run")):
        if not (file.parent / "lists.jsonl").exists():
            return file.parent
    found = any(run.path.glob("iteration-*/lists.jsonl"))
    raise RunError(
        f"No candidates of {run.path} wait for labels"
        + (": they are labeled" if found else "")
        + "; `pdadapt adapt --stop-before-labeling`, with the run's other options, finds the next ones."
    )


def _data(path: Path, recipe: Recipe, origin: Mapping[str, Any]) -> tuple[Dataset, Queries]:
    """The run's dataset, read again, and its queries. Raises RunError when they are not what it was begun with."""
    if not origin.get("source"):
        raise RunError(f"{path} was begun by an earlier version, which did not note its data; give another --out.")
    dataset = reload_dataset(DatasetSource(**origin["source"]))
    queries = sample_queries(dataset.queries, recipe.retrieve.max_queries, recipe.seed)
    _check_same(path, origin, data_hashes(dataset, queries))
    return dataset, queries
