"""Bad prompt files."""

from functools import partial

import pytest

from bad_input.harness import ADAPT, Case
from pdadapt.errors import RecipeError

MESSAGES = "messages/prompts.txt"
OWN = f"{ADAPT} --set teacher.point.prompt=own.txt"
refused = partial(Case, error=RecipeError)
CASES = {
    "prompt without a placeholder": refused(OWN, {"own.txt": "Relevant? {query}"}, names="own.txt"),
    "prompt with an unknown placeholder": refused(OWN, {"own.txt": "{query} {document} {title}"}, names="own.txt"),
    "prompt with a placeholder twice": refused(OWN, {"own.txt": "{query} {document} {query}"}, names="own.txt"),
    "prompt that is empty": refused(OWN, {"own.txt": ""}, names="own.txt"),
    "prompt that is binary": refused(OWN, {"own.txt": b"\x89PNG\xff"}, names="own.txt"),
    "prompt that is not there": refused(f"{ADAPT} --set teacher.pair.prompt=no.txt", names="'no.txt'"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_refused_in_one_sentence_and_nothing_changes(name, command_line, golden):
    command_line.refuses(CASES[name], golden(MESSAGES), name)


def test_each_message_has_a_case(golden):
    golden(MESSAGES).check_names(CASES)
