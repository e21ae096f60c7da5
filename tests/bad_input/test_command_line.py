"""Command lines that are wrong before anything is read."""

from functools import partial

import pytest

from bad_input.harness import ADAPT, EVALUATE, ONE_RUN, RERANK, Case

MESSAGES = "messages/command_line.txt"
usage = partial(Case, files={"mine.run": ONE_RUN}, error=None, code=2)
CASES = {
    "no corpus": usage("adapt", names="'--corpus'"),
    "command mistyped": usage("adpat --corpus data", names="'adpat' 'adapt'"),
    "option mistyped": usage(f"{ADAPT} --teachr x", names="--teachr"),
    "no iteration": usage(f"{ADAPT} --iterations 0", names="'--iterations'"),
    "word for a number of iterations": usage(f"{ADAPT} --iterations two", names="'--iterations'"),
    "stage that does not exist": usage(f"{ADAPT} --restart-from nonsense", names="'--restart-from'"),
    "nothing to measure": usage("evaluate --corpus data", names="--model --run"),
    "model and run": usage(f"{EVALUATE} --run mine.run", names="--model --run"),
    "model without a corpus": usage("evaluate --model ./encoder", names="--corpus"),
    "suite and corpus": usage(f"{EVALUATE} --suite paper", names="--suite"),
    "suite that does not exist": usage(
        "evaluate --suite beir-99 --model ./encoder", names="'--suite' 'beir-99' 'beir-11'"
    ),
    "--json that is a folder": usage(f"{EVALUATE} --json data", names="'--json' 'data'"),
    "model without a name": usage("evaluate --corpus data --model ''", names="--model --run"),
    "suite's data that are not there": usage(
        "evaluate --suite paper --model ./encoder --data no", names="'--data' 'no'"
    ),
    "no query to search for": usage("search ./encoder --corpus data", names="QUERY"),
    "empty query to search for": usage("search ./encoder ' ' --corpus data", names="QUERY"),
    "no passage to show": usage("search ./encoder rim --corpus data --k 0", names="'--k'"),
    "format that does not exist": usage(
        "export ./encoder --out out --format onxx", names="'--format' 'onxx' 'stanford'"
    ),
    "--out that is the run itself": usage("rerank --corpus data --run mine.run --out mine.run", names="--out"),
    "--out that is a folder": usage("rerank --corpus data --run mine.run --out data", names="'--out' 'data'"),
    "top of one document": usage(f"{RERANK} --top 1", names="'--top'"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_in_one_sentence_and_nothing_changes(name, command_line, golden):
    command_line.refuses(CASES[name], golden(MESSAGES), name)


def test_each_message_has_a_case(golden):
    golden(MESSAGES).check_names(CASES)
