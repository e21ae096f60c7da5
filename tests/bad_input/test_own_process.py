"""Some of the cases once more, by a process of their own."""

import os
import shlex
import subprocess
import sys

import pytest

from bad_input.harness import ADAPT, Case, cut, more, sentence, snapshot
from pdadapt.errors import ModelError

MESSAGES = "messages/own_process.txt"
CASES = {
    "broken JSON": Case(ADAPT, {"data/corpus.jsonl": more("{")}, names="data/corpus.jsonl:21"),
    "truncated weights": Case(
        ADAPT, {"llama/model.safetensors": cut}, names="llama/model.safetensors", error=ModelError
    ),
}
NO_SUCH_GPU = "no such GPU"


def said_by_a_process(command, folder, **environment):
    """The message of a refused command, which changes nothing."""
    before = snapshot(folder)
    process = subprocess.run(
        [sys.executable, "-m", "pdadapt", *shlex.split(command)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )
    assert process.returncode == 1
    assert snapshot(folder) == before
    return sentence(process.stderr)


@pytest.mark.subprocess
@pytest.mark.parametrize("name", CASES)
def test_a_process_of_its_own_says_the_same(name, command_line, here, golden):
    ended = command_line.refuses(CASES[name], golden(MESSAGES), name)
    assert said_by_a_process(CASES[name].command, here) == ended.sentence()


@pytest.mark.subprocess
def test_a_gpu_that_is_not_there_is_said(here, golden):
    message = said_by_a_process(f"{ADAPT} --set teacher.quantize=4bit", here, CUDA_VISIBLE_DEVICES="nonsense")
    assert "teacher.quantize=4bit" in message
    golden(MESSAGES).check(NO_SUCH_GPU, message)


def test_each_message_has_a_case(golden):
    golden(MESSAGES).check_names([*CASES, NO_SUCH_GPU])
