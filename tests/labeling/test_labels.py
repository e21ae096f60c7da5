import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from conftest import asked_at_once
from hypothesis import given
from hypothesis import strategies as st

from pdadapt.data.corpus import Corpus, Document
from pdadapt.data.load import load_dataset
from pdadapt.data.run_file import TrecRunFile, write_run
from pdadapt.errors import DataError, ModelError
from pdadapt.labeling.ask import Questions, ask_missing, in_chunks
from pdadapt.labeling.bradley_terry import fit_strengths
from pdadapt.labeling.journal import Journal
from pdadapt.labeling.pairs import choose_pairs, count_pairs, standardise
from pdadapt.labeling.position_bias import PositionBias, presentation_orders
from pdadapt.labeling.questions import Labeling, point_labels
from pdadapt.labeling.stage import ListBuilder, ask_teachers, journal_of
from pdadapt.labeling.store import SQLITE_PATIENCE, LabelStore, is_labeled
from pdadapt.labeling.training_list import TrainingList, around_pairs, read_lists, write_lists
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import Recipe
from pdadapt.teachers.base import Point

KEYS = {"point": "p", "pair": "q"}


class CountingTeacher:
    """Scores a text by its letters, in batches of three, and remembers what it was asked."""

    def __init__(self):
        self.asked = []
        self.silent = set()  # documents that it gives no answer about

    def _score(self, chunks):
        for chunk in chunks:
            for first in range(0, len(chunk.asked), 3):
                batch = chunk.asked[first : first + 3]
                self.asked += batch
                yield [(question, None if self.silent & set(question) else self.value(*question)) for question in batch]

    @staticmethod
    def value(query, document, other=None):
        quality = sum(map(ord, document)) % 97 / 10
        return quality if other is None else quality - sum(map(ord, other)) % 97 / 10 + 0.5  # 0.5: prefers the first

    score_points = score_pairs = _score


def test_label_store_keeps_the_first_answer(tmp_path):
    with LabelStore(tmp_path / "l.sqlite", "points", "t") as store, LabelStore(store.path, "points", "t") as other:
        store.add([(("q", "d"), 1.5)])
        other.add([(("q", "d"), 2.5), (("q", "e"), 3.5)])
        assert (store.get(("q", "d")), store.get(("q", "e"))) == (1.5, 3.5)


def test_two_runs_on_one_store_lose_no_pair_and_choose_by_the_same_points(labeled, tmp_path):
    """Another run, whose machine rounds otherwise, answers the same points while this one asks about pairs."""
    _, teacher, dataset, ranking = labeled
    pair = {"per_query": 6, "window": 4}
    recipe = Recipe.model_validate({"teacher": {"kind": "seq2seq", "pair": pair}, "train": {"n_way": 5}})
    write_run(tmp_path / "candidates.run", ranking.items(), "test")
    labeling = Labeling(TrecRunFile(tmp_path / "candidates.run"), dataset.corpus, dataset.queries, recipe)
    store = tmp_path / "shared.sqlite"

    class Meanwhile(CountingTeacher):
        def score_pairs(self, chunks):
            with LabelStore(store, "points", KEYS["point"]) as other:
                other.add([(question, -score) for question, score in points])
            return self._score(chunks)

    def load(task):
        return teacher if task == "point" else Meanwhile()

    chunks = labeling.points()
    points = [
        (question, teacher.value(*question))
        for ids, _ in chunks.chunks
        for question in set(chunks.questions_about(ids))
    ]
    ask_teachers(labeling, store, KEYS, load, Progress())
    builder = ListBuilder(labeling, store, KEYS)
    lists, figures = list(builder), builder.figures()
    assert figures["pairs_unanswered"] == 0 and figures["pairs"] > 0
    assert all(entry.points == sorted(entry.points, reverse=True) for entry in lists)
    expected = dict(points)
    query, documents = dataset.queries[lists[0].query_id], [dataset.corpus[one].contents for one in lists[0].doc_ids]
    assert lists[0].points == [expected[query, document] for document in documents]


WRITER = """
import sys
from pathlib import Path
from pdadapt.labeling.store import LabelStore

own = float(sys.argv[2])
with LabelStore(Path(sys.argv[1]), "points", "t") as store:
    store.store_texts("document", ((f"d{i}", f"d{i}") for i in range(3_000)))
    for i in range(300):
        store.add([(("q", f"d{j}"), own) for j in range(i, i + 5)])
"""


@pytest.mark.subprocess
def test_processes_that_write_to_one_store_at_once_wait_for_each_other(tmp_path):
    file = tmp_path / "l.sqlite"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(file), str(own)]) for own in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    with LabelStore(file, "points", "t") as store:
        assert all(store.get(("q", f"d{i}")) in (0.0, 1.0, 2.0) for i in range(304))
    with sqlite3.connect(file) as database:
        assert database.execute("SELECT count(*) FROM points").fetchone() == (304,)


