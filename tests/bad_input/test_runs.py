"""Bad TREC runs, to measure and to re-order."""

import pytest

from bad_input.harness import ONE_RUN, RERANK, RUNS, Case
from pdadapt.errors import RecipeError

MESSAGES = "messages/runs.txt"
CASES = {
    "run that is not there": Case(RUNS, names="mine.run"),
    "run that is no run": Case(RUNS, {"mine.run": ONE_RUN + "q12\td1\t0.5\n"}, names="mine.run:2"),
    "run whose score is a word": Case(RUNS, {"mine.run": ONE_RUN.replace("2.0", "high")}, names="mine.run:1 'high'"),
    "run whose score is NaN": Case(RUNS, {"mine.run": ONE_RUN.replace("2.0", "nan")}, names="mine.run:1 'nan'"),
    "binary run": Case(RUNS, {"mine.run": b"\xff"}, names="mine.run:1"),
    "run that ranks a document twice": Case(RUNS, {"mine.run": ONE_RUN * 2}, names="mine.run 'q12' 'd0'"),
    "empty run": Case(RUNS, {"mine.run": ""}, names="mine.run"),
    "run of other queries": Case(RUNS, {"mine.run": ONE_RUN.replace("q12", "x")}, names="mine.run"),
    "model against a run without its corpus": Case(
        f"{RUNS} --against ./encoder", {"mine.run": ONE_RUN}, names="./encoder --corpus"
    ),
    "run to re-order that is not there": Case(RERANK, names="mine.run"),
    "run to re-order that is empty": Case(RERANK, {"mine.run": ""}, names="run"),
    "run to re-order of other queries": Case(RERANK, {"mine.run": ONE_RUN.replace("q12", "x")}, names="'x' --queries"),
    "run to re-order of other documents": Case(RERANK, {"mine.run": ONE_RUN.replace("d0", "x")}, names="'x'"),
    "run to re-order by a teacher of points only": Case(
        f"{RERANK} --by pairs --teacher ./encoder", {"mine.run": ONE_RUN}, names="'./encoder'", error=RecipeError
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_in_one_sentence_and_nothing_changes(name, command_line, golden):
    command_line.refuses(CASES[name], golden(MESSAGES), name)


def test_each_message_has_a_case(golden):
    golden(MESSAGES).check_names(CASES)
