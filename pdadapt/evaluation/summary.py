"""The metrics.json of a run, from the files that its stages left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pdadapt.data.answers import answer_matcher
from pdadapt.data.load import load_dataset
from pdadapt.data.run_file import Ranking, read_run
from pdadapt.evaluation.changed import SHOWN_DOCUMENTS, judged_document, most_changed, most_changed_held_out
from pdadapt.evaluation.evaluate import write_values
from pdadapt.evaluation.forgetting import GENERAL_CORPUS, GENERAL_MEASURE
from pdadapt.evaluation.measures import per_query
from pdadapt.evaluation.results import Measures, MostChanged, RunMetrics, ShownDocument, measures_from_json
from pdadapt.evaluation.significance import compare, compare_values
from pdadapt.evaluation.verdict import verdict
from pdadapt.labeling.figures import LabelFigures
from pdadapt.runs.artefacts import read_json
from pdadapt.runs.context import RunContext
from pdadapt.runs.folder import RunFolder, student_name

Value = TypeVar("Value")


def summarise(context: RunContext, done: int, best: int) -> RunMetrics:
    """The figures of each iteration, base against adapted on the test queries, and the verdict. Leaves queries.tsv.

    done: number of iterations. best: the iteration whose checkpoint is kept for
    use, 0 for the student before training.
    """
    dataset, run, test_queries = context.dataset, context.run, context.test_queries
    shown = best or done
    agreement = tuple(figures(run, done, "agreement.json", measures_from_json))
    general = compare_general(context, done)
    if test_queries:
        measures, changed = compare_test(context, done, shown)
    else:
        measures, changed = {}, most_changed_held_out(run.iteration(shown) / "held-out.jsonl", shown, dataset)
    return RunMetrics(
        corpus=dataset.name,
        summary=" ".join([dataset.summary, *dataset.notices.sentences]),
        documents=len(dataset.corpus.unsplit),
        queries=len(context.queries),
        test_queries=len(test_queries),
        iteration=best,
        checkpoint=str(run.checkpoint(best)),
        labels=tuple(figures(run, done, "labels.json", LabelFigures.from_json)),
        agreement=agreement,
        general=general,
        measures=measures,
        most_changed=changed,
        verdict=verdict(shown, agreement, general, measures, len(test_queries)),
    )


def figures(run: RunFolder, done: int, name: str, parse: Callable[[dict[str, Any]], Value]) -> Iterator[Value]:
    """What the file of this name says, for each iteration that has one."""
    for number in range(1, done + 1):
        file = run.iteration(number) / name
        if file.exists():
            yield read_json(file, parse)


def compare_general(context: RunContext, done: int) -> tuple[Measures, ...]:
    """The student of each iteration against the base on the general set; empty if the set was not ranked."""
    recipe, run = context.recipe, context.run
    files = [run.iteration(number) / "general.run" for number in range(done + 1)]
    if not all(file.exists() for file in files):
        return ()
    settings = recipe.evaluate.model_copy(update={"measures": (GENERAL_MEASURE,)})
    base, *adapted = map(read_run, files)
    qrels = load_dataset(GENERAL_CORPUS).qrels
    return tuple(compare([base, after], qrels, settings, recipe.seed) for after in adapted)


def compare_test(context: RunContext, done: int, shown: int) -> tuple[Measures, MostChanged]:
    """The measures of every student on the test queries, and the queries that changed most. Leaves queries.tsv."""
    recipe, dataset, run, test_queries = context.recipe, context.dataset, context.run, context.test_queries
    qrels = {query_id: dataset.qrels[query_id] for query_id in test_queries}
    rankings: list[Ranking] = [read_run(run.iteration(number) / "test.run") for number in range(done + 1)]
    values = [per_query(ranking, qrels, recipe.evaluate.measures, answer_matcher(dataset)) for ranking in rankings]
    write_values(run.values_file, [student_name(number) for number in range(done + 1)], values)

    def documents(query_id: str, iteration: int) -> tuple[ShownDocument, ...]:
        ranked = rankings[iteration].get(query_id, [])[:SHOWN_DOCUMENTS]
        return tuple(
            judged_document(dataset.corpus.unsplit[doc_id], qrels[query_id].get(doc_id)) for doc_id, _ in ranked
        )

    first = recipe.evaluate.measures[0]
    changed = most_changed(values[0][first], values[shown][first], test_queries, documents, shown)
    return compare_values(values, recipe.evaluate, recipe.seed), changed
