"""Measure models and runs side by side."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pdadapt.data.answers import answers_of
from pdadapt.data.corpus import Dataset
from pdadapt.data.run_file import Ranking, as_written, read_run, write_run
from pdadapt.data.trec import Qrels
from pdadapt.errors import DataError
from pdadapt.evaluation.measures import PerQuery, depth, parse_measures, per_query
from pdadapt.evaluation.significance import compare_values
from pdadapt.retrieval.engines.load import BASELINE, check_model
from pdadapt.retrieval.search import open_index, retrieve_documents, sample_queries, without_itself
from pdadapt.runtime.files import write_atomic
from pdadapt.runtime.locks import locked
from pdadapt.runtime.names import file_names
from pdadapt.runtime.printing import printable
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import EvaluateSettings, RetrieveSettings

MOST_CHANGED = 10  # queries that are shown


def most_changed(base: PerQuery, other: PerQuery) -> list[str]:
    """The queries whose value differs most, the greatest difference first; those that do not differ are left out."""
    change = {query_id: abs(other[query_id] - base[query_id]) for query_id in base}
    ordered = sorted((query_id for query_id in change if change[query_id]), key=lambda query_id: -change[query_id])
    return ordered[:MOST_CHANGED]


def gained_and_lost(base: PerQuery, other: PerQuery) -> dict[str, list[str]]:
    """The queries that `gained` most and those that `lost` most."""
    higher = {query_id: max(base[query_id], value) for query_id, value in other.items()}
    lower = {query_id: min(base[query_id], value) for query_id, value in other.items()}
    return {"gained": most_changed(base, higher), "lost": most_changed(base, lower)}


def write_values(path: Path, systems: Sequence[str], values: Sequence[Mapping[str, PerQuery]]) -> None:
    """The value of every query, measure and system: a TSV file with a header."""
    columns = (" ".join(printable(system).split()) for system in systems)
    lines = [
        "\t".join([query_id, name, *(f"{system[name][query_id]:.6f}" for system in values)])
        for name in values[0]
        for query_id in values[0][name]
    ]
    write_atomic(path, "\n".join(["\t".join(["query_id", "measure", *columns]), *lines]) + "\n")


def evaluate(
    systems: Sequence[str],
    dataset: Dataset,
    settings: EvaluateSettings,
    student: dict[str, Any],
    out: Path,
    seed: int,
    retrieval: RetrieveSettings,
    progress: Progress,
    pairs: Sequence[tuple[int, int]],
    indexes: Path | None = None,
) -> dict[str, Any]:
    """Rank the test queries with each system and compare pairs of them, given by their places.

    systems: models, `bm25`, or TREC run files. student: settings of the student that were asked for (lengths,
    projection, dtype); else the checkpoint's. indexes: a folder where indexes are kept; None: they go. Left under
    `out`: a run file of each model, `queries.tsv` with the value of every query, measure and system, and metrics.json,
    which is returned.

    Raises DataError when the corpus brings no judgments, ModelError when a model does not load.
    """
    if not dataset.qrels:
        raise DataError(
            f"Corpus {dataset.name!r} brings no judgments for split {settings.split!r}; evaluation needs a "
            f"BEIR folder with qrels/{settings.split}.tsv, or --queries and --qrels."
        )
    answers = answers_of(dataset)
    parse_measures(settings.measures, answers)
    queries = sample_queries(dataset.test_queries, settings.max_queries, seed)
    qrels = {query_id: dataset.qrels[query_id] for query_id in queries}
    given = {name: read_run(Path(name)) for name in systems if Path(name).is_file()}
    for name in systems:
        if name not in given:
            check_model(name, student, retrieval)
        else:
            check_run(name, given[name], dataset, qrels, progress)
    rankings = []
    here = [file.stem for file in map(Path, given) if file.suffix == ".run" and file.resolve().parent == out.resolve()]
    models = [name for name in systems if name not in given]
    files = dict(zip(models, file_names(models, here), strict=True))
    with locked(out):
        for name in systems:
            if name in given:
                ranking = {query_id: given[name].get(query_id, []) for query_id in queries}
                ranking = _without_itself(name, ranking, dataset, progress)
            else:
                root = indexes or out / "indexes"
                engine, index = open_index(name, dataset, student, retrieval, root, progress)
                ranking = retrieve_documents(engine, dataset.corpus, queries, index, depth(settings), progress)
                if indexes is None:
                    shutil.rmtree(root)
                write_run(out / f"{files[name]}.run", ranking.items(), files[name])
                missed = sum(not ranked for ranked in ranking.values())
                if name == BASELINE and 2 * missed > len(ranking):
                    progress.say(
                        f"BM25 finds no document for {missed:,} of {len(ranking):,} queries: none shares a word with "
                        "the query. BM25 is no measure for a model here."
                    )
                ranking = {query_id: as_written(ranked) for query_id, ranked in ranking.items()}
            rankings.append(ranking)
    values = [per_query(ranking, qrels, settings.measures, answers) for ranking in rankings]
    metrics = {
        "corpus": dataset.name,
        "documents": len(dataset.corpus.whole),
        "test_queries": len(queries),
        "models": list(systems),
        "measures": compare_values(values, settings, seed, pairs),
        "most_changed": [],
    }
    if pairs:
        first = settings.measures[0]
        two = pairs[0]
        metrics["most_changed"] = [
            {
                "query_id": query_id,
                "query": queries[query_id],
                first: [values[i][first][query_id] for i in two],
                "top": [[doc_id for doc_id, _ in rankings[i][query_id][:3]] for i in two],
            }
            for query_id in most_changed(*(values[i][first] for i in two))
        ]
    write_values(out / "queries.tsv", systems, values)
    write_atomic(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    return metrics


def check_run(name: str, ranking: Ranking, dataset: Dataset, qrels: Qrels, progress: Progress) -> None:
    """Say which judged queries a run lacks, and how many of its documents nobody knows.

    Raises DataError when it is of other queries or documents.
    """
    ranked = {query_id: ranking[query_id] for query_id in qrels if query_id in ranking}
    if not ranked:
        raise DataError(f"{name} ranks none of the judged queries; check its query ids, or give other qrels.")
    if absent := [query_id for query_id in qrels if query_id not in ranking]:
        progress.say(
            f"{name} ranks nothing for {len(absent):,} of {len(qrels):,} judged queries (such as {absent[0]!r}). They "
            "count as 0."
        )
    doc_ids = dict.fromkeys(doc_id for entries in ranked.values() for doc_id, _ in entries)
    if len(dataset.corpus):
        blank = dataset.notices.blank["document"]
        lacking = [doc_id for doc_id in dataset.corpus.whole.lacking(doc_ids) if doc_id not in blank]
        if len(lacking) == len(doc_ids):
            raise DataError(
                f"{name} ranks none of the corpus' documents, but such as {lacking[0]!r}. Check its document ids, or "
                "give the corpus that it is of."
            )
        if lacking:
            progress.say(
                f"{name} ranks {len(lacking):,} of {len(doc_ids):,} documents that the corpus lacks (such as "
                f"{lacking[0]!r}). They count as not relevant."
            )
    elif not any(doc_ids.keys() & judged.keys() for judged in qrels.values()):
        progress.say(f"{name} ranks no document that is judged. Check its document ids.")


def _without_itself(name: str, ranking: Ranking, dataset: Dataset, progress: Progress) -> Ranking:
    """A ranking that was given, under the rule that holds for models: a query that is a document finds not itself."""
    if not len(dataset.corpus):  # runs and judgments alone
        own = sum(any(doc_id == query_id for doc_id, _ in ranked) for query_id, ranked in ranking.items())
        if own:
            progress.say(
                f"{name} ranks a document with the query's own id for {own:,} of {len(ranking):,} queries. It is kept, "
                "for only texts tell whether it is the query. Give --corpus to have those left out that are."
            )
        return ranking
    known = dataset.without_blank(ranking)
    if blank := sum(len(ranked) - len(known.get(query_id, [])) for query_id, ranked in ranking.items()):
        progress.say(f"{name} ranks blank documents: {blank:,} entries are left out, as of models.")
    ranking = {query_id: known.get(query_id, []) for query_id in ranking}
    kept, left_out = without_itself(ranking, dataset.corpus, dataset.test_queries)
    if left_out:
        progress.say(
            f"{name} ranks the query itself for {left_out:,} of {len(ranking):,} queries: left out, as of models."
        )
    return kept
