"""Queries written about a corpus that brings none, by the command and by `adapt`, with tiny real models."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from pdadapt.cli.main import app
from pdadapt.data.corpus import Corpus, Dataset, Document
from pdadapt.data.load import load_dataset
from pdadapt.data.queries import read_queries
from pdadapt.errors import DataError, RecipeError, RunError
from pdadapt.generation import in_run, sources
from pdadapt.generation.answer_log import AnswerLog
from pdadapt.generation.filters import clean
from pdadapt.generation.job import check_written_queries, prepare
from pdadapt.generation.write import find_documents, judge_queries, write_queries
from pdadapt.generation.writers import QueryRequest
from pdadapt.labeling.exchange import read_label_rows
from pdadapt.labeling.shards import LabelShard, label_shard, merge_shards
from pdadapt.labeling.store import LabelStore
from pdadapt.models.token_budget import batch_limits
from pdadapt.pipeline import adapt
from pdadapt.planning.plan import plan
from pdadapt.runtime.locks import holder, locked
from pdadapt.runtime.progress import Progress
from pdadapt.settings.recipes import load_recipe
from pdadapt.teachers.label_key import teacher_key

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}
COUNT = {"generate.count": 12, "generate.max_tokens": 24}


def rows(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def tiny_recipe(tiny_recipe, llama, tmp_path_factory):
    """Its LLM ends what it says at every eighth word, so that little is cut off."""
    model = tmp_path_factory.mktemp("writer") / "llama"
    shutil.copytree(llama, model)
    config = model / "generation_config.json"
    size = json.loads((model / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    ends = json.loads(config.read_text(encoding="utf-8")) | {"eos_token_id": list(range(1, size, 8))}
    config.write_text(json.dumps(ends), encoding="utf-8")
    recipe = model.with_suffix(".yaml")
    recipe.write_text(tiny_recipe.read_text(encoding="utf-8").replace(str(llama), str(model)), encoding="utf-8")
    return recipe


@pytest.fixture
def corpus(beir):
    return load_dataset(str(beir / "corpus.jsonl"))


def generate(tiny_recipe, corpus, folder, **changes):
    recipe = load_recipe(str(tiny_recipe), COUNT | {f"generate.{key}": value for key, value in changes.items()})
    return write_queries(prepare(recipe, corpus, folder / "q.jsonl", folder / "l.sqlite", Progress()))


@pytest.mark.slow
def test_as_many_queries_are_kept_as_are_wanted_and_the_report_says_why_the_others_went(tiny_recipe, corpus, tmp_path):
    report = generate(tiny_recipe, corpus, tmp_path)
    out = tmp_path / "q.jsonl"
    found = rows(out)
    assert [row["_id"] for row in found] == [f"g{number}" for number in range(1, 13)]
    assert list(read_queries(out).values()) == [row["text"] for row in found]
    assert all(row["doc_id"] in corpus.corpus for row in found) and len({row["doc_id"] for row in found}) > 6
    counts = {kind: dict(ends) for kind, ends in report["kinds"].items()}
    assert {row["kind"] for row in found} <= set(counts) == {"question", "keywords", "claim", "title"}
    assert sum(ends.get("kept", 0) for ends in counts.values()) == report["kept"] == 12
    for ends in counts.values():
        assert ends.pop("written") == sum(ends.values())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["q.jsonl", "q.jsonl.report.json"]
    assert json.loads((tmp_path / "q.jsonl.report.json").read_text(encoding="utf-8")) == json.loads(json.dumps(report))
    before = out.read_bytes()
    assert generate(tiny_recipe, corpus, tmp_path)["kept"] == 12
    with pytest.raises(RunError, match=r"generate\.k was 20, now 3\. Name another file"):
        generate(tiny_recipe, corpus, tmp_path, k=3)
    (tmp_path / "q.jsonl.report.json").unlink()
    with pytest.raises(RunError, match="was not written by this command"):
        generate(tiny_recipe, corpus, tmp_path)
    assert out.read_bytes() == before


@pytest.mark.subprocess
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(tiny_recipe, beir, tmp_path):
    def command(out):
        settings = ["--set", "teacher.batch_tokens=600", "--set", "generate.round_trip=student"]
        arguments = ["queries", beir / "corpus.jsonl", "--out", out, "--count", 16, "--recipe", tiny_recipe, *settings]
        return [sys.executable, "-m", "pdadapt", *map(str, arguments)]

    whole = subprocess.run(command(tmp_path / "whole.jsonl"), capture_output=True, text=True, env=ENVIRONMENT)
    assert whole.returncode == 0, whole.stderr
    assert "kept" in whole.stdout and f"--queries {tmp_path / 'whole.jsonl'}" in whole.stdout
    out, work = tmp_path / "killed.jsonl", tmp_path / "killed.jsonl.work"
    for moment in ("index", "written.jsonl"):
        process = subprocess.Popen(command(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
        deadline = time.monotonic() + 120
        while not (work / moment).exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert (work / moment).exists() and not out.exists(), "killed too late to prove anything"
    with pytest.raises(RunError, match="seed was 42, now 1"):
        changed = load_recipe(str(tiny_recipe), {"seed": 1})
        write_queries(prepare(changed, load_dataset(str(beir / "corpus.jsonl")), out, tmp_path / "l", Progress()))
    again = subprocess.run(command(out), capture_output=True, text=True, env=ENVIRONMENT)
    assert again.returncode == 0 and "there already" in again.stderr, again.stderr
    for ending in ("", ".report.json"):
        assert (tmp_path / f"killed.jsonl{ending}").read_bytes() == (tmp_path / f"whole.jsonl{ending}").read_bytes()
    assert not work.exists()


def test_answer_log_ignores_a_torn_last_line(tmp_path):
    file = tmp_path / "written.jsonl"
    log = AnswerLog(file)
    log.add_answers([(0, "a\nb"), (1, "ü")])
    log.add_verdicts({0: None, 1: "empty"})
    with open(file, "a", encoding="utf-8") as torn:
        torn.write('{"answers": [[2, "c')
    found = AnswerLog(file)
    assert found.answers == {0: "a\nb", 1: "ü"} and found.verdicts == {0: None, 1: "empty"}
    found.add_answers([(2, "d")])
    assert AnswerLog(file).answers == {0: "a\nb", 1: "ü", 2: "d"}


@pytest.mark.slow
def test_as_many_of_each_kind_are_kept_as_are_wanted(tiny_recipe, corpus, tmp_path):
    wanted = {"question": 8, "title": 4, "keywords": 4}
    report = generate(tiny_recipe, corpus, tmp_path, kinds=wanted, count=16)
    assert Counter(row["kind"] for row in rows(tmp_path / "q.jsonl")) == wanted
    assert set(report["kinds"]) == set(wanted)


def test_documents_are_chosen_by_the_clusters_of_the_students_embeddings(tiny_recipe, corpus, tmp_path):
    recipe = load_recipe(str(tiny_recipe), {"generate.count": 3})
    writing = prepare(recipe, corpus, tmp_path / "q.jsonl", tmp_path / "l", Progress())
    writing.folder.mkdir()
    found = find_documents(writing)["doc_ids"]
    known = sources.embed(None, corpus.corpus.documents, range(20), writing.folder, None, lambda *_, **__: None)
    assert found == [f"d{row}" for row in sources.spread_over_clusters(known, 3, recipe.seed)]


def test_dropped_query_makes_no_other_a_duplicate(tiny_recipe, corpus, tmp_path):
    """Found again from the second document alone, whatever is judged together."""
    recipe = load_recipe(str(tiny_recipe), COUNT | {"generate.k": 1})
    pair = [Document("a", "", "rim spoke hub nipple tension " * 2), Document("b", "", "pad rotor caliper bleed " * 2)]
    few = Dataset("x", Corpus(pair), {}, {}, {})
    writing = prepare(recipe, few, tmp_path / "q.jsonl", tmp_path / "l", Progress())
    writing.folder.mkdir()
    log = AnswerLog(writing.folder / "written.jsonl")
    log.add_answers([(number, "caliper rotor") for number in range(4)])
    chunk = [QueryRequest(number, "keywords", pair[number % 2]) for number in range(4)]
    wanted = {0: "not found again", 1: None, 2: "not found again", 3: "duplicate"}
    assert judge_queries(writing, chunk, log) == wanted
    for one in chunk:
        log.add_verdicts(judge_queries(writing, [one], log))
    assert log.verdicts == wanted


def test_round_trip_of_stop_words_is_refused_before_writing(tiny_recipe, tmp_path):
    texts = ["to be or not to be that is the of and a it in on " * times for times in (1, 2)]
    stop_words = Dataset("x", Corpus([Document(str(i), "", text) for i, text in enumerate(texts)]), {}, {}, {})
    with pytest.raises(DataError, match=r"contains only stop words\..*generate\.round_trip=student"):
        generate(tiny_recipe, stop_words, tmp_path)
    assert not (tmp_path / "q.jsonl.work" / "written.jsonl").exists()


@pytest.mark.slow
def test_the_round_trip_asks_bm25_or_the_student(tiny_recipe, corpus, tmp_path):
    kept = {}
    for name, k in (("bm25", 1), ("student", 1), ("student", 20), (None, 1)):
        folder = tmp_path / f"{name}-{k}"
        folder.mkdir()
        report = generate(tiny_recipe, corpus, folder, round_trip=name, k=k, count=50)
        kept[name, k] = report["kept"] / report["written"]
        went = sum(ends.get("not found again", 0) for ends in report["kinds"].values())
        assert (went == 0) == ((name, k) in [("student", 20), (None, 1)]), "of 20 documents all are found"
    assert kept["bm25", 1] < kept[None, 1] and kept["student", 1] < kept[None, 1]


@pytest.mark.slow
def test_resumed_writing_may_change_its_filters_but_not_its_sources(tiny_recipe, tmp_path):
    """The model writes no word of these documents, so that BM25 finds none again."""
    words = ["alpha", "beta", "gamma", "delta", "eta", "zeta", "nu", "mu"]
    strange = [Document(str(i), "", " ".join(f"{word}{i}" for word in words)) for i in range(12)]
    corpus = Dataset("x", Corpus(strange), {}, {}, {})
    way_out = r"let the student find .*round_trip=student; remove .*q\.jsonl\.work and name"
    with pytest.raises(DataError, match=way_out):
        generate(tiny_recipe, corpus, tmp_path)
    answers = AnswerLog(tmp_path / "q.jsonl.work" / "written.jsonl").answers
    with pytest.raises(RunError, match=r"max_tokens was 24, now 48\. Name another file, or remove this one"):
        generate(tiny_recipe, corpus, tmp_path, round_trip="student", max_tokens=48)
    with pytest.raises(DataError, match="not found again"):
        generate(tiny_recipe, corpus, tmp_path, round_trip="student", k=1, least_point=1e9)
    assert AnswerLog(tmp_path / "q.jsonl.work" / "written.jsonl").answers == answers
    generate(tiny_recipe, corpus, tmp_path, round_trip="student")
    (tmp_path / "fresh").mkdir()
    generate(tiny_recipe, corpus, tmp_path / "fresh", round_trip="student")
    for name in ("q.jsonl", "q.jsonl.report.json"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


@pytest.mark.slow
def test_another_student_finds_documents_again_in_an_index_of_its_own(tiny_recipe, corpus, tmp_path):
    settings = COUNT | {"generate.count": 20, "generate.round_trip": "student", "generate.k": 1}
    with pytest.raises(DataError, match="judged irrelevant"):
        recipe = load_recipe(str(tiny_recipe), settings | {"generate.least_point": 1e9})
        write_queries(prepare(recipe, corpus, tmp_path / "q.jsonl", tmp_path / "l", Progress()))
    found = []
    for folder, length in ((tmp_path, 4), (tmp_path / "fresh", 4), (tmp_path / "whole", 180)):
        folder.mkdir(exist_ok=True)
        recipe = load_recipe(str(tiny_recipe), settings | {"student.document_length": length})
        write_queries(prepare(recipe, corpus, folder / "q.jsonl", tmp_path / "l", Progress()))
        found.append((folder / "q.jsonl").read_bytes())
    assert found[0] == found[1] != found[2]


@pytest.mark.slow
def test_work_folder_left_by_a_kill_is_removed(tiny_recipe, corpus, tmp_path):
    report = generate(tiny_recipe, corpus, tmp_path)
    index = tmp_path / "q.jsonl.work" / "index"
    index.mkdir(parents=True)
    (index / "vectors").write_text("...", encoding="utf-8")
    with locked(index.parent), pytest.raises(RunError, match="in use"):
        generate(tiny_recipe, corpus, tmp_path)
    assert index.exists() and generate(tiny_recipe, corpus, tmp_path) == json.loads(json.dumps(report))
    assert not index.parent.exists()


@pytest.mark.slow
def test_examples_say_which_kinds_are_asked_and_are_not_written_again(tiny_recipe, corpus, tmp_path):
    examples = tmp_path / "real.txt"
    examples.write_text("how to true a wheel?\nwhat is dish?\nchain cable\n", encoding="utf-8")
    report = generate(tiny_recipe, corpus, tmp_path, examples=str(examples))
    assert set(report["kinds"]) == {"question", "keywords"} and report["from"]["kinds"]["question"] == pytest.approx(
        2 / 3
    )
    folder = tmp_path / "more"
    folder.mkdir()
    known = {row["text"] for row in rows(tmp_path / "q.jsonl")[:6]}
    examples.write_text("".join(f"{text}\n" for text in known), encoding="utf-8")
    report = generate(tiny_recipe, corpus, folder, examples=str(examples), kinds={"question": 2, "keywords": 1})
    assert not known & {row["text"] for row in rows(folder / "q.jsonl")}
    assert sum(ends.get("duplicate", 0) for ends in report["kinds"].values()) >= 6


@pytest.mark.slow
def test_least_point_drops_what_the_teacher_judges_irrelevant(tiny_recipe, corpus, tmp_path):
    report = generate(tiny_recipe, corpus, tmp_path, least_point=0.0)
    scores = [row["score"] for row in read_label_rows(tmp_path / "l.sqlite")]
    asked = {(row["query"], row["document"]): row["score"] for row in read_label_rows(tmp_path / "l.sqlite")}
    assert min(scores) < 0 < max(scores), "or nothing is proved"
    for row in rows(tmp_path / "q.jsonl"):
        assert asked[row["text"], corpus.corpus[row["doc_id"]].contents] >= 0
    assert sum(ends.get("judged irrelevant", 0) for ends in report["kinds"].values()) == sum(s < 0 for s in scores)


@pytest.mark.slow
def test_least_point_drops_what_the_teacher_does_not_answer(tiny_recipe, corpus, tmp_path):
    writer = load_recipe(str(tiny_recipe)).teacher.model
    settings = COUNT | {"generate.model": writer, "generate.least_point": 0.0, "teacher.point.model": "imported:expert"}
    recipe = load_recipe(str(tiny_recipe), settings)
    with LabelStore(tmp_path / "l.sqlite", "points", teacher_key(recipe.teacher, "point"), "imported:expert") as labels:
        labels.add([(("another query", "another document"), 1.0)])
    with pytest.raises(DataError, match=r"\d+ not judged.*make sure that the teacher answers"):
        write_queries(prepare(recipe, corpus, tmp_path / "q.jsonl", tmp_path / "l.sqlite", Progress()))
    documents = {document.doc_id: document.contents for document in corpus.corpus}
    places = json.loads((tmp_path / "q.jsonl.work" / "sources.json").read_text(encoding="utf-8"))["doc_ids"]
    log = AnswerLog(tmp_path / "q.jsonl.work" / "written.jsonl")
    with LabelStore(tmp_path / "l.sqlite", "points", teacher_key(recipe.teacher, "point"), "imported:expert") as labels:
        for number, answer in log.answers.items():
            labels.add([((clean(answer), documents[places[number // 4]]), 1.0)])
    report = write_queries(prepare(recipe, corpus, tmp_path / "q.jsonl", tmp_path / "l.sqlite", Progress()))
    assert report["kept"] > 0, "what it answers later is looked at"


@pytest.mark.slow
def test_missing_examples_of_written_queries_are_reported_with_a_remedy(tiny_recipe, corpus, tmp_path):
    examples = tmp_path / "real.txt"
    examples.write_text("how to true a wheel?\n", encoding="utf-8")
    generate(tiny_recipe, corpus, tmp_path, examples=str(examples), count=3)
    recipe = load_recipe(str(tiny_recipe), COUNT | {"generate.count": 3, "generate.examples": str(examples)})
    check_written_queries(tmp_path / "q.jsonl", recipe)
    examples.unlink()
    with pytest.raises(DataError, match=r"real\.txt not found.*Keep them with --queries"):
        check_written_queries(tmp_path / "q.jsonl", recipe)


@pytest.mark.slow
def test_written_queries_of_another_writer_are_refused(tiny_recipe, corpus, tmp_path):
    recipe = load_recipe(str(tiny_recipe), COUNT | {"generate.count": 3})
    generate(tiny_recipe, corpus, tmp_path, count=3, model=recipe.teacher.model)
    with pytest.raises(RunError, match=r"generate\.model was 'its own', now \"the teacher's\""):
        check_written_queries(tmp_path / "q.jsonl", recipe)


@pytest.mark.slow
def test_weak_round_trip_check_is_announced(tiny_recipe, corpus, tmp_path, capsys):
    generate(tiny_recipe, corpus, tmp_path, count=2)
    assert "Use --set generate.k=1 for a stricter check" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    generate(tiny_recipe, corpus, tmp_path / "other", count=2, round_trip=None)
    assert "The round-trip check is weak" not in capsys.readouterr().err


@pytest.mark.slow
def test_fewer_are_written_when_every_kind_was_asked_of_every_document(tiny_recipe, corpus, tmp_path):
    few = replace(corpus, corpus=Corpus(list(corpus.corpus)[:3]))
    report = generate(tiny_recipe, few, tmp_path, kinds={"question": 1, "title": 1})
    assert report["written"] == 6 >= report["kept"] == len(rows(tmp_path / "q.jsonl"))


@pytest.mark.slow
def test_write_queries_refuses_short_documents_bad_writers_and_bad_places(tiny_recipe, corpus, encoder, tmp_path):
    short = replace(corpus, corpus=Corpus([Document("a", "", "rim hub"), Document("b", "", "")]))
    with pytest.raises(DataError, match=r"No document .*\(2 too short\)\. Give queries with --queries"):
        generate(tiny_recipe, short, tmp_path)
    (tmp_path / "x").mkdir()
    with pytest.raises(DataError, match=r"wrote 80 queries, and none is good enough \(.*cut off.*\)\. .*max_tokens=N"):
        generate(tiny_recipe, corpus, tmp_path / "x", max_tokens=1)
    with pytest.raises(RecipeError, match="cannot write queries"):
        generate(tiny_recipe, corpus, tmp_path, model=str(encoder))
    with pytest.raises(RecipeError, match="no kind has a share above 0"):
        generate(tiny_recipe, corpus, tmp_path, kinds={"title": 0})
    with pytest.raises(DataError, match=r"ends in \.jsonl"):
        prepare(load_recipe(str(tiny_recipe)), corpus, tmp_path / "q.txt", tmp_path / "l", Progress())
    assert not (tmp_path / "q.jsonl").exists()


@pytest.mark.slow
def test_the_command_says_what_was_kept_and_why_the_rest_went(tiny_recipe, beir, tmp_path):
    command = ["queries", str(beir / "corpus.jsonl"), "--out", str(tmp_path / "q.jsonl"), "--recipe", str(tiny_recipe)]
    result = CliRunner().invoke(app, [*command, "--count", "300", "--passages", "words=10,overlap=2"])
    assert result.exit_code == 0, result.output
    for word in ("question", "title", "kept", "not found again", "of 300 wanted queries were kept", "Examples: "):
        assert word in result.output
    assert all("#" in row["doc_id"] for row in rows(tmp_path / "q.jsonl"))
    other = tmp_path / "with spaces" / "q.jsonl"
    result = CliRunner().invoke(app, [*command[:3], str(other), *command[4:], "--count", "4"])
    assert f"--queries '{other}'" in result.stdout
    kept, written, reasons = re.search(r"Kept (\d+) of (\d+) queries\. Not kept: (.*)\.", result.stderr).groups()
    assert int(kept) + sum(int(one.split()[0]) for one in reasons.split(", ")) == int(written)


@pytest.mark.subprocess
def test_adapt_writes_the_queries_that_a_corpus_lacks(tiny_recipe, beir, tmp_path):
    out = tmp_path / "run"
    arguments = [
        "adapt",
        "--corpus",
        beir / "corpus.jsonl",
        "--recipe",
        tiny_recipe,
        "--set",
        "generate.count=12",
        "--set",
        "generate.max_tokens=24",
    ]
    command = [sys.executable, "-m", "pdadapt", *map(str, [*arguments, "--out", out])]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    deadline = time.monotonic() + 120
    while not (out / "queries.jsonl.work" / "written.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGSTOP)
    running = CliRunner().invoke(app, ["status", str(out)]).output
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "queries.jsonl").exists(), "killed too late to prove anything"
    assert running.startswith(f"Running (process {process.pid} ") and " queries" in running
    stopped = CliRunner().invoke(app, ["status", str(out)]).output
    assert CliRunner().invoke(app, ["report", str(out)]).exit_code == 0, "which is none that stops the run"
    assert stopped.startswith("Stopped at ") and "Resume with: pdadapt adapt" in stopped
    first = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert first.returncode == 0, first.stderr
    assert (
        "has no queries" in first.stderr and "writes 12 queries into" in first.stderr and "Checkpoint" in first.stdout
    )
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["queries"] == 12 and "queries.jsonl" in metrics["summary"]
    page = (out / "report.html").read_text(encoding="utf-8")
    written, reasons = re.search(r"12 kept of (\d+) that .+ wrote \((.+?)\)", page).groups()
    assert 12 + sum(int(one.split()[0]) for one in reasons.split(", ")) == int(written)
    texts = [json.loads(line)["query_id"] for line in (out / "iteration-1" / "lists.jsonl").read_text().splitlines()]
    assert sorted(texts) == sorted(row["_id"] for row in rows(out / "queries.jsonl"))
    dataset, progress = load_dataset(str(beir / "corpus.jsonl")), Progress()
    recipe = load_recipe(str(tiny_recipe), COUNT)
    assert adapt(recipe, dataset, out, progress).queries == 12 and not progress.tasks, "nothing is left to do"
    assert plan(recipe, dataset, out, progress) is None
    with pytest.raises(RunError, match=r"generate\.count was 12, now 13"):
        adapt(load_recipe(str(tiny_recipe), COUNT | {"generate.count": 13}), dataset, out, progress)
    (out / "queries.jsonl.work" / "index").mkdir(parents=True)  # as a kill leaves it
    adapt(recipe, dataset, out, progress)
    assert not (out / "queries.jsonl.work").exists()


@pytest.mark.slow
def test_a_run_whose_queries_were_given_gets_no_others(tiny_recipe, beir, tmp_path):
    (tmp_path / "q.txt").write_text("spoke tension\npad squeal\nchain cable\n", encoding="utf-8")
    recipe = load_recipe(str(tiny_recipe), COUNT | {"train.steps": 1})
    corpus = str(beir / "corpus.jsonl")
    adapt(recipe, load_dataset(corpus, tmp_path / "q.txt"), tmp_path / "run", Progress())
    with pytest.raises(RunError, match=r"a run with the queries in .*q\.txt\. Give them with --queries"):
        adapt(recipe, load_dataset(corpus), tmp_path / "run", Progress())
    changed = load_recipe(str(tiny_recipe), {"generate.count": 99, "train.steps": 1})
    assert adapt(changed, load_dataset(corpus, tmp_path / "q.txt"), tmp_path / "run", Progress()).queries == 3


@pytest.mark.slow
def test_a_run_of_its_own_queries_takes_them_as_given(tiny_recipe, t5_untied, beir, tmp_path):
    corpus, out = load_dataset(str(beir / "corpus.jsonl")), tmp_path / "run"
    settings = COUNT | {"train.steps": 1, "generate.count": 4}

    def run(restart_from=None, **changes):
        changes = {key.replace("__", "."): value for key, value in changes.items()}
        return adapt(load_recipe(str(tiny_recipe), settings | changes), corpus, out, Progress(), restart_from)

    run()
    queries = (out / "queries.jsonl").read_bytes()
    with pytest.raises(RunError, match=r"teacher\.max_length was 256, now 200 .*--restart-from label"):
        run(teacher__max_length=200)
    run("label", teacher__max_length=200)
    run("student", seed=3, student__query_length=16)
    assert (out / "queries.jsonl").read_bytes() == queries
    way_out = rf"generate\.count was 4, now 5\. Keep them with --queries {out}/queries.jsonl, or .* another --out"
    with pytest.raises(RunError, match=way_out):
        run("student", generate__count=5)
    with pytest.raises(RunError, match=r"prompts\.title was"):
        run(generate__prompts={"title": "query-claim"})
    same = load_recipe(str(tiny_recipe)).teacher.model
    run(generate__model=same, seed=3, student__query_length=16)
    with pytest.raises(RunError, match=r"generate\.model"):
        run(generate__model=str(t5_untied), seed=3, student__query_length=16)
    given = load_recipe(str(tiny_recipe), settings | {"generate.count": 5, "seed": 3, "student.query_length": 16})
    assert adapt(given, load_dataset(str(beir / "corpus.jsonl"), out / "queries.jsonl"), out, Progress()).queries
    (out / "queries.jsonl").unlink()
    with pytest.raises(
        RunError, match=r"a run with the queries in .*/run/queries\.jsonl, which is missing\. Give them"
    ):
        run()


@pytest.mark.slow
def test_adapt_locks_the_run_while_queries_are_written(tiny_recipe, beir, tmp_path, monkeypatch):
    corpus, out = str(beir / "corpus.jsonl"), tmp_path / "run"
    recipe = load_recipe(str(tiny_recipe), COUNT)
    batch_limits.found = {"of another run": 1}
    (tmp_path / "q.txt").write_text("spoke tension\npad squeal\nchain cable\n", encoding="utf-8")

    def try_beside(writing):
        assert holder(out) and batch_limits.file == out / "memory.json" and not batch_limits.found
        with pytest.raises(RunError, match="in use by another"):
            adapt(recipe, load_dataset(corpus, tmp_path / "q.txt"), out, Progress())
        return write_queries(writing)

    monkeypatch.setattr(in_run, "write_queries", try_beside)
    out.mkdir()
    (out / "memory.json").write_text("{}", encoding="utf-8")  # of one that was killed as it wrote
    assert adapt(recipe, load_dataset(corpus), out, Progress(), stop_before_labeling=True) is None
    assert (out / "queries.jsonl").exists()


def test_adapt_checks_the_run_before_writing_queries(tiny_recipe, corpus, tmp_path):
    wrong = load_recipe(str(tiny_recipe), COUNT | {"evaluate.measures": ["nDGC@10"]})
    with pytest.raises(RecipeError, match="nDGC@10"):
        adapt(wrong, corpus, tmp_path / "run", Progress())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("...", encoding="utf-8")
    with pytest.raises(RunError, match="is not empty and holds no run"):
        adapt(load_recipe(str(tiny_recipe), COUNT), corpus, tmp_path / "full", Progress())
    assert not (tmp_path / "run").exists() and len(list((tmp_path / "full").iterdir())) == 1


@pytest.mark.slow
def test_the_source_is_a_label_for_the_contrastive_loss_alone_also_in_shards(tiny_recipe, corpus, tmp_path):
    settings = COUNT | {"train.steps": 2, "retrieve.k": 3, "train.n_way": 3, "generate.k": 20}
    adapt(load_recipe(str(tiny_recipe), settings), corpus, tmp_path / "plain", Progress())
    lists = rows(tmp_path / "plain" / "iteration-1" / "lists.jsonl")
    assert not any(entry["relevant"] for entry in lists)
    recipe = load_recipe(str(tiny_recipe), settings | {"train.lambda_cl": 1.0})
    out = tmp_path / "labeled"
    assert adapt(recipe, corpus, out, Progress(), stop_before_labeling=True) is None
    label_shard(out, LabelShard(1, 1), Progress())
    merge_shards(out)
    adapt(recipe, corpus, out, Progress())
    assert (out / "queries.jsonl").read_bytes() == (tmp_path / "plain" / "queries.jsonl").read_bytes()
    sources = {row["_id"]: [row["doc_id"]] for row in rows(out / "queries.jsonl")}
    assert {entry["query_id"]: entry["relevant"] for entry in rows(out / "iteration-1" / "lists.jsonl")} == sources
    assert any(row["cl"] for row in rows(out / "iteration-1" / "train.jsonl"))
