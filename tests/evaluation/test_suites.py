import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pdadapt.cli.main import app
from pdadapt.data import catalog
from pdadapt.data.answers import AnswerMatcher, answer_tokens
from pdadapt.data.catalog import token_lengths
from pdadapt.data.corpus import Corpus, Document
from pdadapt.evaluation import suites
from pdadapt.evaluation.suites import PUBLISHED, SUITES, Row, SuiteEntry, averages, write_tables


def test_suites_have_the_sets_and_lengths_of_the_paper():
    assert [len(SUITES[name]) for name in ("beir-11", "beir-13", "beir-18", "lotte")] == [11, 13, 18, 12]
    published = [PUBLISHED[test.name, test.measure] for test in SUITES["beir-18"]]
    assert [round(sum(system) / 18, 1) for system in zip(*published, strict=True)] == [47.7, 48.9]  # as it says itself
    assert token_lengths("arguana") == {"document_length": 300, "query_length": 300}
    assert token_lengths("climate-fever")["query_length"] == 64
    assert token_lengths("bioasq") == token_lengths("lotte/pooled/search") == {"document_length": 300}
    assert token_lengths("dl19") == token_lengths("nq-open") == {}


def test_every_corpus_of_the_suites_has_a_folder_of_its_own():
    names = {corpus for tests in SUITES.values() for test in tests for corpus in test.corpora}
    assert len({name.replace("/", "-").casefold() for name in names}) == len(names)


def test_averages_need_a_value_of_every_set():
    rows = [Row("a", "m", [10.0, 1.0], "g"), Row("b", "m", [20.0, None], "g"), Row("c", "m", [5.0, 5.0])]
    assert averages(rows) == [Row("average of 2, g", "m", [15.0, None])]


def test_the_papers_averages_are_those_of_the_paper():
    rows = [
        Row(test.name, test.measure, list(PUBLISHED.get((test.name, test.measure), (None, None))), test.group)
        for test in SUITES["paper"]
    ]
    found = {row.name: row.values for row in averages(rows)}
    assert list(found) == [
        "average of 18, BEIR",
        "average of 5, LoTTE search",
        "average of 5, LoTTE forum",
        "average of 3, open-domain QA",
    ]
    assert found["average of 18, BEIR"] == pytest.approx([47.7, 48.9], abs=0.05)


def test_suite_table_is_written_as_csv_markdown_and_latex(tmp_path):
    write_tables([Row("a_b", "nDCG@10", [50.0, None, 1.25])], ["x%"], tmp_path)
    assert (tmp_path / "table.csv").read_text(encoding="utf-8").splitlines()[1] == "a_b,nDCG@10,50.0,,1.2"
    assert "| a_b | nDCG@10 | 50.0 |  | 1.2 |" in (tmp_path / "table.md").read_text(encoding="utf-8")
    latex = (tmp_path / "table.tex").read_text(encoding="utf-8")
    assert r"a\_b & nDCG@10 & 50.0 &  & 1.2 \\" in latex and r"x\%" in latex and r"\begin{tabular}{llrrr}" in latex


