"""Models that cannot be exported, searched with, measured or trained from."""

from functools import partial

import pytest

from bad_input.harness import EVALUATE, Case, cut, without
from pdadapt.errors import ModelError, RunError

MESSAGES = "messages/models.txt"
refused = partial(Case, error=ModelError)
CASES = {
    "model to export that is not there": refused("export ./no --out out", names="'./no'"),
    "model to export with truncated weights": refused(
        "export ./encoder --out out --format sentence-transformers",
        {"encoder/model.safetensors": cut},
        names="encoder/model.safetensors",
    ),
    "model that its format cannot express": refused(
        "export ./encoder --out out --format pylate", names="./encoder pylate"
    ),
    "run to export without a checkpoint": refused(
        "export new --out out", {"new/run.json": "{}"}, names="new", error=RunError
    ),
    "run to export with broken metrics": refused(
        "export run --out out", {"run/metrics.json": cut}, names="run metrics.json", error=RunError
    ),
    "run to export with the metrics of another version": refused(
        "export run --out out", {"run/metrics.json": "{}"}, names="run/metrics.json 'corpus'", error=RunError
    ),
    "model to search with that is not there": refused("search ./no rim --corpus data --index out", names="'./no'"),
    "model to measure without a tokenizer": refused(
        EVALUATE,
        without("encoder/tokenizer.json", "encoder/tokenizer_config.json", "encoder/vocab.txt"),
        names="'./encoder' tokenizer.json",
    ),
    "model to measure with broken modules": refused(
        EVALUATE, {"encoder/modules.json": "{"}, names="encoder/modules.json"
    ),
    "model to measure that is not there": refused(f"{EVALUATE} --against ./no", names="'./no'"),
    "encoder of a reranker that is not there": refused(
        "train-reranker --corpus data --recipe tiny.yaml --out out --model ./no",
        {"data/qrels/train.tsv": "q1\td1\t1\n"},
        names="'./no'",
    ),
    "encoder of a reranker without a tokenizer": refused(
        "train-reranker --corpus data --recipe tiny.yaml --out out --model ./other",
        {
            "data/qrels/train.tsv": "q1\td1\t1\n",
            "other/config.json": "{}",
            "other/model.safetensors": lambda _: b"\2\0\0\0\0\0\0\0{}",
        },
        names="'./other' tokenizer.json",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_in_one_sentence_and_nothing_changes(name, command_line, golden):
    command_line.refuses(CASES[name], golden(MESSAGES), name)


def test_each_message_has_a_case(golden):
    golden(MESSAGES).check_names(CASES)
