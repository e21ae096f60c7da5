"""Stage `train`: train the student of the previous iteration on the lists of this iteration."""

from __future__ import annotations

import shutil
import statistics
from typing import Any

from pdadapt.evaluation.agreement import agreement, by_teacher_alone, says_enough, score_lists
from pdadapt.evaluation.held_out import DECISIVE_MEASURE, judging, still_rises
from pdadapt.labeling.training_list import read_lists
from pdadapt.runs.artefacts import read_lines
from pdadapt.runs.context import RunContext
from pdadapt.settings.schema import TrainSettings
from pdadapt.students.load import load_student
from pdadapt.training import smaller_chunks, trainer
from pdadapt.training.distributed import rank


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

    def attempt(settings: TrainSettings) -> None:
        trainer.train(
            load_student(str(run.checkpoint(iteration - 1)), recipe.student),
            lists,
            context.corpus,
            context.queries,
            settings,
            recipe.seed + iteration,
            folder,
            progress,
            measure if judges else None,
        )

    smaller_chunks.until_it_fits(recipe.train, attempt, progress.say)
    if judges and iteration == recipe.iterations and still_rises(list(read_lines(folder / "checks.jsonl"))):
        progress.say(
            "Agreement with the teacher still rose at the last check. More queries or more steps may raise it further. "
            f"To train on from here, run the same command with --iterations {iteration + 1}."
        )
