"""Bad queries, and corpora that none can be written about."""

import pytest

from bad_input.harness import ADAPT, Case, more, query
from pdadapt.errors import RecipeError

MESSAGES = "messages/queries.txt"
TOO_SHORT = '{"_id": "d", "text": "pad"}\n{"_id": "d90", "text": "rim"}\n'
CASES = {
    "queries that are not there": Case(f"{ADAPT} --queries no.txt", names="no.txt"),
    "queries whose name is too long": Case(f"{ADAPT} --queries {'q' * 300}.txt", names="qqq.txt"),
    "queries that are a folder": Case(f"{ADAPT} --queries q.txt", {"q.txt/x": ""}, names="q.txt"),
    "queries of another format": Case(f"{ADAPT} --queries q.docx", {"q.docx": "rim"}, names="q.docx"),
    "queries that are a folder without an ending": Case(f"{ADAPT} --queries data", names="data"),
    "queries with a column too many": Case(
        f"{ADAPT} --queries q.tsv", {"q.tsv": "q1\trim\nq2\t2026\tpad\n"}, names="q.tsv:2"
    ),
    "empty queries": Case(f"{ADAPT} --queries q.txt", {"q.txt": "\n\n"}, names="q.txt"),
    "binary queries": Case(f"{ADAPT} --queries q.txt", {"q.txt": b"\x89PNG\xff"}, names="q.txt:1"),
    "query with a NUL byte": Case(f"{ADAPT} --queries q.txt", {"q.txt": "rim\npad\0\n"}, names="q.txt:2"),
    "query id twice": Case(ADAPT, query(_id="q3"), names="data/queries.jsonl:19 'q3'"),
    "query without a text": Case(ADAPT, {"data/queries.jsonl": more('{"_id": "q90"}')}, names="data/queries.jsonl:19"),
    "queries that are all blank": Case(
        f"{ADAPT} --queries q.jsonl", {"q.jsonl": '{"_id": "q1", "text": " "}'}, names="q.jsonl"
    ),
    "no queries, and nothing to write some about": Case(
        ADAPT.replace("data", "c.jsonl"), {"c.jsonl": TOO_SHORT}, names="--queries"
    ),
    "no queries to plan with, and nothing to write some about": Case(
        f"{ADAPT.replace('data', 'c.jsonl')} --plan", {"c.jsonl": TOO_SHORT}, names="--queries"
    ),
    "query longer than the teacher reads": Case(
        f"{ADAPT} --queries q.txt", {"q.txt": "rim " * 500}, names="teacher.max_length", error=RecipeError
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_in_one_sentence_and_nothing_changes(name, command_line, golden):
    command_line.refuses(CASES[name], golden(MESSAGES), name)


def test_each_message_has_a_case(golden):
    golden(MESSAGES).check_names(CASES)
