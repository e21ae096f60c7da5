"""Measures as trec_eval computes them, through ir-measures."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import ir_measures
import numpy as np

from pdadapt.data.answers import AnswerMatcher
from pdadapt.data.run_file import Ranked, Ranking, in_trec_order
from pdadapt.data.trec import Qrels
from pdadapt.errors import RecipeError, reason

PerQuery = dict[str, float]  # query_id -> value
ANSWER_MEASURE = re.compile(r"Answer@([1-9]\d*)")
COUNT_MEASURES = ("NumRet", "NumRel", "NumRelRet", "NumQ")


def parse_measures(names: Sequence[str], answers: AnswerMatcher | None = None) -> dict[ir_measures.Measure, list[str]]:
    """The measures of ir-measures, with the names that were given for each (AP and MAP are the same measure).

    Answer@k is not in ir-measures and is left out. Raises RecipeError when ir-measures does not know a measure, or
    when there are no answers for Answer@k.
    """
    measures: dict[ir_measures.Measure, list[str]] = {}
    for name in names:
        if ANSWER_MEASURE.fullmatch(name):
            if answers is None:
                raise RecipeError(
                    f"evaluate.measures: {name!r} needs a corpus with answers, such as nq-open or triviaqa."
                )
            continue
        measures.setdefault(_parse(name), []).append(name)
    return measures


@functools.cache
def _parse(name: str) -> ir_measures.Measure:
    """A measure by its name in ir-measures or trec_eval (`ndcg_cut_10`). Raises RecipeError when that fails."""
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
        raise RecipeError(f"evaluate.measures: {name!r} looks at no document. Give a rank of 1 or more.")
    _calculate(name, [measure], {"1": {"a": 1, "b": 0}}, {"1": {"a": 2.0, "b": 1.0}})
    return measure


def _calculate(
    name: str, measures: Sequence[ir_measures.Measure], qrels: Qrels, run: Mapping[str, Mapping[str, float]]
) -> list[Any]:
    """The values that ir-measures computes. Raises RecipeError when a measure needs a package, or other parameters.

    The providers get numbers as query ids, since gdeval.pl (ERR@k) accepts no others.
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
                f"evaluate.measures: {name!r} needs {missing}, which is not installed. Install it, or leave the "
                "measure out."
            ) from None
        said = re.sub(r"^invalid param (\w+)=<object.*", r"it needs a value of \1", reason(error))
        raise RecipeError(f"evaluate.measures: {name!r} cannot be computed ({said}). Leave it out.") from error


def per_query(
    ranking: Ranking, qrels: Qrels, names: Sequence[str], answers: AnswerMatcher | None = None
) -> dict[str, PerQuery]:
    """The value of each measure for every judged query. A judged query that the ranking lacks counts as 0.

    For every measure the documents are in the order of `in_trec_order`. Answer@k is 1 where one of the k best passages
    contains an answer.
    """
    measures = parse_measures(names, answers)
    values: dict[str, PerQuery] = {name: dict.fromkeys(qrels, 0.0) for name in names}
    by_cutoff: dict[int | None, dict[ir_measures.Measure, list[str]]] = {}
    for measure, called in measures.items():
        cutoff, plain = _without_cutoff(measure)
        by_cutoff.setdefault(cutoff, {})[plain] = called
    ranking = {query_id: in_trec_order(ranked) for query_id, ranked in ranking.items()}
    for cutoff, of_run in by_cutoff.items():
        run = {query_id: _as_scores(ranked[:cutoff]) for query_id, ranked in ranking.items() if ranked}
        for metric in _calculate(", ".join(names), list(of_run), qrels, run):
            for name in of_run[metric.measure]:
                values[name][metric.query_id] = float(metric.value)
    for name in names:
        if answers and (found := ANSWER_MEASURE.fullmatch(name)):
            values[name] = answers.recall(ranking, qrels, int(found[1]))
    return values


def _without_cutoff(measure: ir_measures.Measure) -> tuple[int | None, ir_measures.Measure]:
    """RR@k as k and RR, other measures unchanged: ir-measures computes RR@k with MS MARCO's script, which breaks ties
    in another way.
    """
    if measure.NAME != "RR" or measure.params.get("judged_only"):
        return None, measure
    kept = {key: value for key, value in measure.params.items() if key != "cutoff"}
    return measure.params.get("cutoff"), ir_measures.RR(**kept)


def _as_scores(ranked: Ranked) -> dict[str, float]:
    """The documents with scores that only express their order, since the providers break ties in different ways."""
    return {doc_id: float(len(ranked) - place) for place, (doc_id, _) in enumerate(ranked)}


def value_of_system(name: str, values: Mapping[str, float]) -> float:
    """The value of a system: the mean over the queries, or the sum for counts such as NumRet, like trec_eval."""
    every = list(values.values())
    return float(np.sum(every) if name.split("(")[0] in COUNT_MEASURES else np.mean(every))
