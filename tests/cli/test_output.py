"""Commands print every word and every figure, with any names, on any terminal."""

import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import typer
from rich.console import Console
from test_cli import ENVIRONMENT, pdadapt
from typer.testing import CliRunner

from pdadapt.cli.main import app
from pdadapt.data.corpus import Document
from pdadapt.evaluation.results import ChangedRanking, Comparison, MeasureResult, Metrics
from pdadapt.evaluation.suites import Row, rich_table, write_tables
from pdadapt.planning.table import plan_table
from pdadapt.reporting.report import write_report
from pdadapt.reporting.tables import changed_queries, comparison_table, queries_table
from pdadapt.retrieval.explain import SearchHit, excerpt, show_hits, side_by_side
from pdadapt.runtime.printing import ERRORS, encodable, printable, shorten
from pdadapt.runtime.terminal import Name, WholeTable, console, plain

WINS_TIES_LOSSES = re.compile(r"\b\d+/\d+/\d+\b")
NAMES = ("[/old]", "[bold]x", "[link=x]y[/link]", ":warning:", "[red", "\\[x]")
STEERING = "\x1b[31mred\x1b[0m \x07bell\rback \x9b1m \u202eover\u202c \u2028line \x7f"


def squeezed(text):
    return "".join(text.split())


def commands(command=None, path=()):
    command = command or typer.main.get_command(app)
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*path, name))


@pytest.mark.parametrize(
    ("path", "command"), [pytest.param(*each, id=" ".join(each[0]) or "top") for each in commands()]
)
@pytest.mark.parametrize("columns", [40, 80, 200])
def test_help_shows_every_word_at_any_width(path, command, columns):
    said = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": str(columns)}).output
    texts = [command.help or "", command.epilog or ""]
    texts += [text for param in command.params for text in (param.help, param.metavar) if text]
    texts += [below.help.splitlines()[0].partition(". ")[0] for below in getattr(command, "commands", {}).values()]
    for text in texts:
        assert squeezed(text) in squeezed(said), text


def test_characters_that_cannot_be_shown_are_replaced():
    assert printable(STEERING) == ("\\x1b[31mred\\x1b[0m \\x07bell\\rback \\x9b1m \\u202eover\\u202c \\u2028line \\x7f")
    assert printable("a\r\nb\tc é 漢 \u200d") == "a\nb\tc é 漢 \u200d"
    assert printable("name-\udcff") == "name-\\udcff"
    assert encodable("0.5 → 0.6 ± 0.1 … −1 │━┓ é 漢", "ascii") == "0.5 -> 0.6 +/- 0.1 ... -1 |-\\u2513 \\xe9 \\u6f22"
    assert encodable("± → é", "cp1252") == "± -> é" and encodable("→", "utf-8") == "→"
    assert "⠋ \ud800".encode("latin-1", ERRORS) == b"* \\ud800"


def test_shorten_cuts_a_text_without_spaces():
    assert shorten("很长的文本" * 50, 20, " ...") == "很长的文本很长的文本很长的文本很 ..."
    assert shorten("a b  c", 20, " ...") == "a b c"
    assert shorten("some words that are many", 15, " ...") == "some words ..."
    found = excerpt(SearchHit(Document("d", "", "漢字" * 500), 1.0, []))
    assert len(found.plain) < 200 and found.plain.endswith(" …")


