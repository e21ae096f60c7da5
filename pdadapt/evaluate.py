"""Measures as trec_eval computes them (through ir-measures), and whether systems differ by more than chance."""

from __future__ import annotations

import functools
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
from pdadapt.corpus import Dataset, Qrels
from pdadapt.engines.choose import BASELINE, check_model
from pdadapt.errors import DataError, RecipeError, reason
from pdadapt.locks import locked
from pdadapt.names import file_names
from pdadapt.printing import printable
from pdadapt.progress import Progress
from pdadapt.recipe import EvaluateSettings, RetrieveSettings
from pdadapt.retrieve import open_index, retrieve_documents, sample_queries, without_itself
from pdadapt.run import Ranked, Ranking, as_written, in_order, read_run, write_atomic, write_run

PerQuery = dict[str, float]  # query_id -> value
MOST_CHANGED = 10  # queries that are shown
ANSWER = re.compile(r"Answer@([1-9]\d*)")
SAME = 1e-9  # differences that differ by less are equal
DEEPEST = 1_000  # documents a query, as the field's runs have
COUNTS = ("NumRet", "NumRel", "NumRelRet", "NumQ")


def parse_measures(names: Sequence[str], answers: Answers | None = None) -> dict[ir_measures.Measure, list[str]]:
    """ir-measures' measures and what each was called (AP and MAP are one); Answer@k is our own.

    Raises RecipeError naming the measure that ir-measures does not know, or Answer@k where no answers are known.
    """
    measures: dict[ir_measures.Measure, list[str]] = {}
    for name in names:
        if ANSWER.fullmatch(name):
            if answers is None:
                raise RecipeError(
                    f"evaluate.measures: {name!r} needs a corpus with answers, such as nq-open or triviaqa."
                )
            continue
        measures.setdefault(_parse(name), []).append(name)
    return measures


@functools.cache
def _parse(name: str) -> ir_measures.Measure:
    """By ir-measures' name, or by trec_eval's (`ndcg_cut_10`). Raises RecipeError when it cannot be computed."""
    try:
        measure = ir_measures.parse_measure(name)
    except (NameError, ValueError, KeyError):
        try:
            (measure,) = ir_measures.parse_trec_measure(name)
        except ValueError:
            raise RecipeError(
                f"evaluate.measures: {name!r} is not a measure of ir-measures, such as nDCG@10, AP, RR@10, P@5, R@100 "
                "and Success@5 (https://ir-measur.es lists them)."
            ) from None
    if measure.params.get("cutoff", 1) < 1:
        raise RecipeError(f"evaluate.measures: {name!r} looks at no document; give a rank of 1 or more.")
    _calculate(name, [measure], {"1": {"a": 1, "b": 0}}, {"1": {"a": 2.0, "b": 1.0}})
    return measure


def _calculate(
    name: str, measures: Sequence[ir_measures.Measure], qrels: Qrels, run: Mapping[str, Mapping[str, float]]
) -> list[Any]:
    """ir-measures' values. Raises RecipeError when it has none: some want packages, other parameters, other grades.

    Its providers see the queries by number, since gdeval.pl (ERR@k) takes no other ids.
    """
    numbers = {query_id: str(number) for number, query_id in enumerate(dict.fromkeys([*qrels, *run]), 1)}
    named = {number: query_id for query_id, number in numbers.items()}
    judged, ranked = ({numbers[query_id]: one[query_id] for query_id in one} for one in (qrels, run))
    try:
        found = list(ir_measures.iter_calc(list(measures), judged, ranked))
        return [metric._replace(query_id=named[metric.query_id]) for metric in found]
    except Exception as error:
        if missing := "; ".join(re.findall(r"^ - \S+ \((.+)\)$", str(error), re.MULTILINE)):
            raise RecipeError(
                f"evaluate.measures: {name!r} needs something that is not installed here ({missing}). Install it, or "
                "leave the measure out."
            ) from None
        said = re.sub(r"^invalid param (\w+)=<object.*", r"it needs a value of \1", reason(error))
        raise RecipeError(f"evaluate.measures: {name!r} cannot be computed ({said}); leave it out.") from error


def per_query(
    ranking: Ranking, qrels: Qrels, names: Sequence[str], answers: Answers | None = None
) -> dict[str, PerQuery]:
    """Each measure's value for every judged query; a judged query that the ranking lacks counts 0.

    For every measure documents stand in the order of `in_order`. Answer@k is 1 where one of the k best passages holds
    an answer.
    """
    measures = parse_measures(names, answers)
    values: dict[str, PerQuery] = {name: dict.fromkeys(qrels, 0.0) for name in names}
    by_cutoff: dict[int | None, dict[ir_measures.Measure, list[str]]] = {}
    for measure, called in measures.items():
        cutoff, plain = _without_cutoff(measure)
        by_cutoff.setdefault(cutoff, {})[plain] = called
    ranking = {query_id: in_order(ranked) for query_id, ranked in ranking.items()}
    for cutoff, of_run in by_cutoff.items():
        run = {query_id: _as_scores(ranked[:cutoff]) for query_id, ranked in ranking.items() if ranked}
        for metric in _calculate(", ".join(names), list(of_run), qrels, run):
            for name in of_run[metric.measure]:
                values[name][metric.query_id] = float(metric.value)
    for name in names:
        if answers and (found := ANSWER.fullmatch(name)):
            values[name] = answers.recall(ranking, qrels, int(found[1]))
    return values


def _without_cutoff(measure: ir_measures.Measure) -> tuple[int | None, ir_measures.Measure]:
    """RR@k as k and RR; others as they are. ir-measures has MS MARCO's script for RR@k, which breaks ties otherwise."""
    if measure.NAME != "RR" or measure.params.get("judged_only"):
        return None, measure
    kept = {key: value for key, value in measure.params.items() if key != "cutoff"}
    return measure.params.get("cutoff"), ir_measures.RR(**kept)


def _as_scores(ranked: Ranked) -> dict[str, float]:
    """The documents with scores that say their order and no more, since the measures' providers order ties unlike."""
    return {doc_id: float(len(ranked) - place) for place, (doc_id, _) in enumerate(ranked)}


def depth(settings: EvaluateSettings) -> int:
    """How many documents of a query are ranked: evaluate.k, or as many as a measure looks at; AP looks at DEEPEST."""
    cutoffs = (re.search(r"@(\d+)$", name) for name in settings.measures)
    return max([settings.k, *(int(found[1]) if found else DEEPEST for found in cutoffs)])


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
    interval, p_t = None, 0.0 if len(difference) > 1 and difference.any() else 1.0
    if len(difference) > 1 and np.ptp(difference) > SAME:
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

    A comparison is what compare_two says, with `base` and `system`, their places, and `p_holm` and `p_t_holm`, its p
    and p_t corrected for how many comparisons there are.
    """
    pairs = [(0, i) for i in range(1, len(systems))] if pairs is None else pairs
    found = {}
    for name in systems[0]:
        comparisons = [
            {"base": i, "system": j, **compare_two(systems[i][name], systems[j][name], settings.resamples, seed)}
            for i, j in pairs
        ]
        for p in ("p", "p_t"):
            corrected = holm([comparison[p] for comparison in comparisons])
            comparisons = [one | {f"{p}_holm": value} for one, value in zip(comparisons, corrected, strict=True)]
        found[name] = {
            "means": [aggregate(name, system[name]) for system in systems],
            "comparisons": comparisons,
        }
    return found


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
