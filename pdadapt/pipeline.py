"""The order of the stages. A stage leaves files that are whole or absent, and does not run while they are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdadapt.data.corpus import Dataset
from pdadapt.data.load import with_queries
from pdadapt.errors import RunError
from pdadapt.evaluation.agreement import has_learned, measure_agreement
from pdadapt.evaluation.forgetting import rank_general
from pdadapt.evaluation.results import RunMetrics
from pdadapt.evaluation.summary import summarise
from pdadapt.generation.in_run import write_own_queries
from pdadapt.labeling.stage import label_candidates
from pdadapt.models.token_budget import batch_limits
from pdadapt.preflight import announce, check, say_precision, start_context, with_precision
from pdadapt.reporting.report import write_report
from pdadapt.retrieval.candidates import retrieve_candidates
from pdadapt.retrieval.engines.load import make_engine
from pdadapt.runs.context import RunContext
from pdadapt.runs.folder import RunFolder
from pdadapt.runs.stages import StageName
from pdadapt.runtime.files import write_atomic
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import Recipe
from pdadapt.students.colbert import PROJECTION_SAMPLE, get_lengths, set_lengths
from pdadapt.students.load import load_student, save_student
from pdadapt.training import distributed
from pdadapt.training.stage import say_if_rising, train_student
from pdadapt.training.trainer import freeze_below

if TYPE_CHECKING:
    from pdadapt.runtime.ray_cluster import RayCluster


def adapt(
    recipe: Recipe,
    dataset: Dataset,
    out: Path,
    progress: Progress,
    restart_from: StageName | None = None,
    stop_before_labeling: bool = False,
    cluster: RayCluster | None = None,
) -> RunMetrics | None:
    """Adapt the student to the dataset's corpus, `recipe.iterations` times. Return what metrics.json holds.

    Everything is checked before any work. If the process is killed, the same call resumes.

    restart_from: redo this stage and all later ones after settings changed. stop_before_labeling: return None when
    candidates wait for labels. Other processes then make the labels (labeling/shards.py). cluster: encodes and labels.

    Under a launcher, every process but the first returns None. Raises PdadaptError on anything the user can mend.
    """
    run, asked = RunFolder(out), recipe
    recipe = with_precision(recipe, run)
    if distributed.rank() > 0:
        join_training(recipe, dataset, run, progress)
        return None
    if stop_before_labeling and distributed.processes() > 1:
        raise RunError(
            "--stop-before-labeling works in one process only: others would wait for labels. Start without the "
            "launcher, and use it when the labels are there."
        )

    # Check everything, and load the student, before the run begins. Queries that are missing are written first.
    if not dataset.queries:
        dataset = write_own_queries(recipe, dataset, run, progress, restart_from)
    context = check(recipe, dataset, out, progress, restart_from, cluster)
    announce(context)
    run.check(recipe, context.origin, restart_from)
    if asked.teacher.dtype == "auto":
        say_precision(recipe, context.label_keys, progress)
    student = None
    if restart_from == "student" or not run.student.exists():
        student = new_student(context)
    elif restart_from:
        check_student(load_student(str(run.student), recipe.student), recipe)

    with run.locked():
        begin(context, restart_from)
        if student is not None and not run.student.exists():
            save_student(student, run.student)
        student = None  # Free its memory for the stages.

        learned = True
        for iteration in range(1, recipe.iterations + 1):
            with progress.within(f"iteration {iteration}: "):
                # 1. Rank the candidates of this iteration, and the test queries, with the student before it.
                retrieve_candidates(context, iteration - 1)
                # 2. Ask the teachers about the candidates, and make the training lists.
                if stop_before_labeling and not (run.iteration(iteration) / "lists.jsonl").exists():
                    progress.clear_state()
                    return None
                label_candidates(context, iteration)
                # 3. Train the student on the lists.
                train_student(context, iteration)
                # 4. Stop when the student agrees with its teacher no better than before.
                measure_agreement(context, iteration)
            learned = has_learned(context, iteration)
            if not learned:
                break
        if learned:
            say_if_rising(context, iteration)

        # 5. Measure every student, and say whether retrieval improved.
        retrieve_candidates(context, iteration, candidates=False)
        for number in range(iteration + 1):
            rank_general(context, number)
        metrics = summarise(context, done=iteration, best=iteration if learned else iteration - 1)
        write_atomic(run.metrics_file, json.dumps(metrics.to_json(), indent=2) + "\n")
        progress.clear_state()
        write_report(run.path)
    return metrics


def begin(context: RunContext, restart_from: StageName | None) -> None:
    """Claim the run folder. From now on it records how long tasks take, and which batch sizes fit into memory."""
    run, progress = context.run, context.progress
    if said := run.claim(context.recipe, context.origin, restart_from):
        progress.say(said)
    progress.log_to(run.path / "timings.jsonl", run.path / "progress.json")
    batch_limits.keep_in(run.path / "memory.json")


def join_training(recipe: Recipe, dataset: Dataset, run: RunFolder, progress: Progress) -> None:
    """Train with the first process of a launcher. Every other process calls this; the first does all other work."""
    distributed.select_device()
    distributed.wait_until(run.recipe_file.exists, run.path)
    if not dataset.queries:
        dataset = with_queries(dataset, run.written_queries)
    batch_limits.keep_in(run.path / "memory.json")
    context = start_context(recipe, dataset, run, progress)
    for iteration in range(1, recipe.iterations + 1):
        folder = run.iteration(iteration)
        if not run.checkpoint(iteration).exists():
            distributed.wait_until((folder / "lists.jsonl").exists, run.path)
            train_student(context, iteration)
        if context.held_out:
            distributed.wait_until((folder / "agreement.json").exists, run.path)
            if not has_learned(context, iteration):
                break


def new_student(context: RunContext) -> Any:
    """The student before training, with its projection. Raises ModelError or RecipeError when it cannot be used."""
    recipe = context.recipe
    model = load_student(recipe.student.model, recipe.student, context.corpus.sample(PROJECTION_SAMPLE))
    check_student(model, recipe)
    return model


def check_student(model: Any, recipe: Recipe) -> None:
    """Raises ModelError or RecipeError when training or the engine could not use the student later."""
    lengths = get_lengths(model)
    set_lengths(model, recipe.train.query_length, recipe.train.document_length)  # Are these too long?
    set_lengths(model, *lengths)
    freeze_below(model, recipe.train.layers)  # Are there so many layers?
    make_engine(model, recipe.retrieve)  # Can the engine search it?
