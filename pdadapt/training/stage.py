"""Stage `train`: train the student of the previous iteration on the lists of this iteration."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Sequence
from typing import Any

from pdadapt.evaluation.agreement import agreement, by_teacher_alone, says_enough, score_lists
from pdadapt.evaluation.held_out import DECISIVE_MEASURE, judging, keeps_base, still_rises
from pdadapt.labeling.training_list import TrainingList, read_lists
from pdadapt.runs.artefacts import read_lines
from pdadapt.runs.context import RunContext
from pdadapt.settings.schema import TrainSettings
from pdadapt.students.load import load_student
from pdadapt.training import smaller_chunks, trainer
from pdadapt.training.distributed import rank, wait_until
from pdadapt.training.temperature import fit_to_student, read_fit, save_fit


def train_student(context: RunContext, iteration: int) -> None:
    """Train on all lists of the iteration except those of held-out queries, and save the checkpoint.

    When memory runs out, training resumes from its last saved state with smaller chunks.
    """
    run = context.run
    if not run.checkpoint(iteration).exists():
        _train(context, iteration)
    if rank() == 0:
        shutil.rmtree(run.iteration(iteration) / "trainer", ignore_errors=True)


def _train(context: RunContext, iteration: int) -> None:
    recipe, run, progress = context.recipe, context.run, context.progress
    folder = run.iteration(iteration)
    lists = read_lists(folder / "lists.jsonl", lambda query_id: query_id not in context.held_out)
    choosing = context.held_out - judging(context)
    held = by_teacher_alone(context, read_lists(folder / "lists.jsonl", choosing.__contains__) if choosing else ())
    judges = [entry for entry in held if says_enough(entry, recipe.train.temperature)]
    if recipe.train.keeps_best and not judges:
        why = "The teacher distinguishes no documents of the held-out queries" if held else "No queries are held out"
        progress.say(f"{why}, so the last state of the training is kept, not the best one.")

    def measure(student: Any) -> float:
        scores = score_lists(student, judges, context.corpus, context.queries, recipe.retrieve.batch_tokens)
        by_query = agreement(judges, scores, recipe.train.temperature)[DECISIVE_MEASURE]
        return statistics.fmean(by_query.values()) if by_query else 0.0

    settings = with_fitted_temperature(context, iteration, lists)

    def attempt(smaller: TrainSettings) -> None:
        trainer.train(
            load_student(str(run.checkpoint(iteration - 1)), recipe.student),
            lists,
            context.corpus,
            context.queries,
            smaller,
            recipe.seed + iteration,
            folder,
            progress,
            measure if judges else None,
        )

    smaller_chunks.until_it_fits(settings, attempt, progress.say)
    if keeps_base(list(read_lines(folder / "checks.jsonl"))):
        progress.say(
            f"{progress.prefix}no check was better than the student before training, so that student is kept. "
            "Try a lower train.learning_rate, or a better teacher."
        )


def say_if_rising(context: RunContext, iteration: int) -> None:
    """Say how to go on if the agreement with the teacher still rose at the end of the last training."""
    if still_rises(list(read_lines(context.run.iteration(iteration) / "checks.jsonl"))):
        context.progress.say(
            "Agreement with the teacher still rose at the last check. More queries or more steps may raise it further. "
            f"To train on from here, run the same command with --iterations {iteration + 1}."
        )


def with_fitted_temperature(context: RunContext, iteration: int, lists: Sequence[TrainingList]) -> TrainSettings:
    """The training settings, with the student's temperature fitted if it is `auto`. The first process fits it."""
    recipe, run = context.recipe, context.run
    if recipe.train.student_temperature != "auto":
        return recipe.train
    file = run.iteration(iteration) / "temperature.json"
    if rank() > 0:
        wait_until(file.exists, run.path)
    elif not file.exists():
        student = load_student(str(run.checkpoint(iteration - 1)), recipe.student)
        fit = fit_to_student(student, lists, context.corpus, context.queries, recipe.train, recipe.seed)
        save_fit(file, fit)
        context.progress.say(
            f"{context.progress.prefix}student temperature {fit.temperature:.3g}. L_KD before training is {fit.kd:.3f} "
            f"of {fit.kd_uniform:.3f}, which a student has that tells no documents apart."
        )
    return recipe.train.model_copy(update={"student_temperature": read_fit(file).temperature})
