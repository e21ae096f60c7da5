"""Measure models and runs side by side."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pdadapt.data.answers import answer_matcher
from pdadapt.data.corpus import Dataset, Queries
from pdadapt.data.run_file import Ranking, as_read_back, read_run, write_run
from pdadapt.data.trec import Qrels
from pdadapt.errors import DataError
from pdadapt.evaluation.changed import largest_changes
from pdadapt.evaluation.measures import PerQuery, parse_measures, per_query
from pdadapt.evaluation.results import ChangedRanking, Metrics
from pdadapt.evaluation.significance import compare_values
from pdadapt.retrieval.engines.load import BASELINE, check_model
from pdadapt.retrieval.search import open_index, retrieve_documents, sample_queries, without_own_documents
from pdadapt.runtime.files import write_atomic
from pdadapt.runtime.locks import locked
from pdadapt.runtime.names import file_names
from pdadapt.runtime.printing import printable
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import EvaluateSettings, RetrieveSettings

TOP_DOCUMENTS = 3  # shown of each query that changed


def write_values(path: Path, systems: Sequence[str], values: Sequence[Mapping[str, PerQuery]]) -> None:
    """Write the value of every query, measure and system to a TSV file with a header."""
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
) -> Metrics:
    """Rank the test queries with each system and compare pairs of systems, given by their positions.

    systems: models, `bm25`, or TREC run files. student: settings of the student (lengths, projection, dtype) that
    replace those of the checkpoint. indexes: the folder to keep indexes in; None removes them.

    Leaves under `out` a run file of each model, `queries.tsv` with the value of every query, measure and system, and
    metrics.json with what is returned.

    Raises DataError when the corpus has no judgments, ModelError when a model does not load.
    """
    if not dataset.qrels:
        raise DataError(
            f"Corpus {dataset.name!r} has no judgments for split {settings.split!r}. Give a BEIR folder with "
            f"qrels/{settings.split}.tsv, or --queries and --qrels."
        )
    answers = answer_matcher(dataset)
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
                ranking = retrieve_documents(engine, dataset.corpus, queries, index, settings.depth, progress)
                if indexes is None:
                    shutil.rmtree(root)
                write_run(out / f"{files[name]}.run", ranking.items(), files[name])
                missed = sum(not ranked for ranked in ranking.values())
                if name == BASELINE and 2 * missed > len(ranking):
                    progress.say(
                        f"BM25 finds no document for {missed:,} of {len(ranking):,} queries, since no document shares "
                        "a word with them. It is not a useful baseline here."
                    )
                ranking = {query_id: as_read_back(ranked) for query_id, ranked in ranking.items()}
            rankings.append(ranking)
    values = [per_query(ranking, qrels, settings.measures, answers) for ranking in rankings]
    metrics = Metrics(
        corpus=dataset.name,
        documents=len(dataset.corpus.unsplit),
        test_queries=len(queries),
        models=tuple(systems),
        measures=compare_values(values, settings, seed, pairs),
        most_changed=changed_rankings(queries, rankings, values, settings.measures[0], pairs[0]) if pairs else (),
    )
    write_values(out / "queries.tsv", systems, values)
    write_atomic(out / "metrics.json", json.dumps(metrics.to_json(), indent=2) + "\n")
    return metrics


def changed_rankings(
    queries: Queries,
    rankings: Sequence[Ranking],
    values: Sequence[Mapping[str, PerQuery]],
    measure: str,
    pair: tuple[int, int],
) -> tuple[ChangedRanking, ...]:
    """The queries whose values differ most between two systems, given by their positions."""
    base, other = pair

    def top(system: int, query_id: str) -> tuple[str, ...]:
        return tuple(doc_id for doc_id, _ in rankings[system][query_id][:TOP_DOCUMENTS])

    return tuple(
        ChangedRanking(
            query_id=query_id,
            query=queries[query_id],
            values=(values[base][measure][query_id], values[other][measure][query_id]),
            top=(top(base, query_id), top(other, query_id)),
        )
        for query_id in largest_changes(values[base][measure], values[other][measure])
    )


def check_run(name: str, ranking: Ranking, dataset: Dataset, qrels: Qrels, progress: Progress) -> None:
    """Report judged queries that a run lacks, and its documents that the corpus lacks.

    Raises DataError when the run is for other queries or documents.
    """
    ranked = {query_id: ranking[query_id] for query_id in qrels if query_id in ranking}
    if not ranked:
        raise DataError(f"{name} ranks none of the judged queries. Check its query ids, or give other qrels.")
    if absent := [query_id for query_id in qrels if query_id not in ranking]:
        progress.say(
            f"{name} ranks nothing for {len(absent):,} of {len(qrels):,} judged queries (such as {absent[0]!r}). They "
            "count as 0."
        )
    doc_ids = dict.fromkeys(doc_id for entries in ranked.values() for doc_id, _ in entries)
    if len(dataset.corpus):
        blank = dataset.notices.blank["document"]
        lacking = [doc_id for doc_id in dataset.corpus.unsplit.missing_ids(doc_ids) if doc_id not in blank]
        if len(lacking) == len(doc_ids):
            raise DataError(
                f"{name} ranks no document of the corpus, but others such as {lacking[0]!r}. Check its document ids, "
                "or give the corpus of this run."
            )
        if lacking:
            progress.say(
                f"{name} ranks {len(lacking):,} of {len(doc_ids):,} documents that the corpus lacks (such as "
                f"{lacking[0]!r}). They count as not relevant."
            )
    elif not any(doc_ids.keys() & judged.keys() for judged in qrels.values()):
        progress.say(f"{name} ranks no judged document. Check its document ids.")


def _without_itself(name: str, ranking: Ranking, dataset: Dataset, progress: Progress) -> Ranking:
    """A ranking from a run file under the rule for models: a query that is a document does not find itself."""
    if not len(dataset.corpus):  # only runs and judgments are given
        own = sum(any(doc_id == query_id for doc_id, _ in ranked) for query_id, ranked in ranking.items())
        if own:
            progress.say(
                f"{name} ranks a document with the id of the query for {own:,} of {len(ranking):,} queries. It is kept "
                "since only the texts can show whether it is the query. Give --corpus to leave out such documents."
            )
        return ranking
    known = dataset.without_blank(ranking)
    if blank := sum(len(ranked) - len(known.get(query_id, [])) for query_id, ranked in ranking.items()):
        progress.say(f"{name} ranks blank documents. {blank:,} entries are left out as for models.")
    ranking = {query_id: known.get(query_id, []) for query_id in ranking}
    kept, left_out = without_own_documents(ranking, dataset.corpus, dataset.test_queries)
    if left_out:
        progress.say(
            f"{name} ranks the query itself for {left_out:,} of {len(ranking):,} queries. It is left out as for models."
        )
    return kept
