"""Measures as trec_eval computes them (through ir-measures), and whether systems differ by more than chance."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
from scipy.stats import permutation_test, ttest_1samp

from pdadapt.answers import Answers, answers_of
from pdadapt.corpus import Dataset, Qrels, Queries
from pdadapt.engines.choose import index_folder, index_origin, load_engine
from pdadapt.errors import DataError, RecipeError
from pdadapt.progress import Progress
from pdadapt.recipe import EvaluateSettings, RetrieveSettings
from pdadapt.retrieve import index_corpus, retrieve_documents, sample_queries
from pdadapt.run import Ranking, read_run, write_atomic, write_run
from pdadapt.students.colbert import PCA_DOCUMENTS

PerQuery = dict[str, float]  # query_id -> value
MOST_CHANGED = 10  # queries that are shown
ANSWER = re.compile(r"Answer@(\d+)")
COUNTS = ("NumRet", "NumRel", "NumRelRet", "NumQ")


def parse_measures(names: Sequence[str], answers: Answers | None = None) -> dict[ir_measures.Measure, str]:
    """ir-measures' measures and what they were called; Answer@k is our own.

    Raises RecipeError naming the measure that ir-measures does not know, or Answer@k where no answers are known.
    """
    measures = {}
    for name in names:
        if ANSWER.fullmatch(name):
            if answers is None:
                raise RecipeError(
                    f"evaluate.measures: {name!r} needs a corpus with answers, such as nq-open or triviaqa."
                )
            continue
        try:
            measures[ir_measures.parse_measure(name)] = name
        except (NameError, ValueError):
            raise RecipeError(
                f"evaluate.measures: {name!r} is not a measure of ir-measures; nDCG@10, RR@10, R@100 and Success@5 are."
            ) from None
    return measures


def per_query(
    ranking: Ranking, qrels: Qrels, names: Sequence[str], answers: Answers | None = None
) -> dict[str, PerQuery]:
    """Each measure's value for every judged query; a judged query that the ranking lacks counts 0.

    Answer@k is 1 where one of the k best passages holds an answer.
    """
    measures = parse_measures(names, answers)
    run = {query_id: dict(ranked) for query_id, ranked in ranking.items()}
    values: dict[str, PerQuery] = {name: dict.fromkeys(qrels, 0.0) for name in names}
    for metric in ir_measures.iter_calc(list(measures), qrels, run):
        values[measures[metric.measure]][metric.query_id] = float(metric.value)
    for name in names:
        if answers and (found := ANSWER.fullmatch(name)):
            values[name] = answers.recall(ranking, qrels, int(found[1]))
    return values


def depth(settings: EvaluateSettings) -> int:
    """How many documents of a query are ranked: evaluate.k, or as many as a measure looks at (R@1000)."""
    cutoffs = (re.search(r"@(\d+)$", name) for name in settings.measures)
    return max(settings.k, *(int(found[1]) for found in cutoffs if found), 1)


def aggregate(name: str, values: Mapping[str, float]) -> float:
    """A system's value: the mean over queries; of counts, such as NumRet, the sum, as trec_eval has it."""
    every = list(values.values())
    return float(np.sum(every) if name.split("(")[0] in COUNTS else np.mean(every))


