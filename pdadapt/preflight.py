"""The checks before any work: find what would stop the run later. Also: make its context, and tell the user."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdadapt.data.answers import answer_matcher
from pdadapt.data.corpus import Dataset, data_hashes, fingerprint
from pdadapt.errors import DataError, RunError
from pdadapt.evaluation import measures
from pdadapt.evaluation.held_out import draw_held_out
from pdadapt.labeling.check import check_teacher
from pdadapt.labeling.questions import labeled_relevant
from pdadapt.models.device import dtype_name
from pdadapt.models.source import resolve_model
from pdadapt.retrieval.candidates import starter_settings
from pdadapt.retrieval.engines.load import check_model
from pdadapt.retrieval.search import sample_queries
from pdadapt.runs.context import RunContext
from pdadapt.runs.folder import PACKAGES, RunFolder
from pdadapt.runs.stages import StageName
from pdadapt.runtime.files import read_settings
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import Recipe, TrainSettings
from pdadapt.teachers.base import Task
from pdadapt.teachers.label_key import teacher_keys
from pdadapt.training import distributed, smaller_chunks, trainer

if TYPE_CHECKING:
    from pdadapt.runtime.ray_cluster import RayCluster

PAPER_PASSES = 174  # 30,000 steps of 32 queries over FiQA's 5,500


def start_context(
    recipe: Recipe, dataset: Dataset, run: RunFolder, progress: Progress, cluster: RayCluster | None = None
) -> RunContext:
    """The context of a run, without any check: no label_keys, relevant or origin. That is enough to train."""
    queries = sample_queries(dataset.queries, recipe.retrieve.max_queries, recipe.seed)
    test_queries = sample_queries(dataset.test_queries, recipe.evaluate.max_queries, recipe.seed)
    kept_out = frozenset(draw_held_out(queries, recipe.train.held_out, recipe.seed))
    return RunContext(run, recipe, dataset, queries, test_queries, kept_out, progress, cluster=cluster)


def check(
    recipe: Recipe,
    dataset: Dataset,
    out: Path,
    progress: Progress,
    restart_from: StageName | None = None,
    cluster: RayCluster | None = None,
) -> RunContext:
    """Find what would stop the run in the middle, and return its context. No weights are loaded, nothing is written.

    A server may be asked one question. Raises PdadaptError on anything the user can mend.
    """
    if restart_from and distributed.processes() > 1:
        raise RunError(
            "--restart-from works in one process only: others could take old results for new ones. Start without the "
            "launcher, stop it when it trains (Ctrl-C), and resume with the launcher."
        )
    smaller_chunks.queries_per_part(recipe.train)  # the batch must divide among the processes
    context = start_context(recipe, dataset, RunFolder(out), progress, cluster)
    run, queries = context.run, context.queries
    if not queries:
        raise DataError(
            f"Corpus {dataset.name!r} has no training queries. Give some with --queries FILE (one per line, TSV or "
            "JSONL), or write them with `pdadapt queries`."
        )
    if not dataset.corpus.texts_differ:
        raise DataError(
            f"All documents of corpus {dataset.name!r} are the same, so there is no order to learn. Give a corpus with "
            "different documents."
        )
    measures.parse_measures(recipe.evaluate.measures, answer_matcher(dataset))
    keys = teacher_keys(recipe, dataset.corpus)
    if restart_from or not (run.iteration(1) / "lists.jsonl").exists():
        for task in keys:
            check_teacher(recipe.teacher, task, set(queries.values()), run.store(recipe), dataset.corpus)
    for name in filter(None, (recipe.student.model, recipe.retrieve.model)):
        settings = recipe.student if name == recipe.student.model else starter_settings(recipe)
        check_model(name, settings.model_dump(), recipe.retrieve)
    relevant = labeled_relevant(recipe, dataset, queries)
    context = replace(context, label_keys=keys, relevant=relevant)
    return replace(context, origin=origin_of(context))


def origin_of(context: RunContext) -> dict[str, Any]:
    """What run.json says: what the run is made from besides the recipe. Data are given by hash, models by identity."""
    recipe, dataset, relevant = context.recipe, context.dataset, context.relevant
    origin = {
        "corpus": dataset.name,
        "source": dataset.source and dataset.source._asdict(),
        **data_hashes(dataset, context.queries),
        "test_queries_sha256": fingerprint(context.test_queries.items()),
        "student": resolve_model(recipe.student.model).identity(),
        "teachers": {task: json.loads(key) for task, key in context.label_keys.items()},
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    if recipe.retrieve.model:
        origin["retriever"] = resolve_model(recipe.retrieve.model).identity()
    if relevant:
        origin["relevant_sha256"] = fingerprint((query_id, " ".join(doc_ids)) for query_id, doc_ids in relevant.items())
    return origin


def announce(context: RunContext) -> None:
    """Say what the user should know before the work begins."""
    recipe, queries, say = context.recipe, context.queries, context.progress.say
    context.dataset.notices.say(say)
    if context.cluster and recipe.retrieve.engine in ("plaid", "colbert"):
        say(f"Engine {recipe.retrieve.engine} encodes the corpus on this machine. The cluster only labels.")
    if context.relevant:
        say(f"{len(context.relevant):,} of {len(queries):,} queries are labeled: L_CL learns from their judgments.")
    if recipe.train.held_out and not context.held_out:
        say("There are too few queries to hold some out. Agreement with the teacher will not be measured.")
    if recipe.teacher.pair.model and not recipe.teacher.pair.asks_teacher:
        say(
            f"The pair teacher {recipe.teacher.pair.model!r} will not be asked: the recipe asks no pairs. To ask "
            "it, add --set teacher.pair.per_query=10 --set teacher.pair.scoring=labels."
        )
    if not context.run.metrics_file.exists():
        taught = len(queries) - len(context.held_out)
        if warning := many_passes(recipe.train, taught):
            say(warning)


def with_precision(recipe: Recipe, run: RunFolder) -> Recipe:
    """The recipe with a precision in place of teacher.dtype=auto: the one that the run began with, else this machine's.

    So labels of two precisions are never mixed.
    """
    if recipe.teacher.dtype != "auto":
        return recipe
    begun = read_settings(run.recipe_file).get("teacher") if run.recipe_file.exists() else None
    dtype = dtype_name(str(begun.get("dtype", "auto")) if isinstance(begun, dict) else "auto")
    return recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"dtype": dtype})})


def say_precision(recipe: Recipe, keys: Mapping[Task, str], progress: Progress) -> None:
    """Tell the user if the run began with another precision than `auto` means on this machine."""
    begun, here = recipe.teacher.dtype, dtype_name("auto")
    if begun != here and any("dtype" in json.loads(key) for key in keys.values()):
        progress.say(
            f"The teachers of this run compute in {begun}. On this machine `auto` means {here}. To label again in "
            f"{here}, add --set teacher.dtype={here} --restart-from label."
        )


def many_passes(settings: TrainSettings, queries: int) -> str:
    """A warning if train.steps is far too large for so few queries; else an empty text."""
    steps = trainer.count_steps(settings, queries)
    passes = steps * settings.batch_size / queries
    if not settings.steps or passes <= 2 * PAPER_PASSES:
        return ""
    return (
        f"Training takes {steps:,} steps, which are {passes:,.0f} passes over {queries:,} queries (over FiQA's 5,500: "
        f"{PAPER_PASSES}). Set train.max_epochs={trainer.DEFAULT_MAX_EPOCHS}, as recipe `default` does, to end it "
        "sooner."
    )