@pytest.mark.slow
def test_label_store_waits_for_another_writer_and_says_so(tmp_path, monkeypatch):
    file = tmp_path / "l.sqlite"
    with LabelStore(file, "points", "t") as store:
        busy = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        busy.execute("BEGIN IMMEDIATE")
        release = threading.Timer(2.5 * SQLITE_PATIENCE, busy.rollback)
        release.start()
        store.add([(("q", "d"), 1.0)])  # longer than SQLite itself waits
        release.join()
        assert store.get(("q", "d")) == 1.0
        monkeypatch.setattr("pdadapt.labeling.store.WRITER_PATIENCE", 0.1)
        busy.execute("BEGIN IMMEDIATE")
        writes = (
            lambda: store.add([(("q", "e"), 1.0)]),
            lambda: store.store_texts("query", [("q1", "q")]),
            lambda: LabelStore(file, "pairs", "t"),
        )
        for write in writes:
            with pytest.raises(DataError, match=r"l\.sqlite is locked: .*\. Wait until it has finished"):
                write()
        busy.close()
        store.add([(("q", "e"), 2.0)])
        assert store.get(("q", "e")) == 2.0


def test_a_label_is_found_again_by_content_and_teacher(tmp_path):
    file = tmp_path / "labels.sqlite"
    with LabelStore(file, "points", "teacher 1") as store:
        store.add([(("q", "d"), 1.5)])
        assert store.get(("q", "d")) == 1.5
        assert store.get(("q", "other")) is None
    with LabelStore(file, "points", "teacher 2") as store:
        assert store.get(("q", "d")) is None
    with LabelStore(file, "pairs", "teacher 1") as store:
        store.add([(("q", "a", "b"), -2.0)])
        assert store.get(("q", "a", "b")) == -2.0
        assert store.get(("q", "b", "a")) is None


def test_a_file_that_is_no_store_is_refused_and_kept(tmp_path):
    (tmp_path / "x.sqlite").write_text("precious notes, " * 100, encoding="utf-8")
    with pytest.raises(DataError, match="is not a label store"):
        LabelStore(tmp_path / "x.sqlite", "points", "t")
    assert (tmp_path / "x.sqlite").read_text(encoding="utf-8").startswith("precious notes")


def test_label_store_killed_at_its_start_is_empty_and_usable(tmp_path):
    file = tmp_path / "l.sqlite"
    assert not is_labeled(file, "t") and not file.exists()
    sqlite3.connect(file).execute("PRAGMA journal_mode = WAL")
    assert not is_labeled(file, "t")
    with LabelStore(file, "pairs", "t") as store:
        assert not is_labeled(file, "t")
        store.add([(("q", "a", "b"), 1.0)])
    assert is_labeled(file, "t") and not is_labeled(file, "another")
    file.with_name("notes").write_text("precious notes, not a database", encoding="utf-8")
    with pytest.raises(DataError, match="is not a label store"):
        is_labeled(file.with_name("notes"), "t")


def test_only_what_is_missing_is_asked_and_each_question_once(tmp_path):
    teacher = CountingTeacher()
    with LabelStore(tmp_path / "l.sqlite", "points", "t") as store:
        store.add([(("q", "known"), 1.0)])
        questions = [Point("q", "known"), Point("q", "new"), Point("q", "new"), Point("p", "new")]
        assert ask_missing(asked_at_once(questions), store, lambda: teacher.score_points, Progress(), "label") == 2
        assert teacher.asked == [Point("p", "new"), Point("q", "new")]
        assert ask_missing(asked_at_once(questions), store, lambda: teacher.score_points, Progress(), "label") == 0


def test_a_nan_is_never_a_label(tmp_path):
    with (
        LabelStore(tmp_path / "l.sqlite", "points", "t") as store,
        pytest.raises(ModelError, match=r"teacher\.dtype=float32"),
    ):
        ask_missing(
            asked_at_once([("q", "d")]),
            store,
            lambda: lambda chunks: iter([[(next(chunks).asked[0], float("nan"))]]),
            Progress(),
            "label",
        )
    with LabelStore(tmp_path / "l.sqlite", "points", "t") as store:
        assert store.get(("q", "d")) is None


