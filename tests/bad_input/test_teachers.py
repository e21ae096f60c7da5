"""Teachers that cannot be loaded, or not be asked."""

from functools import partial

import pytest

from bad_input.harness import ADAPT, Case, changed, cut, gguf, without
from pdadapt.errors import DataError, ModelError, RecipeError

MESSAGES = "messages/teachers.txt"
refused = partial(Case, error=ModelError)
CASES = {
    "teacher without config.json": refused(ADAPT, {"llama/config.json": None}, names="'./llama' config.json"),
    "teacher with a broken config.json": refused(ADAPT, {"llama/config.json": cut}, names="llama/config.json"),
    "teacher of no kind": refused(
        ADAPT, {"llama/config.json": "{}"}, names="'./llama' teacher.kind", error=RecipeError
    ),
    "teacher of another kind than said": refused(f"{ADAPT} --set teacher.kind=seq2seq", names="seq2seq teacher.kind"),
    "teacher without a tokenizer": refused(
        ADAPT, without("llama/tokenizer.json", "llama/tokenizer_config.json"), names="'./llama' tokenizer.json"
    ),
    "teacher with a broken tokenizer": refused(ADAPT, {"llama/tokenizer.json": cut}, names="'./llama'"),
    "teacher without weights": refused(ADAPT, {"llama/model.safetensors": None}, names="'./llama' *.safetensors"),
    "teacher with truncated weights": refused(ADAPT, {"llama/model.safetensors": cut}, names="llama/model.safetensors"),
    "teacher in pickles": refused(
        ADAPT, {"llama/model.safetensors": None, "llama/pytorch_model.bin": b"\x80"}, names="./llama pytorch_model.bin"
    ),
    "teacher that judges points only": refused(
        f"{ADAPT} --teacher ./encoder", names="'./encoder' --pair-teacher", error=RecipeError
    ),
    "teacher in bits without a GPU": refused(
        f"{ADAPT} --set teacher.quantize=8bit", names="teacher.quantize=8bit", without_gpu=True
    ),
    "GGUF of an unknown kind": refused(
        f"{ADAPT} --teacher ./x.gguf", {"x.gguf": gguf("zebra")}, names="'./x.gguf' zebra"
    ),
    "GGUF that is none": refused(f"{ADAPT} --teacher ./x.gguf", {"x.gguf": b"\x89PNG" * 99}, names="'./x.gguf' magic"),
    "GGUF that is cut short": refused(
        f"{ADAPT} --teacher ./x.gguf", {"x.gguf": cut(gguf("llama"))}, names="'./x.gguf'"
    ),
    "GGUF as a cross-encoder": refused(
        f"{ADAPT} --teacher ./x.gguf --set teacher.kind=seq2seq",
        {"x.gguf": gguf("llama")},
        names="'./x.gguf' teacher.kind",
    ),
    "teacher whose architectures are a number": refused(
        ADAPT,
        {"llama/config.json": changed('"architectures": [', '"architectures": 3, "x": [')},
        names="'./llama' teacher.kind",
        error=RecipeError,
    ),
    "teacher with a broken chat template": refused(ADAPT, {"llama/chat_template.jinja": "{% if"}, names="'./llama'"),
    "teacher whose chat template refuses": refused(
        ADAPT, {"llama/chat_template.jinja": "{{ raise_exception('no user') }}"}, names="'./llama' user"
    ),
    "imported teacher that nobody imported": refused(
        f"{ADAPT} --teacher imported:bought", names="imported:bought", error=DataError
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_refused_in_one_sentence_and_nothing_changes(name, command_line, golden):
    command_line.refuses(CASES[name], golden(MESSAGES), name)


def test_each_message_has_a_case(golden):
    golden(MESSAGES).check_names(CASES)
