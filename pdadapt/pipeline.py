"""The order of the stages. Each leaves a file that is whole or absent; a stage whose file is there is not run again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdadapt.data.corpus import Corpus, Dataset
from pdadapt.data.load import with_queries
from pdadapt.data.run_file import TrecRunFile
from pdadapt.errors import RunError
from pdadapt.evaluation import measures
from pdadapt.evaluation.agreement import has_learned, save_agreement
from pdadapt.evaluation.forgetting import rank_general
from pdadapt.evaluation.held_out import held_out
from pdadapt.evaluation.results import RunMetrics
from pdadapt.evaluation.summary import summarise
from pdadapt.generation.in_run import write_own_queries
from pdadapt.labeling.questions import Labeling
from pdadapt.labeling.stage import save_lists
from pdadapt.models.memory import batch_limits
from pdadapt.preflight import check, many_passes, say_precision, with_precision
from pdadapt.reporting.report import write_report
from pdadapt.retrieval.candidates import rank
from pdadapt.retrieval.engines.load import make_engine
from pdadapt.retrieval.search import sample_queries
from pdadapt.runs.changes import Stage
from pdadapt.runs.folder import RunFolder
from pdadapt.runtime.files import write_atomic
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import Recipe
from pdadapt.students.colbert import PCA_DOCUMENTS, get_lengths, set_lengths
from pdadapt.students.load import load_configured, save_student
from pdadapt.training import distributed
from pdadapt.training.stage import fit

if TYPE_CHECKING:
    from pdadapt.runtime.ray_cluster import RayCluster


def adapt(
    recipe: Recipe,
    dataset: Dataset,
    out: Path,
    progress: Progress,
    restart_from: Stage | None = None,
    stop_before_labeling: bool = False,
    cluster: RayCluster | None = None,
) -> RunMetrics | None:
    """Adapt the student to the dataset's corpus, `recipe.iterations` times; returns its metrics.json.

    Everything the run needs is checked before any work; killed at any moment, the same call goes on from there.
    restart_from: the stage from which a run of other settings may be made anew. stop_before_labeling: return None when
    candidates wait for labels, which others make (shards.py). cluster: where documents are encoded and labeled.
    Raises PdadaptError on anything the user can mend.
    """
    any_precision = recipe.teacher.dtype == "auto"
    recipe = with_precision(recipe, RunFolder(out))
    if distributed.rank() > 0:
        join_training(recipe, dataset, RunFolder(out), progress)
        return None
    if stop_before_labeling and distributed.processes() > 1:
        raise RunError(
            "--stop-before-labeling is for one process, since the others wait for labels: begin without the launcher, "
            "and give it the run when the labels are there."
        )
    if not dataset.queries:
        dataset = write_own_queries(recipe, dataset, RunFolder(out), progress, restart_from)
    job = check(recipe, dataset, out, restart_from)
    dataset.notices.say(progress.say)
    if cluster and recipe.retrieve.engine in ("plaid", "colbert"):
        progress.say(f"Engine {recipe.retrieve.engine} encodes the corpus itself, on this machine; the cluster labels.")
    run, queries, test_queries = job.run, job.queries, job.test_queries
    if job.relevant:
        progress.say(
            f"{len(job.relevant):,} of {len(queries):,} queries are labeled: L_CL learns from their judgments."
        )
    kept_out = held_out(queries, recipe.train.held_out, recipe.seed)
    if recipe.train.held_out and not kept_out:
        progress.say("There are too few queries to hold some out: agreement with the teacher will not be measured.")
    if not run.metrics_file.exists() and (said := many_passes(recipe.train, len(queries) - len(kept_out))):
        progress.say(said)
    run.check(recipe, job.origin, restart_from)
    if any_precision:
        say_precision(recipe, job.keys, progress)
    anew = restart_from == "student" or not run.student.exists()
    student = new_student(recipe, dataset.corpus) if anew else None
    with run.locked():
        if said := run.claim(recipe, job.origin, restart_from):
            progress.say(said)
        progress.log_to(run.path / "timings.jsonl", run.path / "progress.json")
        batch_limits.remember(run.path / "memory.json")
        if student is not None and not run.student.exists():
            save_student(student, run.student)
        student = None  # its memory is wanted
        depth = measures.depth(recipe.evaluate)
        for iteration in range(1, recipe.iterations + 1):
            progress.prefix = f"iteration {iteration}: "
            folder = run.iteration(iteration)
            rank(recipe, dataset.corpus, queries, test_queries, depth, run, iteration - 1, progress, cluster)
            if not (folder / "lists.jsonl").exists():
                if stop_before_labeling:
                    progress.clear_state()
                    return None
                labeling = Labeling(
                    TrecRunFile(folder / "candidates.run"), dataset.corpus, queries, recipe, job.relevant
                )
                save_lists(labeling, job.keys, run.store(recipe), folder, progress, cluster)
            if not run.checkpoint(iteration).exists():
                fit(recipe, dataset.corpus, queries, run, iteration, progress)
            shutil.rmtree(folder / "trainer", ignore_errors=True)
            if kept_out and not (folder / "agreement.json").exists():
                save_agreement(recipe, dataset.corpus, queries, run, iteration, progress)
            learned = not kept_out or has_learned(folder)
            if not learned:
                break
        progress.prefix = ""
        if test_queries:
            rank(recipe, dataset.corpus, {}, test_queries, depth, run, iteration, progress, cluster)
        best = iteration if learned else iteration - 1
        for number in range(iteration + 1):
            rank_general(recipe, run, number, progress)
        metrics = summarise(recipe, dataset, run, len(queries), test_queries, iteration, best)
        write_atomic(run.metrics_file, json.dumps(metrics.to_json(), indent=2) + "\n")
        progress.clear_state()
        write_report(run.path)
    return metrics


def join_training(recipe: Recipe, dataset: Dataset, run: RunFolder, progress: Progress) -> None:
    """What the ranks other than 0 do: their part of each training, as soon as rank 0 has left its lists."""
    distributed.take_device()
    distributed.wait_until(run.recipe_file.exists, run.path)
    if not dataset.queries:
        dataset = with_queries(dataset, run.written_queries)
    batch_limits.remember(run.path / "memory.json")
    queries = sample_queries(dataset.queries, recipe.retrieve.max_queries, recipe.seed)
    kept_out = held_out(queries, recipe.train.held_out, recipe.seed)
    for iteration in range(1, recipe.iterations + 1):
        if not run.checkpoint(iteration).exists():
            distributed.wait_until((run.iteration(iteration) / "lists.jsonl").exists, run.path)
            fit(recipe, dataset.corpus, queries, run, iteration, progress)
        if kept_out:
            distributed.wait_until((run.iteration(iteration) / "agreement.json").exists, run.path)
            if not has_learned(run.iteration(iteration)):
                break


def new_student(recipe: Recipe, corpus: Corpus) -> Any:
    """The student before training, with its projection."""
    model = load_configured(recipe.student.model, recipe.student, corpus.sample(PCA_DOCUMENTS))
    lengths = get_lengths(model)
    set_lengths(model, recipe.train.query_length, recipe.train.document_length)  # found too long now, not later
    set_lengths(model, *lengths)
    make_engine(model, recipe.retrieve)  # which cannot search it, or is not there, too
    return model