@pytest.mark.slow
def test_suite_measures_available_sets_and_resumes(beir, tmp_path, monkeypatch):
    for name in ("one", "two"):
        shutil.copytree(beir, tmp_path / "data" / name)
    tests = (
        SuiteEntry("both", "nDCG@10", ("one", "two")),
        SuiteEntry("one", "R@1000", ("one",)),
        SuiteEntry("no", "RR", ("nowhere",)),
    )
    monkeypatch.setitem(suites.SUITES, "beir-11", tests)
    command = ["evaluate", "--suite", "beir-11", "--data", str(tmp_path / "data"), "--model", "bm25"]
    said = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out")])
    assert said.exit_code == 0, said.output
    assert "both" in said.output and "Skipped nowhere: Corpus 'nowhere' not found" in said.output
    measured = tmp_path / "out" / "one" / "metrics.json"
    metrics = json.loads(measured.read_text(encoding="utf-8"))
    assert set(metrics["measures"]) == {"nDCG@10", "R@1000"} and metrics["measures"]["R@1000"]["means"][0] > 0.9
    table = (tmp_path / "out" / "table.csv").read_text(encoding="utf-8")
    before = measured.stat().st_mtime_ns
    (tmp_path / "out" / "two" / "metrics.json").unlink()
    CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out")])
    assert measured.stat().st_mtime_ns == before
    assert (tmp_path / "out" / "two" / "metrics.json").exists()
    assert (tmp_path / "out" / "table.csv").read_text(encoding="utf-8") == table
    CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out"), "--set", "evaluate.max_queries=3"])
    assert json.loads(measured.read_text(encoding="utf-8"))["test_queries"] == 3
    for wrong in (["--corpus", "demo"], ["--split", "train"]):
        assert CliRunner().invoke(app, [*command, *wrong]).exit_code == 2


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("corpus.jsonl", "rim", "hub"),
        ("queries.jsonl", "rim", "hub"),
        ("qrels/test.tsv", "\td0\t", "\td1\t"),
        ("qrels/test.tsv", "\t2\n", "\t1\n"),
    ],
)
def test_a_suite_measures_anew_what_has_changed(beir, tmp_path, monkeypatch, file, old, new):
    for name in ("one", "two"):
        shutil.copytree(beir, tmp_path / "data" / name)
    monkeypatch.setitem(suites.SUITES, "beir-11", (SuiteEntry("both", "nDCG@10", ("one", "two")),))
    command = ["evaluate", "--suite", "beir-11", "--data", str(tmp_path / "data"), "--model", "bm25"]
    command += ["--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, command).exit_code == 0
    measured = [tmp_path / "out" / name / "metrics.json" for name in ("one", "two")]
    stamps = [file.stat().st_mtime_ns for file in measured]
    (tmp_path / "data").rename(tmp_path / "moved")
    command[4] = str(tmp_path / "moved")
    assert CliRunner().invoke(app, command).exit_code == 0
    assert [file.stat().st_mtime_ns for file in measured] == stamps, "the same data elsewhere"
    changed = tmp_path / "moved" / "one" / file
    text = changed.read_text(encoding="utf-8")
    assert old in text
    changed.write_text(text.replace(old, new), encoding="utf-8")
    assert CliRunner().invoke(app, command).exit_code == 0
    assert [measured[i].stat().st_mtime_ns == stamps[i] for i in (0, 1)] == [False, True]


def test_a_suite_measures_a_downloaded_set_anew_when_its_judgments_changed(tmp_path, monkeypatch):
    home = Path(os.environ["IR_DATASETS_HOME"]) / "beir" / "quora"
    read = []
    monkeypatch.setattr("pdadapt.data.catalog.IrDocuments.__init__", counted(read, catalog.IrDocuments.__init__))

    def pack(grade):
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        files = {"corpus.jsonl": [{"_id": "d1", "title": "", "text": "rim hub"}, {"_id": "d2", "text": "pad"}]}
        files["queries.jsonl"] = [{"_id": "q1", "text": "rim"}]
        with zipfile.ZipFile(home / "source.zip", "w") as archive:
            for name, rows in files.items():
                archive.writestr(f"quora/{name}", "".join(json.dumps({"title": ""} | row) + "\n" for row in rows))
            for split in ("dev", "test"):
                archive.writestr(f"quora/qrels/{split}.tsv", f"query-id\tcorpus-id\tscore\nq1\td{grade}\t1\n")

    monkeypatch.setitem(suites.SUITES, "beir-11", (SuiteEntry("quora", "RR@10", ("quora",)),))
    command = ["evaluate", "--suite", "beir-11", "--model", "bm25", "--out", str(tmp_path / "out")]
    found = []
    for grade in (1, 1, 2):
        pack(grade)
        said = CliRunner().invoke(app, command)
        assert said.exit_code == 0, said.output
        metrics = json.loads((tmp_path / "out" / "quora" / "metrics.json").read_text(encoding="utf-8"))
        found.append((metrics["measures"]["RR@10"]["means"], len(read)))
    assert found == [([1.0], 1), ([1.0], 1), ([0.0], 2)], "the documents are read only to be measured on"


def counted(calls, function):
    def call(*arguments):
        calls.append(arguments)
        return function(*arguments)

    return call


def test_figures_on_fewer_queries_than_the_papers_say_so(beir, tmp_path, monkeypatch):
    shutil.copytree(beir, tmp_path / "data" / "nq-open")
    monkeypatch.setitem(suites.SUITES, "openqa", (SuiteEntry("nq-open", "nDCG@10", ("nq-open",)),))
    command = ["evaluate", "--suite", "openqa", "--data", str(tmp_path / "data"), "--model", "bm25"]
    command += ["--out", str(tmp_path / "out"), "--set", "evaluate.max_queries=3"]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0, said.output
    notes = [
        "nq-open: these are 3 test queries. The paper's figures are on 8,757.",
        "At most 3 test queries of each set were used (evaluate.max_queries). The paper's figures are on all of them.",
    ]
    for note in notes:
        assert note in said.output and note in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")


def test_open_domain_questions_bring_their_answers_or_are_skipped(beir, tmp_path):
    for name in ("nq-open", "squad-open"):
        shutil.copytree(beir, tmp_path / "data" / name)
    file = tmp_path / "data" / "squad-open" / "queries.jsonl"
    rows = [json.loads(row) for row in file.read_text(encoding="utf-8").splitlines()]
    answered = [row | {"answers": [row["text"].split()[0], "no such word"]} for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in answered), encoding="utf-8")
    command = ["evaluate", "--suite", "openqa", "--data", str(tmp_path / "data"), "--model", "bm25"]
    for passages in ([], ["--passages", "words=3,overlap=1"]):
        said = CliRunner().invoke(app, [*command, *passages, "--out", str(tmp_path / "out")])
        assert said.exit_code == 0, said.output
        assert "Skipped nq-open: evaluate.measures: 'Answer@5' needs a corpus with answers" in said.output
        metrics = json.loads((tmp_path / "out" / "squad-open" / "metrics.json").read_text(encoding="utf-8"))
        assert metrics["measures"]["Answer@5"]["means"] == [1.0]


@pytest.mark.parametrize(
    ("answer", "text", "holds"),
    [
        ("Paris", "in paris, France", True),
        ("Paris", "comparison", False),
        ("U.S.", "the u.s. army", True),
        ("São Paulo", "in São Paulo", True),
        ("New York", "new old york", False),
        ("", "anything", False),
    ],
)
def test_an_answer_is_found_as_dpr_finds_it(answer, text, holds):
    answers = AnswerMatcher(Corpus([Document("d", "Paris", text)]), {"q": (answer,)})
    assert answers.recall({"q": [("d", 1.0)]}, ["q", "without"], 5) == {"q": float(holds), "without": 0.0}
    assert answers.recall({"q": [("d", 1.0)]}, ["q"], 0) == answers.recall({"q": [("no", 1.0)]}, ["q"], 5) == {"q": 0.0}


def test_words_are_letters_digits_and_signs():
    assert answer_tokens("It's 3.5 %") == ["it", "'", "s", "3", ".", "5", "%"]
