"""Rerank a run file with a teacher, and measure the new order beside the old one."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pdadapt.data.answers import answer_matcher
from pdadapt.data.corpus import Dataset
from pdadapt.data.run_file import read_run, write_run
from pdadapt.errors import RunError
from pdadapt.evaluation.measures import parse_measures
from pdadapt.evaluation.results import Metrics
from pdadapt.evaluation.significance import compare
from pdadapt.labeling.check import check_teacher
from pdadapt.labeling.rerank import rerank
from pdadapt.retrieval.search import without_own_documents
from pdadapt.runtime.files import check_parent_folder
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import Recipe
from pdadapt.teachers.base import Task
from pdadapt.teachers.kind import model_of
from pdadapt.teachers.label_key import teacher_key
from pdadapt.teachers.load import Teachers


class Reranked(NamedTuple):
    label_store: Path
    figures: dict[str, float]  # `unanswered` questions; of pairs also the figures on position bias
    metrics: Metrics | None  # the new order against the old one; None without judgments


def rerank_file(
    run: Path,
    target: Path,
    dataset: Dataset,
    recipe: Recipe,
    task: Task,
    top: int,
    progress: Progress,
) -> Reranked:
    """Write the run with the first `top` documents of each query in the teacher's order to `target`.

    Labels are kept in the recipe's label store, by default beside the run. Raises RunError when `target` is no place
    for it, DataError when the run is not one of this dataset, ModelError when the teacher cannot answer.
    """
    if target.resolve() == run.resolve():
        raise RunError(f"{target} is the run itself. Choose another file for the new run.")
    check_parent_folder(target)
    answers = answer_matcher(dataset)
    if dataset.qrels:
        parse_measures(recipe.evaluate.measures, answers)
    queries = dataset.test_queries | dataset.queries
    ranking, themselves = without_own_documents(dataset.without_blank(read_run(run)), dataset.corpus, queries)
    key = teacher_key(recipe.teacher, task, dataset.corpus)
    store = Path(recipe.label_store) if recipe.label_store else run.with_suffix(".labels.sqlite")
    asked = {queries[query_id] for query_id in ranking if query_id in queries}
    check_teacher(recipe.teacher, task, asked, store, dataset.corpus)
    if themselves:
        progress.say(
            f"{run} ranks the query itself for {themselves:,} of {len(ranking):,} queries. It is left out there."
        )
    reranked, figures = rerank(
        ranking,
        dataset.corpus,
        queries,
        task,
        top,
        store,
        key,
        Teachers(recipe.teacher, [task], progress, dataset.corpus),
        progress,
        model_of(recipe.teacher, task).model,
    )
    write_run(target, reranked.items(), f"reranked-{task}s")
    judged = {query_id: dataset.qrels[query_id] for query_id in ranking if query_id in dataset.qrels}
    if not judged:
        return Reranked(store, figures, None)
    both = [{query_id: found[query_id] for query_id in judged} for found in (ranking, reranked)]
    measures = compare(both, judged, recipe.evaluate, recipe.seed, answers=answers)
    systems = ("run", "reranked")
    metrics = Metrics(dataset.name, len(dataset.corpus), len(judged), systems, measures, most_changed=())
    return Reranked(store, figures, metrics)
