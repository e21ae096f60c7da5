"""A restart keeps no result of a changed setting, and removes nothing that comes before it."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pdadapt.errors import RunError
from pdadapt.runs.folder import RunFolder
from pdadapt.settings.schema import Recipe

STAGES = ("student", "retrieve", "label", "train", "evaluate")
TRAINED = {"student", "retrieve", "label", "train"}
DEPENDS = {  # of each result the stages whose settings it depends on (report.html is written anew each time)
    "labels.sqlite": set(),  # a label is found by what was asked
    "student/model": {"student"},
    "iteration-0/bm25.run": {"student", "retrieve"},
    "iteration-0/test.run": {"student", "retrieve", "evaluate"},
    "iteration-0/general.run": {"student", "retrieve"},
    "iteration-1/candidates.run": {"student", "retrieve"},
    "iteration-1/asked.jsonl": {"student", "retrieve", "label"},
    "iteration-1/labels.json": {"student", "retrieve", "label"},
    "iteration-1/lists.jsonl": {"student", "retrieve", "label"},
    "iteration-1/train.jsonl": TRAINED,
    "iteration-1/checkpoint/model": TRAINED,
    "iteration-1/held-out.jsonl": TRAINED,
    "iteration-1/agreement.json": {*TRAINED, "evaluate"},
    "iteration-1/test.run": {*TRAINED, "evaluate"},
    "iteration-1/general.run": TRAINED,
    "iteration-2/candidates.run": TRAINED,
    "iteration-2/lists.jsonl": TRAINED,
    "iteration-2/checkpoint/model": TRAINED,
    "iteration-2/agreement.json": {*TRAINED, "evaluate"},
    "iteration-2/test.run": {*TRAINED, "evaluate"},
    "metrics.json": {*TRAINED, "evaluate"},
    "queries.tsv": {*TRAINED, "evaluate"},
}
SETTINGS = {  # a changed value, and the first stage that depends on it
    ("seed",): (7, "student"),
    ("student", "projection"): (5, "student"),
    ("retrieve", "k"): (5, "retrieve"),
    ("teacher", "pair", "window"): (5, "label"),
    ("train", "n_way"): (9, "label"),
    ("train", "list"): ("pairs", "label"),
    ("train", "learning_rate"): (1.0, "train"),
    ("evaluate", "k"): (5, "evaluate"),
}
ORIGIN = {
    "corpus_sha256": "student",
    "queries_sha256": "retrieve",
    "relevant_sha256": "label",
    "test_queries_sha256": "evaluate",
}
FREE = {("retrieve", "batch_tokens"): 7, ("train", "save_steps"): 7, ("evaluate", "general"): False}


def tree(values):
    """Settings as a recipe's tree."""
    root = {}
    for keys, value in values.items():
        place = root
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = value
    return root


def contents(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.slow
@given(
    begun=st.sets(st.sampled_from(sorted(DEPENDS))),
    changed=st.sets(st.sampled_from(sorted(SETTINGS)), max_size=3),
    other_data=st.sets(st.sampled_from(sorted(ORIGIN)), max_size=1),
    free=st.sets(st.sampled_from(sorted(FREE)), max_size=1),
    restart_from=st.none() | st.sampled_from(STAGES),
)
@example(set(DEPENDS), {("train", "learning_rate"), ("evaluate", "k")}, set(), set(), "train")
@example(set(DEPENDS), {("train", "n_way")}, {"test_queries_sha256"}, set(), "label")
@settings(max_examples=100, deadline=None)
def test_a_restart_keeps_no_result_of_a_changed_setting(begun, changed, other_data, free, restart_from):
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch)
        run, origin = RunFolder(path), dict.fromkeys(ORIGIN, "old")
        run.claim(Recipe(), origin)
        for name in begun:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(name, encoding="utf-8")
        before = contents(path)
        values = {key: SETTINGS[key][0] for key in changed} | {key: FREE[key] for key in free}
        recipe = Recipe.model_validate(tree(values))
        wanted = {**origin, **dict.fromkeys(other_data, "new")}
        stages = {SETTINGS[key][1] for key in changed} | {ORIGIN[key] for key in other_data}
        stale = {name for name in begun if DEPENDS[name] & stages}
        try:
            run.claim(recipe, wanted, restart_from)
        except RunError:
            assert contents(path) == before, "a refusal touches nothing"
            earliest = min(map(STAGES.index, stages))
            assert restart_from is None or STAGES.index(restart_from) > earliest, "this restart should be accepted"
            return
        kept = set(contents(path)) - {"recipe.yaml", "run.json"}
        assert kept <= begun and not kept & stale
        if stale:
            anew = set(STAGES[STAGES.index(restart_from) :])
            assert kept >= {name for name in begun if not DEPENDS[name] & anew}, "what comes before is kept"
        else:
            assert kept == begun, "nothing is made anew for a setting that no result depends on"
        after = contents(path)
        run.claim(recipe, wanted, restart_from)
        assert contents(path) == after, "the same command again goes on"
