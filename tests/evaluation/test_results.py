"""Results keep their keys, and the order of the keys, from file to file."""

import json

import pytest
from pydantic import ValidationError

from pdadapt.evaluation.results import Comparison, Metrics, RunMetrics, measures_from_json, measures_to_json
from pdadapt.labeling.figures import LabelFigures

COMPARISON = {"base": 0, "system": 1, "change": 0.25, "interval": [0.05, 0.45], "p": 0.03, "p_t": 0.04, "wins": 2}
COMPARISON |= {"ties": 1, "losses": 0, "p_holm": 0.06, "p_t_holm": 0.08}
MEASURES = {"nDCG@10": {"means": [0.5, 0.75], "comparisons": [COMPARISON]}}
LABELS = {"points_asked": 3, "pair_prompts_asked": 0, "points": 4, "points_unanswered": 0, "pairs": 0}
SHOWN = [{"doc_id": "d1", "title": "", "text": "rim", "grade": None}]
HELD_OUT = [{"doc_id": "d1", "title": "", "text": "rim", "point": None}]


def run_metrics(documents):
    changed = {"query_id": "q", "query": "rims", "before": 0.5, "after": 0.75, "documents": [documents, documents]}
    return {
        "corpus": "c",
        "summary": "c: 5 documents.",
        "documents": 5,
        "queries": 4,
        "test_queries": 3,
        "iteration": 1,
        "checkpoint": "run/iteration-1/checkpoint",
        "labels": [LABELS, LABELS | {"flip_rate": 0.5}],
        "agreement": [MEASURES, {}],
        "general": [],
        "measures": MEASURES,
        "most_changed": {"gained": [changed], "lost": []},
        "verdict": {"outcome": "helped", "sentence": "Helped."},
    }


EVALUATED = {
    "corpus": "c",
    "documents": 5,
    "test_queries": 3,
    "models": ["a", "b"],
    "measures": MEASURES,
    "most_changed": [{"query_id": "q", "query": "rims", "nDCG@10": [0.25, 0.75], "top": [["d1"], ["d2", "d3"]]}],
}


@pytest.mark.parametrize(
    ("kind", "tree"),
    [
        (RunMetrics, run_metrics(SHOWN)),
        (RunMetrics, run_metrics(HELD_OUT)),
        (Metrics, EVALUATED),
        (Comparison, COMPARISON | {"interval": None}),
        (LabelFigures, LABELS),
    ],
)
def test_json_records_survive_reading_and_writing(kind, tree):
    assert json.dumps(kind.from_json(tree).to_json()) == json.dumps(tree)


def test_measures_are_read_and_written_alike():
    assert json.dumps(measures_to_json(measures_from_json(MEASURES))) == json.dumps(MEASURES)


@pytest.mark.parametrize("key", list(COMPARISON))
def test_no_value_of_a_comparison_can_be_missing(key):
    lacking = {name: value for name, value in COMPARISON.items() if name != key}
    with pytest.raises(ValidationError, match=f"{key}\n"):
        measures_from_json({"nDCG@10": MEASURES["nDCG@10"] | {"comparisons": [lacking]}})


def test_the_shown_iteration_is_the_kept_one_or_the_last():
    metrics = run_metrics(SHOWN)
    assert RunMetrics.from_json(metrics).shown == 1
    assert RunMetrics.from_json(metrics | {"iteration": 0}).shown == 2