def paired_test(base: PerQuery, other: PerQuery, resamples: int, seed: int) -> float:
    """Two-sided p-value of the paired randomisation test (Smucker et al. 2007) on the mean difference.

    Swaps the two systems' values per query at random, `resamples` times (all ways when there are fewer).
    """
    difference = np.array([other[query_id] - base[query_id] for query_id in base])
    difference = difference[difference != 0]
    if len(difference) < 2:
        return 1.0
    result = permutation_test(
        (difference,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        n_resamples=resamples,
        vectorized=True,
        batch=1_000,
        rng=seed,
    )
    return float(result.pvalue)


def compare_two(base: PerQuery, other: PerQuery, resamples: int, seed: int) -> dict[str, Any]:
    """How the second system differs from the first, query by query.

    change: of the mean, with its 95 % interval (of Student's t; null where there is none); p: of the paired
    randomisation test; p_t: of the paired t-test; wins, ties, losses: queries.
    """
    difference = np.array([other[query_id] - base[query_id] for query_id in base])
    interval, p_t = None, 1.0
    if len(difference) > 1 and np.ptp(difference) > 0:
        found = ttest_1samp(difference, 0.0)
        interval, p_t = [float(end) for end in found.confidence_interval(0.95)], float(found.pvalue)
    return {
        "change": float(difference.mean()),
        "interval": interval,
        "p": paired_test(base, other, resamples, seed),
        "p_t": p_t,
        "wins": int((difference > 0).sum()),
        "ties": int((difference == 0).sum()),
        "losses": int((difference < 0).sum()),
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several tests at once, corrected so that the chance of any false finding is kept (Holm 1979)."""
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, p_values[i] * (len(p_values) - rank)))
        corrected[i] = highest
    return corrected


def compare(
    rankings: Sequence[Ranking],
    qrels: Qrels,
    settings: EvaluateSettings,
    seed: int,
    pairs: Sequence[tuple[int, int]] | None = None,
    answers: Answers | None = None,
) -> dict[str, Any]:
    """For each measure the mean of every ranking, and comparisons of pairs of them: each with the first, or `pairs`."""
    values = [per_query(ranking, qrels, settings.measures, answers) for ranking in rankings]
    return compare_values(values, settings, seed, pairs)


def compare_values(
    systems: Sequence[Mapping[str, PerQuery]],
    settings: EvaluateSettings,
    seed: int,
    pairs: Sequence[tuple[int, int]] | None = None,
) -> dict[str, Any]:
    """The same, of the values of every system: measure -> query_id -> value.

    A comparison is what compare_two says, with `base` and `system`, their places, and `p_holm`, its p corrected for how
    many comparisons there are.
    """
    pairs = [(0, i) for i in range(1, len(systems))] if pairs is None else pairs
    found = {}
    for name in systems[0]:
        comparisons = [
            {"base": i, "system": j, **compare_two(systems[i][name], systems[j][name], settings.resamples, seed)}
            for i, j in pairs
        ]
        corrected = holm([comparison["p"] for comparison in comparisons])
        found[name] = {
            "means": [aggregate(name, system[name]) for system in systems],
            "comparisons": [one | {"p_holm": p} for one, p in zip(comparisons, corrected, strict=True)],
        }
    return found


def most_changed(base: PerQuery, other: PerQuery) -> list[str]:
    """The queries whose value differs most, the greatest difference first; those that do not differ are left out."""
    change = {query_id: abs(other[query_id] - base[query_id]) for query_id in base}
    ordered = sorted((query_id for query_id in change if change[query_id]), key=lambda query_id: -change[query_id])
    return ordered[:MOST_CHANGED]


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
            f"BEIR folder with qrels/{settings.split}.tsv, or --qrels."
        )
    answers = answers_of(dataset)
    parse_measures(settings.measures, answers)
    queries = sample_queries(dataset.test_queries, settings.max_queries, seed)
    qrels = {query_id: dataset.qrels[query_id] for query_id in queries}
    given = {name: read_run(Path(name)) for name in systems if Path(name).is_file()}
    out.mkdir(parents=True, exist_ok=True)
    rankings = []
    for name in systems:
        if name in given:
            ranking = {query_id: given[name].get(query_id, []) for query_id in queries}
        else:
            index = index_folder(indexes or out / "indexes", dataset.name, name, retrieval)
            ranking = rank(name, dataset, queries, depth(settings), student, index, retrieval, progress)
            if indexes is None:
                shutil.rmtree(index.parent)
            slug = re.sub(r"[^\w.-]+", "_", name).strip("._")
            write_run(out / f"{slug}.run", ranking, slug)
        rankings.append(ranking)
    values = [per_query(ranking, qrels, settings.measures, answers) for ranking in rankings]
    metrics = {
        "corpus": dataset.name,
        "documents": dataset.corpus.split_from or len(dataset.corpus),
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
    lines = [
        "\t".join([query_id, name, *(f"{system[name][query_id]:.6f}" for system in values)])
        for name in settings.measures
        for query_id in queries
    ]
    write_atomic(out / "queries.tsv", "\n".join(["\t".join(["query_id", "measure", *systems]), *lines]) + "\n")
    write_atomic(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    return metrics


def rank(
    name: str,
    dataset: Dataset,
    queries: Queries,
    k: int,
    student: dict[str, Any],
    index: Path,
    retrieval: RetrieveSettings,
    progress: Progress,
) -> Ranking:
    """The k best documents of each query. Raises ModelError when the model does not load."""
    engine = load_engine(name, student, dataset.corpus.sample(PCA_DOCUMENTS), retrieval, dataset.lengths)
    origin = index_origin(name, dataset.corpus, student, retrieval, dataset.lengths)
    index_corpus(engine, dataset.corpus, index, progress, origin)
    return retrieve_documents(engine, dataset.corpus, queries, index, k, progress)
