"""Bad relevance judgments, and judgments that training lacks."""

import pytest

from bad_input.harness import ADAPT, EVALUATE, Case, more

MESSAGES = "messages/qrels.txt"
CASES = {
    "qrels of other queries": Case(ADAPT, {"data/qrels/test.tsv": "x1\td1\t1\n"}, names="data/qrels/test.tsv"),
    "qrels of other documents": Case(ADAPT, {"data/qrels/test.tsv": "q12\tx1\t1\n"}, names="data/qrels/test.tsv"),
    "grade that is a word": Case(
        ADAPT, {"data/qrels/test.tsv": more("q12\td1\thigh")}, names="data/qrels/test.tsv:32 'high'"
    ),
    "grade that is a fraction": Case(
        ADAPT, {"data/qrels/test.tsv": more("q12\td1\t0.5")}, names="data/qrels/test.tsv:32"
    ),
    "grade that only looks like a digit": Case(
        ADAPT, {"data/qrels/test.tsv": more("q12\td1\t²")}, names="data/qrels/test.tsv:32"
    ),
    "grade with two signs": Case(ADAPT, {"data/qrels/test.tsv": more("q12\td1\t--1")}, names="data/qrels/test.tsv:32"),
    "judgment without a grade": Case(ADAPT, {"data/qrels/test.tsv": more("q12\td1")}, names="data/qrels/test.tsv:32"),
    "empty qrels": Case(ADAPT, {"data/qrels/test.tsv": "query-id\tcorpus-id\tscore\n"}, names="data/qrels/test.tsv"),
    "binary qrels": Case(ADAPT, {"data/qrels/test.tsv": b"\xff\xfeq"}, names="data/qrels/test.tsv"),
    "qrels that are not there": Case(f"{EVALUATE} --qrels no.txt", names="no.txt"),
    "split that is not there": Case(f"{EVALUATE} --split dev", names="data 'dev' --split"),
    "qrels for a corpus without queries": Case(
        f"{EVALUATE.replace('data', 'c.jsonl')} --qrels data/qrels/test.tsv",
        {"c.jsonl": '{"_id": "d", "text": "pad"}\n'},
        names="data/qrels/test.tsv",
    ),
    "no labels to train on": Case(
        "train-msmarco --corpus data --recipe tiny.yaml --set train.lambda_cl=1 --out out",
        names="train.lambda_cl qrels/train.tsv",
    ),
    "labels to train on of other documents": Case(
        "train-msmarco --corpus data --recipe tiny.yaml --set train.lambda_cl=1 --strict --out out",
        {"data/qrels/train.tsv": "q1\td1\t1\nq1\tx\t1\n"},
        names="data/qrels/train.tsv 'x' --strict",
    ),
    "no labels to fit a reranker to": Case(
        "train-reranker --corpus data --recipe tiny.yaml --out out", names="qrels/train.tsv"
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_in_one_sentence_and_nothing_changes(name, command_line, golden):
    command_line.refuses(CASES[name], golden(MESSAGES), name)


def test_each_message_has_a_case(golden):
    golden(MESSAGES).check_names(CASES)
