"""Measures as trec_eval computes them, through ir-measures."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import ir_measures
import numpy as np

from pdadapt.data.answers import Answers
from pdadapt.data.run_file import Ranked, Ranking, in_order
from pdadapt.data.trec import Qrels
from pdadapt.errors import RecipeError, reason
from pdadapt.settings.schema import EvaluateSettings

PerQuery = dict[str, float]  # query_id -> value
ANSWER = re.compile(r"Answer@([1-9]\d*)")
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
