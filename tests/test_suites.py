import json
import shutil

import pytest
from typer.testing import CliRunner

from pdadapt import suites
from pdadapt.answers import Answers, words
from pdadapt.catalog import lengths_of
from pdadapt.cli import app
from pdadapt.corpus import Corpus, Document
from pdadapt.suites import PUBLISHED, SUITES, Row, Task, averages, write_tables


def test_the_suites_are_the_papers():
    assert [len(SUITES[name]) for name in ("beir-11", "beir-13", "beir-18", "lotte")] == [11, 13, 18, 12]
    published = [PUBLISHED[test.name, test.measure] for test in SUITES["beir-18"]]
    assert [round(sum(system) / 18, 1) for system in zip(*published, strict=True)] == [47.7, 48.9]  # as it says itself
    assert lengths_of("arguana") == {"document_length": 300, "query_length": 300}
    assert lengths_of("climate-fever")["query_length"] == 64
    assert lengths_of("bioasq") == lengths_of("lotte/pooled/search") == {"document_length": 300}
    assert lengths_of("dl19") == lengths_of("nq-open") == {}


def test_averages_leave_out_what_is_not_known_of_all():
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


def test_the_table_in_every_format(tmp_path):
    write_tables([Row("a_b", "nDCG@10", [50.0, None, 1.25])], ["x%"], tmp_path)
    assert (tmp_path / "table.csv").read_text(encoding="utf-8").splitlines()[1] == "a_b,nDCG@10,50.0,,1.2"
    assert "| a_b | nDCG@10 | 50.0 |  | 1.2 |" in (tmp_path / "table.md").read_text(encoding="utf-8")
    latex = (tmp_path / "table.tex").read_text(encoding="utf-8")
    assert r"a\_b & nDCG@10 & 50.0 &  & 1.2 \\" in latex and r"x\%" in latex and r"\begin{tabular}{llrrr}" in latex


def test_a_suite_runs_what_is_at_hand_and_goes_on_where_it_was(beir, tmp_path, monkeypatch):
    for name in ("one", "two"):
        shutil.copytree(beir, tmp_path / "data" / name)
    tests = (Task("both", "nDCG@10", ("one", "two")), Task("one", "R@1000", ("one",)), Task("no", "RR", ("nowhere",)))
    monkeypatch.setitem(suites.SUITES, "beir-11", tests)
    command = ["evaluate", "--suite", "beir-11", "--data", str(tmp_path / "data"), "--model", "bm25"]
    said = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out")])
    assert said.exit_code == 0, said.output
    assert "both" in said.output and "Skipped nowhere: Corpus 'nowhere' was not found" in said.output
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
    answers = Answers(Corpus([Document("d", "Paris", text)]), {"q": (answer,)})
    assert answers.recall({"q": [("d", 1.0)]}, ["q", "without"], 5) == {"q": float(holds), "without": 0.0}
    assert answers.recall({"q": [("d", 1.0)]}, ["q"], 0) == answers.recall({"q": [("no", 1.0)]}, ["q"], 5) == {"q": 0.0}


def test_words_are_letters_digits_and_signs():
    assert words("It's 3.5 %") == ["it", "'", "s", "3", ".", "5", "%"]
