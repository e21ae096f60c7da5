"""Students and retrievers that cannot be loaded."""

from functools import partial

import pytest

from bad_input.harness import ADAPT, Case, changed, cut, gguf, without
from pdadapt.errors import ModelError

MESSAGES = "messages/students.txt"
refused = partial(Case, error=ModelError)
CASES = {
    "student that is not there": refused(f"{ADAPT} --student ./no", names="'./no'"),
    "student of a package that is not there": refused(
        f"{ADAPT} --student package:no_such/x", names="'no_such' no-such"
    ),
    "student of the hub, without a network": refused(f"{ADAPT} --student x/nope", names="x/nope"),
    "student that is a GGUF file": refused(f"{ADAPT} --student ./x.gguf", {"x.gguf": gguf("llama")}, names="./x.gguf"),
    "student without config.json": refused(ADAPT, {"encoder/config.json": None}, names="'./encoder' config.json"),
    "student with a broken config.json": refused(ADAPT, {"encoder/config.json": cut}, names="encoder/config.json"),
    "student whose config.json is a list": refused(ADAPT, {"encoder/config.json": "[]"}, names="encoder/config.json"),
    "student of an unknown architecture": refused(
        ADAPT, {"encoder/config.json": '{"model_type": "zebra"}'}, names="'./encoder' zebra"
    ),
    "student of other sizes than its weights": refused(
        ADAPT, {"encoder/config.json": changed('"hidden_size": 32', '"hidden_size": 64')}, names="'./encoder'"
    ),
    "student without a tokenizer": refused(
        ADAPT,
        without("encoder/tokenizer.json", "encoder/tokenizer_config.json", "encoder/vocab.txt"),
        names="'./encoder' tokenizer.json",
    ),
    "student with a broken tokenizer": refused(ADAPT, {"encoder/tokenizer.json": cut}, names="'./encoder'"),
    "student without weights": refused(ADAPT, {"encoder/model.safetensors": None}, names="'./encoder' *.safetensors"),
    "student with truncated weights": refused(
        ADAPT, {"encoder/model.safetensors": cut}, names="encoder/model.safetensors"
    ),
    "student with empty weights": refused(ADAPT, {"encoder/model.safetensors": ""}, names="encoder/model.safetensors"),
    "student that lacks a part of its weights": refused(
        ADAPT,
        {
            "encoder/model.safetensors": None,
            "encoder/model.safetensors.index.json": '{"weight_map": {"a": "model-2.safetensors"}}',
        },
        names="encoder/model-2.safetensors",
    ),
    "student in pickles": refused(
        ADAPT,
        {"encoder/model.safetensors": None, "encoder/pytorch_model.bin": b"\x80"},
        names="./encoder pytorch_model.bin",
    ),
    "student with fewer positions than asked": refused(
        f"{ADAPT} --set train.document_length=9999", names="student train"
    ),
    "student with fewer dimensions than asked": refused(
        f"{ADAPT} --set student.projection=64", names="student.projection"
    ),
    "retriever with truncated weights": refused(
        f"{ADAPT} --set retrieve.model=./other",
        {"other/config.json": "{}", "other/tokenizer.json": "{}", "other/model.safetensors": "x"},
        names="other/model.safetensors",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_refused_in_one_sentence_and_nothing_changes(name, command_line, golden):
    command_line.refuses(CASES[name], golden(MESSAGES), name)


def test_each_message_has_a_case(golden):
    golden(MESSAGES).check_names(CASES)
