"""Bad files of labels, and bad label stores."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from bad_input.harness import ADAPT, IMPORT, LABEL, Case, cut
from pdadapt.errors import RunError

MESSAGES = "messages/labels.txt"


def cookies():
    """The database of another program."""
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE cookies (name TEXT)")
        return database.serialize()


CASES = {
    "labels that are not there": Case(IMPORT, names="l.jsonl"),
    "labels of another format": Case(IMPORT.replace("jsonl", "csv"), {"l.csv": LABEL}, names="l.csv"),
    "empty labels": Case(IMPORT, {"l.jsonl": "\n"}, names="l.jsonl"),
    "binary labels": Case(IMPORT, {"l.jsonl": b"\xff"}, names="l.jsonl:1"),
    "labels with broken JSON": Case(IMPORT, {"l.jsonl": LABEL + cut(LABEL)}, names="l.jsonl:2"),
    "labels that are a list": Case(IMPORT, {"l.jsonl": f"[{LABEL.strip()}]"}, names="l.jsonl:1"),
    "label that is NaN": Case(IMPORT, {"l.jsonl": LABEL + LABEL.replace("1", "NaN")}, names="l.jsonl:2 `score`"),
    "label that is a word": Case(IMPORT, {"l.jsonl": LABEL.replace("1", '"high"')}, names="l.jsonl:1 `score`"),
    "label that is too large": Case(
        IMPORT, {"l.jsonl": LABEL.replace("1", "1" + "0" * 400)}, names="l.jsonl:1 `score`"
    ),
    "label without a document": Case(IMPORT, {"l.jsonl": '{"query": "q", "score": 1}'}, names="l.jsonl:1 document"),
    "label of half a letter": Case(IMPORT, {"l.jsonl": LABEL.replace('"d"', r'"\ud83d"')}, names="l.jsonl:1"),
    "label of a query with half a letter for an id": Case(
        IMPORT, {"l.jsonl": LABEL.replace("{", r'{"query_id": "\ud83d", ')}, names="l.jsonl:1"
    ),
    "labels that contradict each other": Case(
        IMPORT, {"l.jsonl": LABEL + LABEL.replace("1", "2")}, names="l.jsonl:2 l.jsonl:1"
    ),
    "labels of no teacher": Case("labels import l.jsonl --store labels.sqlite", {"l.jsonl": LABEL}, names="l.jsonl:1"),
    "labels of a teacher that is none": Case(
        "labels import l.jsonl --store labels.sqlite",
        {"l.jsonl": LABEL.replace("{", '{"teacher": "me", ')},
        names="l.jsonl:1 `teacher`",
    ),
    "labels in Parquet that is none": Case(
        IMPORT.replace("jsonl", "parquet"), {"l.parquet": b"PAR1"}, names="l.parquet"
    ),
    "labels into a folder that is not there": Case(
        IMPORT.replace("labels.sqlite", "no/labels.sqlite"), {"l.jsonl": LABEL}, names="no/labels.sqlite"
    ),
    "labels into a file that is no store": Case(
        IMPORT, {"l.jsonl": LABEL, "labels.sqlite": "precious " * 99}, names="labels.sqlite"
    ),
    "labels into a folder": Case(IMPORT.replace("labels.sqlite", "data"), {"l.jsonl": LABEL}, names="data"),
    "label store that is none": Case(
        f"{ADAPT} --set label_store=s.sqlite", {"s.sqlite": "precious " * 99}, names="s.sqlite"
    ),
    "label store that is cut short": Case(
        f"{ADAPT} --set label_store=s.sqlite",
        {"s.sqlite": lambda _: cut(Path("run/labels.sqlite").read_bytes())},
        names="s.sqlite",
    ),
    "labels into the database of another program": Case(
        IMPORT.replace("labels.sqlite", "cookies.sqlite"),
        {"l.jsonl": LABEL, "cookies.sqlite": cookies()},
        names="cookies.sqlite tables",
    ),
    "label store that is the database of another program": Case(
        f"{ADAPT} --set label_store=cookies.sqlite", {"cookies.sqlite": cookies()}, names="cookies.sqlite tables"
    ),
    "label store that is a folder": Case(f"{ADAPT} --set label_store=data", names="data label_store"),
    "label store below a file": Case(
        f"{ADAPT} --set label_store=tiny.yaml/s.sqlite", names="tiny.yaml/s.sqlite", error=RunError
    ),
    "labels exported onto a folder": Case("labels export run --out data", names="data --out"),
    "labels exported below a file": Case("labels export run --out tiny.yaml/l.jsonl", names="tiny.yaml/l.jsonl"),
    "labels of a run whose store is broken": Case(
        "labels export run", {"run/labels.sqlite": "precious " * 99}, names="run/labels.sqlite"
    ),
    "labels of a folder that is no run": Case("labels export data", names="data", error=RunError),
    "labels of a run that labeled nothing": Case(
        "labels show new --query q1", {"new/recipe.yaml": "seed: 1\n"}, names="new", error=RunError
    ),
    "labels of a query that is not there": Case(
        "labels show run --query q99", names="'q99' run/iteration-1/lists.jsonl"
    ),
    "labels of a run whose lists are broken": Case(
        "labels show run --query q1",
        {"run/iteration-1/lists.jsonl": cut},
        names="run/iteration-1/lists.jsonl",
        error=RunError,
    ),
    "labels of a run whose lists are none": Case(
        "labels show run --query q1",
        {"run/iteration-1/lists.jsonl": "{}"},
        names="run/iteration-1/lists.jsonl",
        error=RunError,
    ),
    "labels of a run with a broken recipe.yaml": Case(
        "labels export run", {"run/recipe.yaml": "a: [1"}, names="run recipe.yaml", error=RunError
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_in_one_sentence_and_nothing_changes(name, command_line, golden):
    command_line.refuses(CASES[name], golden(MESSAGES), name)


def test_each_message_has_a_case(golden):
    golden(MESSAGES).check_names(CASES)