@pytest.mark.subprocess
def test_batches_are_committed_one_by_one_even_through_kill_9(tmp_path):
    """A process labels slowly, is killed with SIGKILL in the middle; all it had committed is there."""
    script = f"""
import time
from pathlib import Path
from pdadapt.labeling.store import SQLITE_PATIENCE, LabelStore, is_labeled
from pdadapt.labeling.ask import Questions, ask_missing
from pdadapt.runtime.progress import Progress
def slow(chunks):
    for i in range(0, len((asked := next(chunks).asked)), 2):
        yield [(asked[i], float(i)), (asked[i + 1], float(i + 1))]
        print(i, flush=True)
        time.sleep(0.05)
everything = Questions([(range(1000), 1000)], lambda ids: [("q", f"{{i:03}}") for i in ids])
with LabelStore(Path({str(tmp_path / "l.sqlite")!r}), "points", "t") as store:
    ask_missing(everything, store, lambda: slow, Progress(), "label")
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    for _ in range(5):
        seen = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with LabelStore(tmp_path / "l.sqlite", "points", "t") as store:
        kept = [i for i in range(1000) if store.get(("q", f"{i:03}")) is not None]
    assert kept == list(range(len(kept))) and seen < len(kept) < 1000


@pytest.fixture
def labeled(beir, tmp_path):
    dataset = load_dataset(str(beir))
    recipe = Recipe.model_validate(
        {"teacher": {"kind": "seq2seq", "pair": {"per_query": 5, "window": 3}}, "train": {"n_way": 6}}
    )
    ranking = {
        query_id: [(f"d{(7 * i + start) % 20}", 10.0 - i) for i in range(8)]
        for start, query_id in enumerate(list(dataset.queries)[:4])
    }
    teacher = CountingTeacher()

    def run(recipe=recipe, corpus=dataset.corpus):
        write_run(tmp_path / "candidates.run", ranking.items(), "x")
        labeling = Labeling(TrecRunFile(tmp_path / "candidates.run"), corpus, dataset.queries, recipe)
        store = tmp_path / "l.sqlite"
        keys = KEYS if recipe.teacher.pair.asks_teacher else {"point": "p"}
        asked = ask_teachers(labeling, store, keys, lambda task: teacher, Progress())
        builder = ListBuilder(labeling, store, keys)
        return list(builder), asked | builder.figures()

    return run, teacher, dataset, ranking


def test_in_chunks_makes_larger_chunks_of_more_questions():
    def sizes(queries, each):
        ids = [f"q{i}" for i in range(queries)]
        return [size for _, size in in_chunks(ids, dict.fromkeys(ids, each))]

    assert sizes(80, 10) == [260, 260, 260, 20]
    assert sizes(2_000, 10)[:-1] == [320] * 62
    assert set(sizes(20_000, 100)) <= {2_100, 800}
    assert sizes(0, 10) == []


def test_a_chunk_with_questions_unanswered_is_asked_about_again(tmp_path, capsys):
    questions = Questions([(["a"], 2), (["b"], 2)], lambda ids: [Point(ids[0], document) for document in ("x", "y")])
    teacher = CountingTeacher()
    teacher.silent = {"b"}
    file = tmp_path / "journal.jsonl"

    def ask():
        with LabelStore(tmp_path / "l.sqlite", "points", "p") as store:
            return ask_missing(
                questions, store, lambda: teacher.score_points, Progress(), "label points", Journal(file)
            )

    assert ask() == 4
    assert "label points: no answer to 2 prompts." in capsys.readouterr().err
    teacher.asked.clear()
    teacher.silent = set()
    assert ask() == 4 and teacher.asked == [Point("b", "x"), Point("b", "y")]


def test_lists_are_ordered_by_point_labels_with_pairs_in_the_window(labeled):
    run, _, dataset, ranking = labeled
    lists, figures = run()
    assert [entry.query_id for entry in lists] == list(ranking)
    for entry in lists:
        assert len(entry.doc_ids) == 6 and len(entry.pairs) == 5
        assert entry.points == sorted(entry.points, reverse=True)
        for doc_id, score in zip(entry.doc_ids, entry.points, strict=True):
            assert score == CountingTeacher.value("", dataset.corpus[doc_id].contents)
        assert all(0 < j - i < 3 for i, j, _ in entry.pairs)
    assert figures["points_asked"] == 32 and figures["pair_prompts_asked"] == 40


def test_both_orders_cancel_the_position_bias_which_is_reported(labeled):
    run, _, dataset, _ = labeled
    lists, figures = run()
    for entry in lists:
        for i, j, log_odds in entry.pairs:
            a, b = (dataset.corpus[entry.doc_ids[k]].contents for k in (i, j))
            assert log_odds == pytest.approx(CountingTeacher.value("", a) - CountingTeacher.value("", b))
            assert log_odds >= -1e-9
    assert figures["position_bias"] == pytest.approx(0.5)
    assert 0 < figures["flip_rate"] < 1
    assert figures["disagreement"] == 0


@pytest.mark.parametrize("strategy", ["random", "adjacent", "cycles", "uncertain", "active"])
def test_every_strategy_asks_and_lists_the_pairs_it_chose(labeled, strategy):
    run, teacher, dataset, ranking = labeled
    pair = {"per_query": 5, "strategy": strategy, "rounds": 3}
    train = {"n_way": 8, "prior_precision": 0.01}
    recipe = Recipe.model_validate({"teacher": {"kind": "seq2seq", "pair": pair}, "train": train})
    teacher.silent = {dataset.corpus["d3"].contents}
    lists, figures = run(recipe)
    asked = [question for question in teacher.asked if len(question) == 3]
    wanted = []
    for entry in lists:
        texts = [dataset.corpus[doc_id].contents for doc_id in entry.doc_ids]

        def answers(pairs, texts=texts):
            said = [(i, j, CountingTeacher.value("", texts[i]) - CountingTeacher.value("", texts[j])) for i, j in pairs]
            return [label for label in said if not teacher.silent & {texts[label[0]], texts[label[1]]}]

        scores = dict(ranking[entry.query_id])
        rounds = choose_pairs(
            recipe.teacher.pair,
            entry.points,
            [scores[doc_id] for doc_id in entry.doc_ids],
            f"42/{entry.query_id}",
            lambda pairs, entry=entry, answers=answers: fit_strengths(entry.points, answers(pairs), 1.0, 0.01),
        )
        pairs = sorted(pair for positions in rounds for pair in positions)
        assert len(pairs) == 5
        assert [label[:2] for label in entry.pairs] == [label[:2] for label in answers(pairs)]
        assert [label[2] for label in entry.pairs] == pytest.approx([label[2] for label in answers(pairs)])
        query = dataset.queries[entry.query_id]
        wanted += [(query, texts[a], texts[b]) for i, j in pairs for a, b in ((i, j), (j, i))]
    assert sorted(asked) == sorted(set(wanted)) and figures["pair_prompts_asked"] == len(asked)
    assert figures["cycles"] == 0, "a teacher that goes by one quality contradicts itself nowhere"
    teacher.asked.clear()
    assert run(recipe)[0] == lists and all(teacher.silent & set(question) for question in teacher.asked)


def pairs_listed(n_way, **pair):
    teacher = {"kind": "seq2seq", "pair": pair}
    return Recipe.model_validate({"teacher": teacher, "train": {"n_way": n_way, "list": "pairs"}})


@pytest.mark.parametrize("strategy", ["window", "random", "adjacent", "cycles", "uncertain", "active"])
def test_lists_around_pairs_hold_the_documents_of_pairs_chosen_of_all_candidates(labeled, strategy):
    """Of 8 candidates; 6 are listed if no pair names more."""
    run, teacher, dataset, ranking = labeled
    recipe = pairs_listed(6, per_query=3, strategy=strategy, window=8, rounds=3)
    lists, figures = run(recipe)
    value = {document.doc_id: CountingTeacher.value("", document.contents) for document in dataset.corpus}
    best, whole = {}, {}
    for entry in lists:
        ordered = sorted(dict(ranking[entry.query_id]), key=lambda doc_id: -value[doc_id])
        best[entry.query_id] = ordered[:6]
        points = [value[doc_id] for doc_id in ordered]
        scores = dict(ranking[entry.query_id])
        rounds = choose_pairs(
            recipe.teacher.pair,
            points,
            [scores[doc_id] for doc_id in ordered],
            f"42/{entry.query_id}",
            lambda pairs, points=points: fit_strengths(
                points, [(i, j, points[i] - points[j]) for i, j in pairs], 1.0, 0.3
            ),
        )
        whole[entry.query_id] = sorted((ordered[i], ordered[j]) for positions in rounds for i, j in positions)
        assert entry.points == [value[doc_id] for doc_id in entry.doc_ids] == sorted(entry.points, reverse=True)
        assert sorted((entry.doc_ids[i], entry.doc_ids[j]) for i, j, _ in entry.pairs) == whole[entry.query_id]
        assert all(label == pytest.approx(entry.points[i] - entry.points[j]) for i, j, label in entry.pairs)
        assert len(entry.doc_ids) == 6 and len(set(entry.doc_ids)) == 6
    assert figures["pairs"] == 12 and figures["pair_prompts_asked"] == len({q for q in teacher.asked if len(q) == 3})
    assert any(set(entry.doc_ids) - set(best[entry.query_id]) for entry in lists), "not the best alone"
    assert run(recipe)[0] == lists, "the same again"
    others = run(recipe.model_copy(update={"seed": 7}))[0]
    assert others != lists


def test_a_list_is_longer_where_its_pairs_name_more_documents(labeled):
    run, *_ = labeled
    lists, _ = run(pairs_listed(2, per_query=7, strategy="adjacent"))
    assert [(len(entry.doc_ids), len(entry.pairs)) for entry in lists] == [(8, 7)] * 4
    best, _ = run(Recipe.model_validate({"teacher": {"kind": "seq2seq"}, "train": {"n_way": 2}}))
    assert [(len(entry.doc_ids), len(entry.pairs)) for entry in best] == [(2, 1)] * 4


def test_without_pairs_a_list_is_drawn_of_all_candidates_those_without_a_label_last(labeled):
    run, teacher, dataset, ranking = labeled
    teacher.silent = {dataset.corpus[doc_id].contents for doc_id, _ in next(iter(ranking.values()))[:3]}
    lists, _ = run(pairs_listed(4, per_query=0))
    assert [len(entry.doc_ids) for entry in lists] == [4] * 4
    places = {tuple(sorted(dict(ranking[entry.query_id])).index(d) for d in entry.doc_ids) for entry in lists}
    assert len(places) > 1, "each query's own draw"
    assert None not in lists[0].points, "five have a label, and four are wanted"


@given(
    st.integers(2, 9).flatmap(
        lambda size: st.tuples(
            st.lists(st.one_of(st.none(), st.floats(-5, 5)), min_size=size, max_size=size),
            st.sets(
                st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)).filter(lambda pair: pair[0] < pair[1])
            ),
            st.sets(st.integers(0, size - 1)),
        )
    ),
    st.integers(2, 12),
    st.text(),
)
def test_around_pairs_keeps_every_pair_every_labeled_document_and_the_order(inputs, n_way, seed):
    points, pairs, relevant = inputs
    doc_ids = [f"d{place}" for place in range(len(points))]
    labels = [(i, j, float(i - j)) for i, j in sorted(pairs)]
    entry = TrainingList("q", doc_ids, points, labels, [f"d{place}" for place in sorted(relevant)])
    found = around_pairs(entry, n_way, seed)
    needed = {doc_ids[place] for pair in pairs for place in pair} | set(entry.relevant)
    assert (
        needed <= set(found.doc_ids) and found.relevant == entry.relevant and found == around_pairs(entry, n_way, seed)
    )
    assert len(found.doc_ids) == max(len(needed), min(n_way, len(doc_ids)))
    assert found.doc_ids == sorted(found.doc_ids) and len(set(found.doc_ids)) == len(found.doc_ids)
    assert (
        dict(zip(found.doc_ids, found.points, strict=True)).items() <= dict(zip(doc_ids, points, strict=True)).items()
    )
    named = [(found.doc_ids[i], found.doc_ids[j], label) for i, j, label in found.pairs]
    assert named == [(doc_ids[i], doc_ids[j], label) for i, j, label in labels]


def test_every_document_that_no_pair_names_can_be_drawn():
    entry = TrainingList("q", list("abcdef"), [5.0, 4.0, 3.0, 2.0, 1.0, 0.0], [(2, 3, 1.0)])
    drawn = [tuple(around_pairs(entry, 3, str(seed)).doc_ids) for seed in range(60)]
    assert set(drawn) == {tuple(sorted(["c", "d", other])) for other in "abef"}


def test_as_many_pairs_are_announced_as_are_asked(labeled, tmp_path):
    run, _, dataset, _ = labeled
    recipe = pairs_listed(2, per_query=6, window=3)
    run(recipe)
    labeling = Labeling(TrecRunFile(tmp_path / "candidates.run"), dataset.corpus, dataset.queries, recipe)
    with (
        LabelStore(tmp_path / "l.sqlite", "points", "p") as points,
        LabelStore(tmp_path / "l.sqlite", "pairs", "q") as q,
    ):
        questions = labeling.pairs(points, q)
        asked = [len(list(questions.questions_about(ids))) for ids, _ in questions.chunks]
    assert asked == [size for _, size in questions.chunks] and sum(asked) == 4 * 2 * count_pairs(recipe.teacher.pair, 8)


def test_rounds_after_one_that_got_its_answers_late_are_asked_anew(labeled, tmp_path):
    _, teacher, dataset, ranking = labeled
    pair = {"per_query": 6, "strategy": "active", "rounds": 3}
    train = {"n_way": 6, "prior_precision": 0.01}
    recipe = Recipe.model_validate({"teacher": {"kind": "seq2seq", "pair": pair}, "train": train})
    write_run(tmp_path / "candidates.run", ranking.items(), "x")
    labeling = Labeling(TrecRunFile(tmp_path / "candidates.run"), dataset.corpus, dataset.queries, recipe)
    store, answering = tmp_path / "l.sqlite", CountingTeacher()

    def first_round_unanswered(chunks):
        for batch in answering.score_pairs(chunks):
            late = "round 1" in (tmp_path / "journal").read_text().splitlines()[-1]
            yield [(question, None if late else score) for question, score in batch]

    teacher.score_pairs = first_round_unanswered
    ask_teachers(labeling, store, KEYS, lambda task: teacher, Progress(), Journal(tmp_path / "journal"))
    ask_teachers(labeling, store, KEYS, lambda task: answering, Progress(), Journal(tmp_path / "journal"))
    builder = ListBuilder(labeling, store, KEYS)
    lists, figures = list(builder), builder.figures()
    assert figures["pairs_unanswered"] == 0 and {len(entry.pairs) for entry in lists} == {6}


def test_pairs_of_points_that_came_late_are_asked_anew_also_after_a_kill(labeled, tmp_path):
    _, teacher, dataset, ranking = labeled
    pair = {"per_query": 6, "window": 3}
    recipe = Recipe.model_validate({"teacher": {"kind": "seq2seq", "pair": pair}, "train": {"n_way": 6}})
    write_run(tmp_path / "candidates.run", ranking.items(), "x")
    labeling = Labeling(TrecRunFile(tmp_path / "candidates.run"), dataset.corpus, dataset.queries, recipe)
    store, answering = tmp_path / "l.sqlite", CountingTeacher()

    class Killed(Exception):
        pass

    class KilledAtPairs(CountingTeacher):
        def score_pairs(self, chunks):
            raise Killed

    def ask(who):
        return ask_teachers(labeling, store, KEYS, lambda task: who, Progress(), Journal(tmp_path / "journal"))

    first = next(iter(ranking))
    teacher.silent = {dataset.corpus[doc_id].contents for doc_id, _ in ranking[first][:2]}
    ask(teacher)
    with pytest.raises(Killed):
        ask(KilledAtPairs())
    ask(answering)
    builder = ListBuilder(labeling, store, KEYS)
    assert all(entry.doc_ids for entry in builder)
    figures = builder.figures()
    assert figures["pairs"] and figures["pairs_unanswered"] == 0


def test_contradictory_cycles_of_answers_are_counted(labeled, monkeypatch):
    run, teacher, dataset, _ = labeled
    pair = {"per_query": 100, "strategy": "random"}
    recipe = Recipe.model_validate({"teacher": {"kind": "seq2seq", "pair": pair}, "train": {"n_way": 5}})
    places = {document.contents: place for place, document in enumerate(dataset.corpus.documents)}

    def round_about(query, document, other=None):
        """Of pairs, as in rock, paper, scissors."""
        return float(places[document]) if other is None else [0.0, 1.0, -1.0][(places[document] - places[other]) % 3]

    monkeypatch.setattr(teacher, "value", round_about)
    lists, figures = run(recipe)
    kinds = [[int(doc_id[1:]) % 3 for doc_id in entry.doc_ids] for entry in lists]
    cycles = sum(set(three) == {0, 1, 2} for listed in kinds for three in itertools.combinations(listed, 3))
    assert figures["cycles"] == figures["triples"] == cycles > 0, "where two are alike nothing is preferred"


def test_order_as_ranked_asks_half_and_keeps_the_position_bias(labeled):
    run, _, dataset, _ = labeled
    recipe = Recipe.model_validate(
        {
            "teacher": {"kind": "seq2seq", "pair": {"per_query": 5, "window": 3, "order": "as_ranked"}},
            "train": {"n_way": 6},
        }
    )
    lists, figures = run(recipe)
    assert figures["pair_prompts_asked"] == 20 and "flip_rate" not in figures
    i, j, log_odds = lists[0].pairs[0]
    a, b = (dataset.corpus[lists[0].doc_ids[k]].contents for k in (i, j))
    assert log_odds == pytest.approx(CountingTeacher.value("", a, b))


def test_a_second_run_asks_nothing_and_gives_the_same_lists(labeled):
    run, teacher, *_ = labeled
    first, _ = run()
    asked = len(teacher.asked)
    second, figures = run()
    assert first == second and len(teacher.asked) == asked
    assert figures["points_asked"] == figures["pair_prompts_asked"] == 0


def test_a_random_order_is_the_seeds_and_asks_half(labeled):
    run, _, dataset, _ = labeled
    recipe = Recipe.model_validate(
        {
            "teacher": {"kind": "seq2seq", "pair": {"per_query": 5, "window": 3, "order": "random"}},
            "train": {"n_way": 6},
        }
    )
    lists, figures = run(recipe)
    assert figures["pair_prompts_asked"] == 20
    shown, for_the_first = set(), []
    for entry in lists:
        for i, j, log_odds in entry.pairs:
            a, b = (dataset.corpus[entry.doc_ids[k]].contents for k in (i, j))
            as_ranked, turned = CountingTeacher.value("", a, b), -CountingTeacher.value("", b, a)
            assert log_odds in (as_ranked, turned)
            shown.add(log_odds == as_ranked)
            for_the_first.append(log_odds if log_odds == as_ranked else -log_odds)
    assert figures["position_bias"] == pytest.approx(sum(for_the_first) / 20)
    assert shown == {True, False} and run(recipe)[0] == lists


def test_a_random_order_is_that_of_the_documents_whatever_their_ranks():
    doc_ids, seed = [f"d{i}" for i in range(40)], "1/q"
    asked = [presentation_orders("random", i, i + 1, doc_ids, seed)[0] for i in range(39)]
    assert {first < second for first, second in asked} == {True, False}
    turned = doc_ids[::-1]
    again = [presentation_orders("random", 38 - i, 39 - i, turned, seed)[0] for i in range(39)]
    assert [[turned[k] for k in pair] for pair in again] == [[doc_ids[k] for k in pair] for pair in asked]


def test_a_flip_is_an_answer_that_changes_and_an_undecided_one_is_none():
    def figures(*pairs):
        orders = PositionBias()
        for answers in pairs:
            orders.add(answers)
        return orders.figures()

    assert figures((1.0, 2.0), (-1.0, -0.5), (1.0, -2.0), (0.0, 0.0))["flip_rate"] == 0.5
    assert figures((1.0,), (2.0,)) == {"position_bias": 1.5}
    assert figures() == {}


def test_equal_texts_make_no_pair(labeled):
    run, _, dataset, _ = labeled
    copies = Corpus([Document(document.doc_id, "", "the same") for document in dataset.corpus])
    lists, figures = run(corpus=copies)
    assert figures["pairs"] == figures["pair_prompts_asked"] == 0 and not any(entry.pairs for entry in lists)


def test_teacher_that_stops_short_is_an_error_and_its_answers_are_kept(tmp_path):
    def short(chunks):
        yield [(next(chunks).asked[0], 1.0)]

    with (
        LabelStore(tmp_path / "l.sqlite", "points", "t") as store,
        pytest.raises(ModelError, match="stopped with at least 1 questions left"),
    ):
        ask_missing(asked_at_once([("q", "a"), ("q", "b")]), store, lambda: short, Progress(), "label")
    with LabelStore(tmp_path / "l.sqlite", "points", "t") as store:
        assert store.get(("q", "a")) == 1.0


def test_derived_pairs_are_the_difference_of_the_points_and_ask_nothing(labeled):
    run, teacher, *_ = labeled
    recipe = Recipe.model_validate(
        {
            "teacher": {"kind": "seq2seq", "pair": {"per_query": 5, "window": 3, "scoring": "derived"}},
            "train": {"n_way": 6, "temperature": 0.5},
        }
    )
    lists, figures = run(recipe)
    assert figures["pairs"] == 20 and all(len(question) == 2 for question in teacher.asked)
    for entry in lists:
        for i, j, log_odds in entry.pairs:
            assert log_odds == pytest.approx((entry.points[i] - entry.points[j]) / 0.5)


def test_unanswered_labels_are_missing_and_counted(labeled):
    run, teacher, dataset, ranking = labeled
    silent = {document.contents for document in list(dataset.corpus)[:3]}
    teacher.silent = silent
    lists, figures = run()
    unanswered = sum(dataset.corpus[d].contents in silent for ranked in ranking.values() for d, _ in ranked)
    assert figures["points_unanswered"] == unanswered > 0 and figures["pairs_unanswered"] > 0
    for entry in lists:
        for doc_id, point in zip(entry.doc_ids, entry.points, strict=True):
            assert (point is None) == (dataset.corpus[doc_id].contents in silent)
        known = [i for i, point in enumerate(entry.points) if point is not None]
        assert known == list(range(len(known)))  # those without an answer stand last
        assert all(i in known and j in known for i, j, _ in entry.pairs)
    teacher.silent = set()
    _, figures = run()
    assert figures["points_asked"] == unanswered and figures["points_unanswered"] == 0


def test_points_added_to_the_students_scores_are_standardised():
    assert point_labels([-10.0, -20.0, -30.0], [1.0, 2.0, 3.0], 0.0) == [-10.0, -20.0, -30.0]
    assert point_labels([-10.0, -20.0, -30.0], [1.0, 2.0, 3.0], 1.0) == pytest.approx([0.0, 0.0, 0.0])
    assert point_labels([-10.0, -20.0, -30.0], [1.0, 2.0, 3.0], 2.0)[2] > 0
    assert point_labels([1.0, None, 3.0], [3.0, 2.0, 1.0], 1.0) == pytest.approx([0.2247, None, -0.2247], abs=1e-3)
    assert standardise([5.0, 5.0]) == [0.0, 0.0] and standardise([None]) == [None]


def test_lists_survive_the_disk(tmp_path, labeled):
    lists, _ = labeled[0]()
    write_lists(tmp_path / "lists.jsonl", lists)
    assert list(read_lists(tmp_path / "lists.jsonl")) == lists
    one = lists[1].query_id
    assert list(read_lists(tmp_path / "lists.jsonl", one.__eq__)) == [lists[1]]


def test_progress_leaves_a_line_and_a_log_for_each_task(tmp_path, capsys):
    progress = Progress()
    progress.log = tmp_path / "timings.jsonl"
    with progress.task("label", 4, "prompts") as advance:
        advance(4, note="loss 1.0")
        time.sleep(0.01)
    assert "label: 4 prompts" in capsys.readouterr().err
    assert '"units": 4' in progress.log.read_text(encoding="utf-8")


def test_a_journal_says_after_a_kill_which_chunks_are_answered_and_what_was_missing(tmp_path):
    file = tmp_path / "asked.jsonl"
    for _ in range(2):  # a chunk that is begun again says what was missing the first time
        journal = Journal(file)
        journal.begin("label", 0, 5)
        journal.begin("label", 1, 7)
    journal.end("label", 0)
    file.write_bytes(file.read_bytes()[:-4])  # torn
    journal = Journal(file)
    assert not journal.done("label", 0) and journal.missing("label") == 12
    journal.end("label", 0)
    journal.begin("pairs", 0, 3)
    journal = Journal(file)
    assert journal.done("label", 0) and not journal.done("label", 1) and not journal.done("pairs", 0)
    assert (journal.missing("label"), journal.missing("pairs"), journal.missing("other")) == (12, 3, 0)


def test_a_journal_of_other_teachers_or_of_another_store_says_nothing(tmp_path):
    store, other = tmp_path / "l.sqlite", {**KEYS, "pair": "another prompt"}

    def journal(keys):
        with LabelStore(store, "points", keys["point"]) as known:
            return journal_of(tmp_path / "asked.jsonl", keys, known)

    first = journal(KEYS)
    first.begin("label points", 0, 5)
    first.end("label points", 0)
    assert journal(KEYS).done("label points", 0) and journal(KEYS).missing("label points") == 5
    torn = (tmp_path / "asked.jsonl").read_bytes()
    assert not journal(other).done("label points", 0), "of another prompt"
    (tmp_path / "asked.jsonl").write_bytes(torn)
    store.rename(tmp_path / "moved.sqlite")
    assert not journal(KEYS).done("label points", 0), "another store has the name"
    (tmp_path / "asked.jsonl").write_bytes(torn)
    (tmp_path / "moved.sqlite").rename(store)
    assert journal(KEYS).done("label points", 0)
    (tmp_path / "asked.jsonl").write_bytes(torn + b'5\n["label points"]\n\xff\0\n')  # a block that was lost
    assert journal(KEYS).done("label points", 0)
    (tmp_path / "asked.jsonl").write_bytes(torn[:9])  # killed as it began
    assert not journal(KEYS).done("label points", 0)


def test_chunks_done_in_the_journal_are_not_looked_up_again(tmp_path):
    teacher, looked = CountingTeacher(), []

    def of(ids):
        looked.extend(ids)
        return [Point("q", name) for name in ids]

    questions = Questions([(("a", "b"), 2), (("c", "d"), 2), (("e",), 1)], of)
    for names in ("abcde", "c", ""):
        journal = Journal(tmp_path / "asked.jsonl")
        with LabelStore(tmp_path / "l.sqlite", "points", "t") as store:
            assert ask_missing(questions, store, lambda: teacher.score_points, Progress(), "label", journal) == 5
        assert "".join(looked) == names
        looked.clear()
        lines = (tmp_path / "asked.jsonl").read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if json.loads(line) != ["label", 1, None]] if names == "abcde" else lines
        (tmp_path / "asked.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
        if names == "abcde":
            questions = Questions([(("a", "b"), 2), (("c",), 1), (("e",), 1)], of)
    assert len(teacher.asked) == 5


def test_timings_of_a_stopped_process_are_logged_by_the_next(tmp_path):
    log, state = tmp_path / "timings.jsonl", tmp_path / "progress.json"
    left = {"task": "label points", "unit": "prompts", "done": 543, "total": 920, "earlier": 43, "seconds": 45.5}
    for done, rows in ((543, 1), (43, 1), (920, 1)):  # only what is new, and not logged yet
        state.write_text(json.dumps(left | {"done": done}), encoding="utf-8")
        Progress().log_to(log, state)
        found = log.read_text(encoding="utf-8").splitlines()
        assert len(found) == rows and not state.exists()
    assert json.loads(found[0]) == {"task": "label points", "units": 500, "unit": "prompts", "seconds": 45.5}
    state.write_text("{torn", encoding="utf-8")
    Progress().log_to(log, state)