def shown(renderable, width, encoding="utf-8"):
    """What a console of so many columns prints."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors=ERRORS)
    console(width=width, file=file).print(renderable)
    file.flush()
    return raw.getvalue().decode(encoding)


COMPARISON = Comparison(0, 1, 0.1234, (0.0234, 0.2234), 0.0312, 0.0222, 123, 45, 67, p_holm=0.0412, p_t_holm=0.0512)


def metrics(systems):
    comparisons = tuple(replace(COMPARISON, system=i) for i in range(1, systems))
    means = tuple(0.5111 + i for i in range(systems))
    changed = ChangedRanking("q", NAMES[0], (0.25, 0.75), ((NAMES[1],), (NAMES[2], "d")))
    measures = {"nDCG@10": MeasureResult(means, comparisons)}
    return Metrics(NAMES[0], 56789, 1235, ("a",) * systems, measures, (changed,))


def plan():
    from types import SimpleNamespace as Some

    from pdadapt.planning.costs import Cost

    shape = Some(documents=12345, queries=6789, test_queries=432)
    costs = [Cost("label pairs", 432100, "prompts", 98765.0, 87654321), Cost("train", 12345, "steps", 54.3)]
    return Some(
        shape=shape, costs=costs, memory={"label": 12.3e9}, memory_all=45.6e9, disk={"index": 7.8e9}, disk_free=9.1e9,
        labeled={"point": 1357}, sample_kept=(0, 0), cheaper={}, paper={},
    )  # fmt: skip


QUERIES = {
    "kinds": {"question": {"written": 12345, "kept": 6543}, "keywords": {"written": 23456, "copied": 789}},
    "documents": {"looked_at": 1000, "fit": 900, "left_out": {"short": 100}},
    "examples": {"kept": [NAMES[0], STEERING]},
    "kept": 6543,
    "wanted": 9999,
}
FOUND = [SearchHit(Document(NAMES[1], "", "truing a wheel " * 30), 12.345, [(0, 6)])]
OTHER = [SearchHit(Document(NAMES[2], "", STEERING), -3.21, [])]
TABLES = {
    "one": (comparison_table(metrics(1), ["[/old]/checkpoint"]), "0.5111 1,235 56,789 [/old]"),
    "two": (
        comparison_table(metrics(2), ["bm25", "[/old]/" + "very-long-" * 5]),
        "0.5111 1.5111 +0.1234 0.1000 0.041 123/45/67",
    ),
    "three": (
        comparison_table(metrics(3), ["bm25", "[bold]x", "[/old]"]),
        "0.5111 1.5111 2.5111 +0.1234 0.1000 0.041 0.051 123/45/67 [bold]x",
    ),
    "changed": (changed_queries(metrics(2), ["[/old]", "[bold]x"]), "0.25 0.75 [/old] [bold]x"),
    "plan": (plan_table(plan()), "12,345 6,789 432 432,100 87,654,321 54.3 12.3 45.6 7.8 9.1 1,357"),
    "queries": (queries_table(QUERIES), "12,345 6,543 23,456 789 35,801 1,000 900 9,999 [/old]"),
    "suite": (
        rich_table([Row("[x]", "nDCG@10", [50.1, None, 61.2]), Row("average", "R", [10.3, 20.4, 30.5])], ["[/old]"]),
        "50.1 61.2 10.3 20.4 30.5 [/old]",
    ),
    "search": (show_hits(FOUND + OTHER), "12.345 -3.210 [bold]x"),
    "side by side": (side_by_side(FOUND, OTHER, ("[/old]", "[bold]x")), "12.345 -3.210 [bold]x [/old]"),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("width", [20, 40, 80, 300])
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
def test_a_table_shows_every_figure_at_any_width(name, width, encoding):
    table, figures = TABLES[name]
    said = shown(table, width, encoding)
    for figure in figures.split():
        assert figure in said, said
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202a-\u202e]", said)


def test_a_table_uses_the_width_of_the_terminal():
    table = WholeTable(Name("name"), "figure")
    table.add_row(plain("a-name-that-may-fold " * 5), "0.1234")
    assert {len(line) for line in shown(table, 40).splitlines()} == {40}
    assert len(shown(table, 200).splitlines()) == 5
    assert "0.1234" in shown(table, 10)
    assert len(shown(table, 200).splitlines()) == 5, "a table may be printed more than once"


def test_tables_are_safe_in_a_console_that_knows_markup():
    for table, _ in TABLES.values():
        Console(file=io.StringIO()).print(table)


@pytest.mark.parametrize("columns", ["20", "40", "80"])
def test_datasets_and_settings_show_every_figure_at_any_width(columns):
    said = squeezed(CliRunner().invoke(app, ["datasets"], env={"COLUMNS": columns}).output)
    assert all(figure in said for figure in ("57,638", "5,500", "8,841,823", "808,731", "6,980", "648"))
    assert "nq-open:thepublishedfiguresareon8,757testqueries" in said
    said = CliRunner().invoke(app, ["recipes", "settings"], env={"COLUMNS": columns}).output
    assert all(default in said for default in ("10000", "1e-05", "180", "'nDCG@10',", "0.95"))


def test_suite_tables_escape_names(tmp_path):
    write_tables([Row("nq-open", "Answer@5", [50.0, None, None])], ["a|b", r"~\x^{y}"], tmp_path, ["On [6] | of 8."])
    markdown = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert r"a\|b" in markdown and r"On \[6\] \| of 8." in markdown
    latex = (tmp_path / "table.tex").read_text(encoding="utf-8")
    assert r"\textasciitilde{}\textbackslash{}x\textasciicircum{}\{y\}" in latex and latex.endswith(
        "% On [6] | of 8.\n"
    )


@pytest.fixture(scope="module")
def odd(tmp_path_factory, encoder):
    """A folder with a corpus, a model and queries whose names and texts look like markup and steer terminals."""
    folder = tmp_path_factory.mktemp("odd")
    corpus = folder / "[bold]x"
    (corpus / "qrels").mkdir(parents=True)
    words = ("rim", "hub", "spoke", "pad", "rotor", "valve", "tube", "chain")
    documents = [
        {"_id": f"[/b]{i}", "title": NAMES[i % 6], "text": f"{word} {STEERING} → ± é 漢字"}
        for i, word in enumerate(words)
    ]
    queries = [{"_id": f"[link={i}]", "text": f"[/red] {word} {STEERING}"} for i, word in enumerate(words)]
    for name, rows in (("corpus", documents), ("queries", queries)):
        (corpus / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    judged = "".join(f"[link={i}]\t[/b]{i}\t1\n" for i in range(4))
    (corpus / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}", encoding="utf-8")
    shutil.copytree(encoder, folder / "[link=x]model")
    return folder


def run(folder, *arguments, encoding="cp1252", **environment):
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": encoding, "COLUMNS": "40", **environment}
    command = [sys.executable, "-m", "pdadapt", *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, env=environment, cwd=folder, timeout=300)
    said = process.stdout.decode(encoding), process.stderr.decode(encoding)
    assert process.returncode == 0, said
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", "".join(said)), said
    return said[0]


@pytest.mark.subprocess
def test_commands_print_odd_names_in_any_encoding(odd, tiny_recipe):
    settings = ["--set", "train.steps=1", "--set", "evaluate.resamples=50"]
    adapt = [
        "adapt",
        "--corpus",
        "[bold]x",
        "--recipe",
        tiny_recipe,
        "--student",
        "./[link=x]model",
        "--out",
        "[old]run",
    ]
    said = run(odd, *adapt, *settings)
    assert "->" in said and "[old]run" in said and "0." in said
    assert "->" in run(odd, "status", "[old]run", encoding="ascii")
    query = next(odd.glob("*run/iteration-1/lists.jsonl")).read_text(encoding="utf-8").splitlines()[0]
    query_id = json.loads(query)["query_id"]
    said = run(odd, "labels", "show", "[old]run", "--query", query_id, encoding="latin-1")
    assert query_id in said and "[/red]" in said and "\\x1b[31mred" in said
    labels = json.loads(query)
    for columns in ("20", "40", "80"):
        said = run(odd, "labels", "show", "[old]run", "--query", query_id, COLUMNS=columns)
        assert all(f"{point:+.3f}" in said for point in labels["points"])
        assert all(f"{i + 1}, {j + 1}" in said and f"{score:+.3f}" in said for i, j, score in labels["pairs"])
    said = run(odd, "evaluate", "--corpus", "[bold]x", "--model", "[old]run", "--against", "./[link=x]model")
    assert WINS_TIES_LOSSES.search(said) and "bm25" in said
    said = run(odd, "search", "[old]run", "--corpus", "[bold]x", "rim [/b]", "--compare", "bm25", encoding="ascii")
    assert "[/b]0" in said
    out = odd / "[old]run" / "iteration-0" / "test.run"
    said = run(odd, "rerank", "--corpus", "[bold]x", "--run", out, "--recipe", tiny_recipe, "--top", "2")
    assert WINS_TIES_LOSSES.search(said) and "Wrote" in said


def test_a_report_escapes_markup_and_control_characters(small_run):
    text = f"<b>[/red] {STEERING}"
    figures = json.loads((small_run / "metrics.json").read_text(encoding="utf-8"))
    changed = figures["most_changed"]["gained"][0]
    changed["query"] = text
    changed["documents"][0][0] |= {"title": text, "text": text}
    (small_run / "metrics.json").write_text(json.dumps(figures | {"summary": text}), encoding="utf-8")
    (small_run / "run.json").write_text(json.dumps({"corpus": text, "source": {"corpus": text}}), encoding="utf-8")
    page = write_report(small_run).read_text(encoding="utf-8")
    assert page.count("&lt;b&gt;[/red] \\x1b[31mred\\x1b[0m") == 8
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e]", page)


@pytest.mark.subprocess
@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_commands_run_in_the_c_locale(odd, locale):
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "PYTHONIOENCODING"} | locale
    command = [sys.executable, "-m", "pdadapt", "search", "bm25", "--corpus", "[bold]x", "rim"]
    process = subprocess.run(command, capture_output=True, env=environment, cwd=odd)
    assert process.returncode == 0 and b"[/b]0" in process.stdout, process.stderr


@pytest.mark.slow
def test_a_run_file_may_have_any_name(beir, tmp_path):
    """Tabs, line feeds, and bytes that are no UTF-8."""
    name = b"a\tb\n\xff[c].run".decode(errors="surrogateescape")
    (tmp_path / name).write_text("q12 Q0 d0 1 1.0 x\n", encoding="utf-8")
    process = pdadapt("evaluate", "--corpus", beir, "--run", name, "--out", "out", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    rows = [row.split("\t") for row in (tmp_path / "out" / "queries.tsv").read_text(encoding="utf-8").splitlines()]
    assert rows[0] == ["query_id", "measure", "bm25", "a b \\udcff[c].run"] and {len(row) for row in rows} == {4}


@pytest.mark.slow
def test_an_error_escapes_control_characters(tmp_path):
    for arguments in (["evaluate", "--corpus", "\x1b[31m\u202e[/b]", "--model", "bm25"], ["status", "\x1b[31m[/b]\r"]):
        process = pdadapt(*arguments, cwd=tmp_path)
        assert process.returncode == 1 and "\\x1b[31m" in process.stderr and "[/b]" in process.stderr
        assert "\x1b" not in process.stderr and "\r" not in process.stderr and "\u202e" not in process.stderr
    process = pdadapt("search", "bm25", "--corpus", "demo", b"\xff".decode(errors="surrogateescape"), cwd=tmp_path)
    assert process.returncode == 2 and "it is not text in the encoding of this terminal" in process.stderr


@pytest.mark.subprocess
@pytest.mark.parametrize("arguments", [["recipes", "settings"], ["datasets"], ["recipes"], ["--help"]])
def test_a_closed_pipe_ends_a_command_silently(arguments, tmp_path):
    command = [sys.executable, "-m", "pdadapt", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT) as process:
        process.stdout.close()
        said = process.stderr.read()
    assert b"rror" not in said and b"Exception" not in said, said


@pytest.mark.subprocess
def test_ctrl_c_with_a_closed_stderr_exits_with_130():
    imports = "import os, signal; from pdadapt.runtime.interrupt import *"
    script = f"{imports}; install_signal_handlers(); os.kill(os.getpid(), signal.SIGINT)"
    ending = f"try:\n    {script}\nexcept Stopped as stopped: exit_at_once(stopped.args[0])"
    with subprocess.Popen([sys.executable, "-c", ending], stderr=subprocess.PIPE) as process:
        process.stderr.close()
    assert process.returncode == 130


@pytest.mark.subprocess
def test_metrics_are_written_before_they_are_printed(beir, tmp_path):
    command = [sys.executable, "-m", "pdadapt", "evaluate", "--corpus", str(beir), "--model", "bm25"]
    command += ["--out", str(tmp_path / "out"), "--json", str(tmp_path / "found.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT) as process:
        process.stdout.close()
    assert json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["measures"]
