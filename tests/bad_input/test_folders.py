"""Bad places to write to, and damaged run folders."""

from functools import partial

import pytest

from bad_input.harness import ADAPT, EVALUATE, OF_RUN, ONE_RUN, RERANK, RUNS, Case, cut, document, more
from pdadapt.errors import DataError, ModelError, RunError

MESSAGES = "messages/folders.txt"
refused = partial(Case, error=RunError)
CASES = {
    "--out that is a file": refused(ADAPT.replace("out out", "out tiny.yaml"), names="tiny.yaml"),
    "--out below a file": refused(ADAPT.replace("out out", "out tiny.yaml/out"), names="tiny.yaml"),
    "--out where nobody can write": refused(ADAPT.replace("out out", "out /proc/self/out"), names="/proc/self/out"),
    "--out with other things in it": refused(ADAPT.replace("out out", "out data"), names="data --out"),
    "--out with a run of other settings": refused(f"{OF_RUN} --set seed=7", names="run seed 42 7 --restart-from --out"),
    "--out with a run of another corpus": refused(OF_RUN, document(), names="run corpus --restart-from --out"),
    "--out with a run whose run.json is broken": refused(OF_RUN, {"run/run.json": cut}, names="run run.json"),
    "--out with a run whose run.json is a list": refused(OF_RUN, {"run/run.json": "[]"}, names="run run.json"),
    "--out with a run whose run.json is empty": refused(
        OF_RUN.replace("run", "new"), {"new/run.json": "{}", "new/recipe.yaml": "{}"}, names="run.json"
    ),
    "--out with a run to restart that is not there": refused(
        f"{ADAPT} --restart-from train", names="--restart-from out --out"
    ),
    "--out with a run whose recipe.yaml is binary": refused(
        OF_RUN, {"run/recipe.yaml": b"\xff"}, names="run recipe.yaml"
    ),
    "--out with a run whose recipe.yaml is gone": refused(OF_RUN, {"run/recipe.yaml": None}, names="run recipe.yaml"),
    "--out with a run whose memory.json is broken": refused(OF_RUN, {"run/memory.json": "{"}, names="run memory.json"),
    "plan for a broken corpus": refused(
        f"{ADAPT} --plan", {"data/corpus.jsonl": more("{")}, names="data/corpus.jsonl:21", error=DataError
    ),
    "plan for a teacher with truncated weights": refused(
        f"{ADAPT} --plan", {"llama/model.safetensors": cut}, names="llama/model.safetensors", error=ModelError
    ),
    "status of no run": refused("status data", names="data"),
    "status of a run with broken metrics": refused("status run", {"run/metrics.json": cut}, names="run/metrics.json"),
    "report of a folder that is not there": refused("report no", names="no"),
    "report of a run with a broken recipe.yaml": refused(
        "report run", {"run/recipe.yaml": "a: [1"}, names="run recipe.yaml"
    ),
    "corpus broken since the run": refused(
        OF_RUN, {"data/corpus.jsonl": more("{")}, names="data/corpus.jsonl:21", error=DataError
    ),
    "student broken since the run": refused(
        OF_RUN, {"encoder/config.json": "{"}, names="encoder/config.json", error=ModelError
    ),
    "--out of an evaluation that is a file": refused(
        RUNS.replace("out out", "out tiny.yaml"), {"mine.run": ONE_RUN}, names="tiny.yaml"
    ),
    "--json below a file": refused(f"{EVALUATE} --json tiny.yaml/x.json", names="tiny.yaml/x.json"),
    "--out of a new order below a file": refused(
        RERANK.replace("out.run", "tiny.yaml/x.run"), {"mine.run": ONE_RUN}, names="tiny.yaml/x.run"
    ),
    "--out of an export that exists": refused(
        "export ./encoder --out data --format sentence-transformers", names="data --out"
    ),
    "--out of an export below a file": refused(
        "export ./encoder --out tiny.yaml/x --format sentence-transformers", names="tiny.yaml"
    ),
    "--index that is a file": refused("search ./encoder rim --corpus data --index tiny.yaml", names="tiny.yaml"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_in_one_sentence_and_nothing_changes(name, command_line, golden):
    command_line.refuses(CASES[name], golden(MESSAGES), name)


def test_each_message_has_a_case(golden):
    golden(MESSAGES).check_names(CASES)
