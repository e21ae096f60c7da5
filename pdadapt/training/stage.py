"""Stage `train`: train the student of the iteration before on this iteration's lists."""

from __future__ import annotations

import statistics
from typing import Any

from pdadapt.data.corpus import Corpus, Queries
from pdadapt.evaluation.agreement import agreement, by_teacher_alone, says_enough, score_lists
from pdadapt.evaluation.held_out import DECISIVE_MEASURE, held_out, judging
from pdadapt.labeling.training_list import read_lists
from pdadapt.runs.folder import RunFolder
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import Recipe, TrainSettings
from pdadapt.students.load import load_configured
from pdadapt.training import memory, trainer


def fit(recipe: Recipe, corpus: Corpus, queries: Queries, run: RunFolder, iteration: int, progress: Progress) -> None:
    """Train the student of the iteration before on this iteration's lists, but those held out.

    When memory runs out, the training goes on from its last state with smaller chunks.
    """
    folder = run.iteration(iteration)
    kept_out = held_out(queries, recipe.train.held_out, recipe.seed)
    lists = read_lists(folder / "lists.jsonl", lambda query_id: query_id not in kept_out)
    choosing = kept_out - judging(kept_out, recipe)
    chosen_by = read_lists(folder / "lists.jsonl", choosing.__contains__) if choosing else ()
    held = by_teacher_alone(recipe, corpus, queries, run, chosen_by)
    judges = [entry for entry in held if says_enough(entry, recipe.train.temperature)]
    if recipe.train.keeps_best and not judges:
        why = "The teacher tells no documents of the queries held out apart" if held else "No queries are held out"
        progress.say(f"{why}, so the last state of the training is kept, not the best.")

    def measure(student: Any) -> float:
        scores = score_lists(student, judges, corpus, queries, recipe.retrieve.batch_tokens)
        found = agreement(judges, scores, recipe.train.temperature)
        return statistics.fmean(found[DECISIVE_MEASURE].values()) if found[DECISIVE_MEASURE] else 0.0

    def attempt(settings: TrainSettings) -> None:
        model = load_configured(str(run.checkpoint(iteration - 1)), recipe.student)
        seed, chosen = recipe.seed + iteration, measure if judges else None
        trainer.train(model, lists, corpus, queries, settings, seed, folder, progress, chosen)

    memory.until_it_fits(recipe.train, attempt, progress.say)
