"""Input that looks bad and is not refused."""

import gzip

import pytest

from bad_input.harness import ADAPT, EVALUATE, ONE_RUN, RUNS, prepare

CASES = {  # files, command, and a part of what is printed
    "k beyond the corpus": (
        {},
        f"{ADAPT} --set retrieve.k=999 --set teacher.pair.window=999 --set train.n_way=999",
        "Done. Checkpoint",
    ),
    "depth beyond the corpus": ({}, f"{EVALUATE} --set evaluate.k=999", "6 test queries, 20 documents"),
    "one document to measure on": (
        {"data/corpus.jsonl": '{"_id": "d0", "text": "rim"}\n', "data/qrels/test.tsv": "q12\td0\t1\n"},
        EVALUATE,
        "1 test queries, 1 documents",
    ),
    "byte order mark": (
        {"data/corpus.jsonl": lambda old: b"\xef\xbb\xbf" + old},
        EVALUATE,
        "6 test queries, 20 documents",
    ),
    "packed run": (
        {"mine.run.gz": gzip.compress(ONE_RUN.encode())},
        RUNS.replace("mine.run", "mine.run.gz"),
        "6 test queries",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_unusual_input_is_accepted(name, command_line):
    files, command, printed = CASES[name]
    prepare(files)
    ended = command_line.run(command)
    assert ended.code == 0, ended.errors
    assert printed in ended.out
