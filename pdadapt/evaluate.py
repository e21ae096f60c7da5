"""Measures as trec_eval computes them (through ir-measures), and the paired randomisation test."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
from scipy.stats import permutation_test

from pdadapt.corpus import Dataset, Qrels
from pdadapt.errors import DataError, RecipeError
from pdadapt.progress import Progress
from pdadapt.recipe import EvaluateSettings
from pdadapt.retrieve import index_corpus, retrieve_documents, sample_queries
from pdadapt.run import Ranking, write_atomic, write_run
from pdadapt.students import load_student
from pdadapt.students.colbert import PCA_DOCUMENTS

PerQuery = dict[str, float]  # query_id -> value


def parse_measures(names: Sequence[str]) -> list[ir_measures.Measure]:
    """Raises RecipeError naming the measure that ir-measures does not know."""
    measures = []
    for name in names:
        try:
            measures.append(ir_measures.parse_measure(name))
        except (NameError, ValueError):
            raise RecipeError(
                f"evaluate.measures: {name!r} is not a measure of ir-measures; nDCG@10, RR@10, R@100 and Success@5 are."
            ) from None
    return measures


def per_query(ranking: Ranking, qrels: Qrels, names: Sequence[str]) -> dict[str, PerQuery]:
    """Each measure's value for every judged query; a judged query that the ranking lacks counts 0."""
    measures = parse_measures(names)
    run = {query_id: dict(ranked) for query_id, ranked in ranking.items()}
    values: dict[str, PerQuery] = {name: dict.fromkeys(qrels, 0.0) for name in names}
    written = dict(zip(measures, names, strict=True))
    for metric in ir_measures.iter_calc(measures, qrels, run):
        values[written[metric.measure]][metric.query_id] = float(metric.value)
    return values


def mean(values: Mapping[str, float]) -> float:
    return float(np.mean(list(values.values())))


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


def compare(rankings: Sequence[Ranking], qrels: Qrels, settings: EvaluateSettings, seed: int) -> dict[str, Any]:
    """For each measure: the mean of every ranking, and the p-value of each but the first against the first."""
    return compare_values([per_query(ranking, qrels, settings.measures) for ranking in rankings], settings, seed)


def compare_values(systems: Sequence[Mapping[str, PerQuery]], settings: EvaluateSettings, seed: int) -> dict[str, Any]:
    """The same, of the values of every system: measure -> query_id -> value."""
    base, *others = systems
    return {
        name: {
            "means": [mean(system[name]) for system in systems],
            "p_values": [paired_test(base[name], other[name], settings.resamples, seed) for other in others],
        }
        for name in base
    }


def evaluate(
    models: Sequence[str],
    dataset: Dataset,
    settings: EvaluateSettings,
    student: dict[str, Any],
    out: Path,
    seed: int,
    batch_size: int,
    progress: Progress,
) -> dict[str, Any]:
    """Rank the test queries with each model by exact MaxSim; run files and metrics.json are left under `out`.

    student: settings of the student that were asked for (lengths, projection, dtype); else the checkpoint's.
    Raises DataError when the corpus brings no judgments, ModelError when a model does not load.
    """
    if not dataset.qrels:
        raise DataError(
            f"Corpus {dataset.name!r} brings no judgments for split {settings.split!r}; evaluation needs a "
            f"BEIR folder with qrels/{settings.split}.tsv."
        )
    parse_measures(settings.measures)
    out.mkdir(parents=True, exist_ok=True)
    queries = sample_queries(dataset.test_queries, settings.max_queries, seed)
    passages = dataset.corpus.sample(PCA_DOCUMENTS)
    rankings = []
    for model_name in models:
        model = load_student(model_name, **student, passages=passages)
        slug = re.sub(r"[^\w.-]+", "_", model_name).strip("._")
        index = out / "index"
        shutil.rmtree(index, ignore_errors=True)  # of an evaluation that was killed
        index_corpus(model, dataset.corpus, index, batch_size, progress)
        ranking = retrieve_documents(model, dataset.corpus, queries, index, settings.k, progress)
        shutil.rmtree(index)
        write_run(out / f"{slug}.run", ranking, slug)
        rankings.append(ranking)
    qrels = {query_id: dataset.qrels[query_id] for query_id in queries}
    metrics = {
        "corpus": dataset.name,
        "documents": dataset.corpus.split_from or len(dataset.corpus),
        "test_queries": len(queries),
        "models": list(models),
        "measures": compare(rankings, qrels, settings, seed),
    }
    write_atomic(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    return metrics
