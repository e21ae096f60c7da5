"""Find before any work what would stop a run."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdadapt.data.answers import answer_matcher
from pdadapt.data.corpus import Dataset, Queries, data_hashes, fingerprint
from pdadapt.errors import DataError, RunError
from pdadapt.evaluation import measures
from pdadapt.labeling.check import check_teacher
from pdadapt.labeling.questions import labeled_relevant
from pdadapt.models.device import dtype_name
from pdadapt.models.source import resolve_model
from pdadapt.retrieval.candidates import starter_settings
from pdadapt.retrieval.engines.load import check_model
from pdadapt.retrieval.search import sample_queries
from pdadapt.runs.changes import Stage
from pdadapt.runs.folder import PACKAGES, RunFolder
from pdadapt.runtime.files import read_settings
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import Recipe, TrainSettings
from pdadapt.teachers.base import Task
from pdadapt.teachers.label_key import teacher_keys
from pdadapt.training import distributed, memory, trainer

PAPER_PASSES = 174  # 30,000 steps of 32 queries over FiQA's 5,500


@dataclass(frozen=True)
class Job:
    """A run whose every part has been found, and found to be right."""

    run: RunFolder
    queries: Queries
    test_queries: Queries
    keys: dict[Task, str]  # of the teachers' labels
    relevant: dict[str, list[str]]  # by query, what people labeled so, where L_CL asks for it
    origin: dict[str, Any]  # what run.json will say


def check(recipe: Recipe, dataset: Dataset, out: Path, restart_from: Stage | None = None) -> Job:
    """Find before any work what would stop it in the middle; nothing is loaded or written.

    Raises PdadaptError on anything the user can mend.
    """
    run = RunFolder(out)
    if restart_from and distributed.processes() > 1:
        raise RunError(
            "--restart-from is for one process, since the others could take old results for new ones: begin without "
            "the launcher, stop it when it trains (Ctrl-C), and go on with the launcher."
        )
    memory.queries_at_once(recipe.train)  # or they cannot be shared out among the processes
    queries = sample_queries(dataset.queries, recipe.retrieve.max_queries, recipe.seed)
    test_queries = sample_queries(dataset.test_queries, recipe.evaluate.max_queries, recipe.seed)
    if not queries:
        raise DataError(
            f"Corpus {dataset.name!r} brings no queries to adapt on; give some with --queries FILE (one a line, TSV or "
            "JSONL), or have them written by `pdadapt queries`."
        )
    if not dataset.corpus.texts_differ:
        raise DataError(
            f"Corpus {dataset.name!r} holds no two documents that differ, so there is no order to learn; give more."
        )
    measures.parse_measures(recipe.evaluate.measures, answer_matcher(dataset))
    keys = teacher_keys(recipe)
    if restart_from or not (run.iteration(1) / "lists.jsonl").exists():
        for task in keys:
            check_teacher(recipe.teacher, task, set(queries.values()), run.store(recipe))
    for name in filter(None, (recipe.student.model, recipe.retrieve.model)):
        kind = recipe.student.kind if name == recipe.student.model else "colbert"
        check_model(name, {**starter_settings(recipe), "kind": kind}, recipe.retrieve)
    origin = {
        "corpus": dataset.name,
        "source": dataset.source and dataset.source._asdict(),
        **data_hashes(dataset, queries),
        "test_queries_sha256": fingerprint(test_queries.items()),
        "student": resolve_model(recipe.student.model).identity(),
        "teachers": {task: json.loads(key) for task, key in keys.items()},
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    if recipe.retrieve.model:
        origin["retriever"] = resolve_model(recipe.retrieve.model).identity()
    relevant = labeled_relevant(recipe, dataset, queries)
    if relevant:
        origin["relevant_sha256"] = fingerprint((query_id, " ".join(doc_ids)) for query_id, doc_ids in relevant.items())
    return Job(run, queries, test_queries, keys, relevant, origin)


def with_precision(recipe: Recipe, run: RunFolder) -> Recipe:
    """The recipe with a precision of the teachers instead of `auto`: the run's, else this machine's. Labels of two
    precisions are not mixed.
    """
    if recipe.teacher.dtype != "auto":
        return recipe
    begun = read_settings(run.recipe_file).get("teacher") if run.recipe_file.exists() else None
    dtype = dtype_name(str(begun.get("dtype", "auto")) if isinstance(begun, dict) else "auto")
    return recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"dtype": dtype})})


def say_precision(recipe: Recipe, keys: Mapping[Task, str], progress: Progress) -> None:
    """Say it when the run was begun in another precision than this machine would choose."""
    begun, here = recipe.teacher.dtype, dtype_name("auto")
    if begun != here and any("dtype" in json.loads(key) for key in keys.values()):
        progress.say(
            f"The teachers of this run compute in {begun}; on this machine `auto` would be {here}. To label anew in "
            f"that, add --set teacher.dtype={here} --restart-from label."
        )


def many_passes(settings: TrainSettings, queries: int) -> str:
    """A sentence for those whose train.steps are far too many for so few queries; else nothing."""
    steps = trainer.count_steps(settings, queries)
    passes = steps * settings.batch_size / queries
    if not settings.steps or passes <= 2 * PAPER_PASSES:
        return ""
    return (
        f"Training takes {steps:,} steps, which are {passes:,.0f} passes over {queries:,} queries (over FiQA's 5,500: "
        f"{PAPER_PASSES}). Set train.max_epochs={trainer.CAP}, as recipe `default` does, to end it sooner."
    )
