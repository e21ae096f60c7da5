"""What a run comes to: metrics.json, from the files that its stages left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pdadapt.data.answers import answers_of
from pdadapt.data.corpus import Dataset, Document, Queries
from pdadapt.data.load import load_dataset
from pdadapt.data.run_file import Ranking, read_run
from pdadapt.evaluation import evaluate, measures, significance
from pdadapt.evaluation.forgetting import GENERAL, GENERAL_MEASURE
from pdadapt.evaluation.held_out import DECISIVE
from pdadapt.evaluation.measures import PerQuery
from pdadapt.evaluation.verdict import verdict
from pdadapt.runs.folder import RunFolder, system
from pdadapt.runs.record import agreed, read_lines
from pdadapt.runtime.printing import shorten
from pdadapt.settings.schema import Recipe

SHOWN, SNIPPET = 3, 320  # documents of a query in the report; letters of each


def summarise(
    recipe: Recipe, dataset: Dataset, run: RunFolder, queries: int, test_queries: Queries, done: int, best: int
) -> dict[str, Any]:
    """Base against adapted on the test queries, the figures of each iteration's labels and agreement, and the verdict.

    done: iterations that there were; best: the one whose checkpoint is kept for use, 0 for the student as it was.
    Leaves queries.tsv.
    """

    def figures(name: str) -> list[Any]:
        files = [run.iteration(number) / name for number in range(1, done + 1)]
        return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]

    def rankings(name: str) -> list[Ranking]:
        return [read_run(run.iteration(number) / name) for number in range(done + 1)]

    shown = best or done
    metrics: dict[str, Any] = {
        "corpus": dataset.name,
        "summary": " ".join([dataset.summary, *dataset.notices.sentences]),
        "documents": len(dataset.corpus.whole),
        "queries": queries,
        "test_queries": len(test_queries),
        "iteration": best,
        "checkpoint": str(run.checkpoint(best)),
        "labels": figures("labels.json"),
        "agreement": figures("agreement.json"),
        "general": [],
        "measures": {},
        "most_changed": {},
    }
    if all((run.iteration(number) / "general.run").exists() for number in range(done + 1)):
        settings = recipe.evaluate.model_copy(update={"measures": (GENERAL_MEASURE,)})
        base, *adapted = rankings("general.run")
        qrels = load_dataset(GENERAL).qrels
        metrics["general"] = [significance.compare([base, after], qrels, settings, recipe.seed) for after in adapted]
    if test_queries:
        qrels = {query_id: dataset.qrels[query_id] for query_id in test_queries}
        found = rankings("test.run")
        values = [measures.per_query(one, qrels, recipe.evaluate.measures, answers_of(dataset)) for one in found]
        metrics["measures"] = significance.compare_values(values, recipe.evaluate, recipe.seed)
        evaluate.write_values(run.values_file, [system(number) for number in range(done + 1)], values)
        measure = recipe.evaluate.measures[0]
        metrics["most_changed"] = most_changed(
            values[0][measure],
            values[shown][measure],
            test_queries,
            lambda query_id: [
                [
                    show_document(dataset.corpus.whole[doc_id], grade=qrels[query_id].get(doc_id))
                    for doc_id, _ in found[number].get(query_id, [])[:SHOWN]
                ]
                for number in (0, shown)
            ],
        )
    else:
        metrics["most_changed"] = changed_held_out(run.iteration(shown) / "held-out.jsonl", shown, dataset)
    metrics["verdict"] = verdict(metrics)
    return metrics


def changed_held_out(file: Path, shown: int, dataset: Dataset) -> dict[str, Any]:
    """The queries held out whose agreement with the teacher changed most, with the documents that it judged and its
    points; none where an earlier version left no such file.
    """
    rows = {row["query_id"]: row for row in read_lines(file)}

    def documents(query_id: str, name: str) -> list[Any]:
        row = rows[query_id]
        ranked = sorted(range(len(row["doc_ids"])), key=lambda i: -row["students"][name]["scores"][i])
        return [show_document(dataset.corpus[row["doc_ids"][i]], point=row["points"][i]) for i in ranked[:SHOWN]]

    before, after = (agreed(rows.values(), system(number), DECISIVE) for number in (0, shown))
    return most_changed(
        before,
        after,
        dataset.queries,
        lambda query_id: [documents(query_id, system(number)) for number in (0, shown)],
    )


def most_changed(
    before: PerQuery, after: PerQuery, queries: Queries, documents: Callable[[str], list[Any]]
) -> dict[str, Any]:
    """The queries that `gained` and `lost` most, with their documents, of the base and of the adapted student."""
    return {
        kind: [
            {
                "query_id": query_id,
                "query": queries[query_id],
                "before": before[query_id],
                "after": after[query_id],
                "documents": documents(query_id),
            }
            for query_id in query_ids
        ]
        for kind, query_ids in evaluate.gained_and_lost(before, after).items()
    }


def show_document(document: Document, **judged: Any) -> dict[str, Any]:
    """As a report shows it, the text cut short. judged: its `grade`, None where nobody judged it, or its `point`."""
    text = shorten(document.text, SNIPPET, " ...")
    return {"doc_id": document.doc_id, "title": document.title, "text": text, **judged}
