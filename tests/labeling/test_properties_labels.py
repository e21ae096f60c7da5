"""The journal tells what is done after any kill. Merged label stores do not depend on the order of merging."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdadapt.labeling.exchange import read_label_rows
from pdadapt.labeling.journal import Journal
from pdadapt.labeling.store import LabelStore, merge_labels

TASKS = ("points", "pairs round 1", "pairs round 2")
KEYS = {"points": '{"task": "point"}', "pairs": '{"task": "pair"}'}

chunks = st.tuples(st.sampled_from(TASKS), st.integers(0, 2))
steps = st.one_of(
    st.tuples(st.just("begin"), chunks, st.integers(0, 999)),
    st.tuples(st.just("end"), chunks),
    st.tuples(st.just("stop")),
    st.tuples(st.just("kill"), st.integers(0, 30)),  # how many of the bytes that were being written are lost
    st.tuples(st.just("other teacher")),
    st.tuples(st.just("forget")),
)


class Expected:
    """What a journal should say: chunks that were begun, with the questions missing then, and those that are done."""

    def __init__(self, begun=(), done=()):
        self.begun = dict(begun)
        self.done = set(done)

    def check(self, journal):
        for task in TASKS:
            assert [n for n in range(3) if journal.done(task, n)] == sorted(n for t, n in self.done if t == task)
            assert journal.missing(task) == sum(missing for (t, _), missing in self.begun.items() if t == task)


@pytest.mark.slow
@given(steps=st.lists(steps, max_size=25))
@settings(max_examples=200, deadline=None)
def test_a_journal_says_what_is_done_after_any_interleaving_of_begin_end_and_kill(steps):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "journal"
        journal, of = Journal(file, "teacher 0"), 0
        now, before, written = Expected(), Expected(), 0  # `before`: the last write; `written`: its bytes
        for step, *arguments in steps:
            size = file.stat().st_size if file.exists() else 0
            earlier = Expected(now.begun, now.done)
            if step == "begin":
                chunk, missing = arguments
                task, number = chunk
                journal.begin(task, number, missing)
                now.begun.setdefault(chunk, missing)
            elif step == "end" and arguments[0] in now.begun:
                journal.end(*arguments[0])
                now.done.add(arguments[0])
            elif step == "forget":
                journal.forget()
                now = Expected()
            elif step == "stop":
                journal = Journal(file, f"teacher {of}")
            elif step == "other teacher":
                of += 1
                journal, now = Journal(file, f"teacher {of}"), Expected()
            elif step == "kill" and file.exists():
                lost = min(arguments[0], written)
                content = file.read_bytes()
                file.write_bytes(content[: len(content) - lost])
                now = before if lost > 1 else now  # the line is whole without its line break
                journal, written = Journal(file, f"teacher {of}"), 0
            if file.exists() and file.stat().st_size > size:
                before, written = earlier, file.stat().st_size - size
            elif step in ("forget", "other teacher"):
                written = 0
            now.check(journal)
            now.check(Journal(file, f"teacher {of}"))


@pytest.mark.slow
@given(steps=st.lists(st.tuples(st.sampled_from(("begin", "end", "turn")), chunks), max_size=20))
@settings(deadline=None)
def test_tasks_taken_in_turn_leave_nothing_done_after_a_task_that_lacks_answers(steps):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "journal"
        journal, begun = Journal(file), set()
        for step, chunk in steps:
            if step == "begin":
                task, number = chunk
                journal.begin(task, number, 1)
                begun.add(chunk)
            elif step == "end" and chunk in begun:
                journal.end(*chunk)
            elif step == "turn":
                done = {chunk for chunk in begun if journal.done(*chunk)}
                unfinished = [place for place, task in enumerate(TASKS) for t, n in begun - done if t == task]
                first = min(unfinished, default=len(TASKS))
                journal.take_in_turn(TASKS)
                for told in (journal, Journal(file)):
                    kept = {chunk for chunk in begun if told.done(*chunk)}
                    assert kept == {(task, n) for task, n in done if TASKS.index(task) <= first}


questions = st.one_of(
    st.tuples(st.just("points"), st.sampled_from("qrs"), st.sampled_from("abc")),
    st.tuples(st.just("pairs"), st.sampled_from("qrs"), st.sampled_from("abc"), st.sampled_from("abc")),
)


def fill(file, labels):
    for table in KEYS:
        with LabelStore(file, table, KEYS[table], f"teacher of {table}") as store:
            store.store_texts("query", sorted({(f"id {query}", query) for _, query, *_ in labels}))
            store.add((texts, score) for (kind, *texts), score in labels.items() if kind == table)


def contents(file):
    return [json.dumps(row) for row in read_label_rows(file)]


@pytest.mark.slow
@given(shards=st.lists(st.sets(questions, max_size=8), min_size=1, max_size=4), order=st.randoms(use_true_random=False))
@settings(max_examples=12, deadline=None)
def test_stores_merged_in_any_order_and_more_than_once_are_the_same(shards, order):
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        every = sorted(set().union(*shards))
        answers = {question: float(number) for number, question in enumerate(every)}
        fill(folder / "whole", answers)
        for number, shard in enumerate(shards):
            fill(folder / f"shard {number}", {question: answers[question] for question in shard})
        files = [folder / f"shard {number}" for number in range(len(shards))]
        for name in ("one", "other"):
            target = folder / name
            new = [merge_labels(file, target, KEYS) for file in order.sample(files, len(files))]
            assert sum(new) == len(every)
            assert contents(target) == contents(folder / "whole")
            assert [merge_labels(file, target, KEYS) for file in files] == [0] * len(files)
            assert contents(target) == contents(folder / "whole")


@pytest.mark.slow
@given(held=st.sets(questions, max_size=6), merged=st.sets(questions, max_size=6))
@settings(max_examples=12, deadline=None)
def test_a_label_that_the_target_holds_stays(held, merged):
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        fill(folder / "target", dict.fromkeys(held, 1.0))
        fill(folder / "source", dict.fromkeys(merged, 2.0))
        assert merge_labels(folder / "source", folder / "target", KEYS) == len(merged - held)
        fill(folder / "expected", {**dict.fromkeys(merged, 2.0), **dict.fromkeys(held, 1.0)})
        assert contents(folder / "target") == contents(folder / "expected")
