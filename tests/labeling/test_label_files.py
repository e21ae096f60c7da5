import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from pdadapt.cli.main import app
from pdadapt.data.load import load_dataset
from pdadapt.errors import DataError, ModelError, RunError
from pdadapt.labeling.exchange import _texts, export_labels, import_labels, label_tables, read_label_rows
from pdadapt.labeling.store import LabelStore
from pdadapt.labeling.training_list import TrainingList, read_lists
from pdadapt.pipeline import adapt
from pdadapt.reporting.tables import label_summary
from pdadapt.runtime.progress import Progress
from pdadapt.settings.recipes import load_recipe
from pdadapt.teachers.label_key import teacher_key


@pytest.fixture(scope="module")
def run(tiny_recipe, beir, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    adapt(load_recipe(str(tiny_recipe), {"train.steps": 1}), load_dataset(str(beir)), out, Progress())
    return out


def rows_of(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_exported_labels_bear_ids_and_texts_and_come_back(run, beir, tiny_recipe, tmp_path):
    count = export_labels(run / "labels.sqlite", tmp_path / "l.jsonl", "jsonl")
    rows = rows_of(tmp_path / "l.jsonl")
    corpus = load_dataset(str(beir)).corpus
    assert count == len(rows) and {row["task"] for row in rows} == {"point", "pair"}
    for row in rows:
        assert row["document"] == corpus[row["doc_id"]].contents and row["teacher"]["task"] == row["task"]
        assert row["model"] == load_recipe(str(tiny_recipe)).teacher.model  # a name beside the hash of its weights
        assert ("document_b" in row) == (row["task"] == "pair")
    for file_format in ("jsonl", "parquet"):
        file, store = tmp_path / f"l.{file_format}", tmp_path / f"{file_format}.sqlite"
        export_labels(run / "labels.sqlite", file, file_format)
        assert import_labels(file, store, None) == count
        assert list(read_label_rows(store)) == list(read_label_rows(run / "labels.sqlite"))


def test_a_label_is_one_row_whatever_ids_its_texts_have_and_a_text_is_shown_by_its_kind(tmp_path):
    file, store = tmp_path / "l.jsonl", tmp_path / "labels.sqlite"
    row = {"query": "what is a rim", "document": "the hoop of a wheel", "score": 1.0}
    named = {**row, "query_id": "1", "doc_id": "1"}
    file.write_text("\n\n".join(map(json.dumps, [named, row, {**row, "doc_id": "7", "query_id": "1"}, row])))
    import_labels(file, store, "n")
    import_labels(file, store, "n")
    (found,) = read_label_rows(store)
    assert (found["query_id"], found["doc_id"]) == ("1", "7") and found["query"] == row["query"]
    entry = TrainingList("1", ["7"], [1.0], [])
    assert _texts(store, entry) == (row["query"], {"7": row["document"]})
    other = {"query": "of another corpus", "document": "nothing", "score": 0.0, "query_id": "1", "doc_id": "8"}
    file.write_text(json.dumps(other))
    import_labels(file, store, "n")
    assert _texts(store, entry) == (row["query"], {"7": row["document"]})


@pytest.mark.slow
def test_imported_labels_teach_without_a_teacher(run, beir, tiny_recipe, tmp_path):
    file, store = tmp_path / "bought.jsonl", tmp_path / "bought.sqlite"
    export_labels(run / "labels.sqlite", tmp_path / "all.jsonl", "jsonl")
    bought = rows_of(tmp_path / "all.jsonl")  # they name their teacher, and --name renames it
    missing = bought.pop(0)
    file.write_text("".join(json.dumps(row) + "\n" for row in bought), encoding="utf-8")
    result = CliRunner().invoke(app, ["labels", "import", str(file), "--store", str(store), "--name", "expert"])
    assert result.exit_code == 0 and f"{len(bought)} labels" in result.output
    overrides = {"train.steps": 1, "teacher.model": "imported:expert", "label_store": str(store)}
    metrics = adapt(load_recipe(str(tiny_recipe), overrides), load_dataset(str(beir)), tmp_path / "run", Progress())
    figures = metrics.labels[0]
    assert missing["task"] == "point" and figures.points_unanswered == 1 and figures.pairs > 0


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"query": "q", "document": "d", "score": "high"}', "x.jsonl:2: `score` must be a finite number"),
        ('{"query": "q", "document": "d", "score": NaN}', "x.jsonl:2: `score` must be a finite number"),
        ('{"query": "q", "score": 1}', "x.jsonl:2: needs the texts query, document"),
        ('{"query": "q", "document": "d", "score": 1', "x.jsonl:2: not valid JSON"),
        ("[1]", "x.jsonl:2: a list is not a JSON object"),
        ('{"task": "list", "query": "q", "document": "d", "score": 1}', "x.jsonl:2: `task` must be"),
        (
            '{"query": "q", "document": "d", "document_b": "d", "score": 1}',
            "x.jsonl:2: `document` and `document_b`",
        ),
        ('{"query": "q", "document": "d", "score": 2}', "x.jsonl:2: the score is 2, but 1.0 for the same texts"),
    ],
)
def test_import_with_a_wrong_line_names_it_and_imports_nothing(line, problem, tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text(f'{{"query": "q", "document": "d", "score": 1}}\n{line}\n', encoding="utf-8")
    with pytest.raises(DataError, match=problem.replace(".", r"\.")):
        import_labels(file, tmp_path / "s.sqlite", "n")
    assert not (tmp_path / "s.sqlite").exists()
    file.write_text('{"query": "q", "document": "d", "score": 1}\n', encoding="utf-8")
    with pytest.raises(DataError, match="Give it a name with --name"):
        import_labels(file, tmp_path / "s.sqlite", None)
    with pytest.raises(DataError, match="there is no folder"):
        import_labels(file, tmp_path / "typo" / "s.sqlite", "n")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match="holds no labels"):
        import_labels(tmp_path / "empty.jsonl", tmp_path / "s.sqlite", "n")
    with pytest.raises(DataError, match=r"come as \.jsonl or \.parquet"):
        import_labels(tmp_path / "labels.csv", tmp_path / "s.sqlite", "n")


def test_an_import_that_contradicts_the_store_is_refused_and_changes_nothing(tmp_path):
    file, store = tmp_path / "x.jsonl", tmp_path / "s.sqlite"
    first = '{"query": "q", "document": "d", "score": 1}\n'
    file.write_text(first, encoding="utf-8")
    assert import_labels(file, store, "n") == 1
    before = list(read_label_rows(store))
    file.write_text('{"query": "q", "document": "new", "score": 3}\n' + first.replace("1", "2"), encoding="utf-8")
    with pytest.raises(DataError, match=r"x\.jsonl:2: the score is 2\.0, but .*s\.sqlite holds 1\.0 .*another --name"):
        import_labels(file, store, "n")
    assert list(read_label_rows(store)) == before
    file.write_text(first * 2, encoding="utf-8")
    assert import_labels(file, store, "n") == 1, "the same again is no contradiction"


@pytest.mark.slow
def test_a_query_is_shown_with_its_documents_pairs_and_contradictions(run):
    lists = read_lists(run / "iteration-1" / "lists.jsonl")
    entry = next(entry for entry in lists if any(value < 0 for *_, value in entry.pairs))
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(label_tables(run, entry.query_id))
    text = console.export_text()
    assert all(doc_id in text for doc_id in entry.doc_ids) and "contradicts the points" in text
    assert f"{entry.points[0]:+.3f}" in text
    assert f"{len(entry.doc_ids)} of 8 judged documents" in text and "derived" not in text
    narrow = Console(width=60, record=True, file=io.StringIO())
    narrow.print(label_tables(run, entry.query_id))
    text = narrow.export_text()
    assert all(doc_id in text for doc_id in entry.doc_ids) and f"{entry.points[0]:+.3f}" in text
    assert not list(run.glob("labels.sqlite-*"))
    with pytest.raises(DataError, match="Query 'zebra' is not in"):
        label_tables(run, "zebra")
    with pytest.raises(RunError, match="holds no run"):
        label_tables(run / "student", "q0")


@pytest.mark.slow
def test_labels_show_prints_brackets_and_names_derived_pairs(stanford, tiny_recipe, tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    words = ("rim", "hub", "spoke", "pad", "rotor", "valve")
    rows = [{"_id": f"[bold]{i}", "text": f"[/red] {word} [link=x]"} for i, word in enumerate(words)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "queries.jsonl").write_text('{"_id": "q[/b]", "text": "[/b] hub"}\n', encoding="utf-8")
    changes = {"train.steps": 1, "teacher.pair.scoring": "derived", "teacher.model": str(stanford)}
    metrics = adapt(load_recipe(str(tiny_recipe), changes), load_dataset(str(folder)), tmp_path / "run", Progress())
    figures = metrics.labels[0]
    assert figures.pairs_derived == figures.pairs > 0
    assert "(derived from the points)" in label_summary(figures)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(label_tables(tmp_path / "run", "q[/b]"))
    text = console.export_text()
    assert "[/b] hub" in text and "[/red] rim [link=x]" in text and "[bold]0" in text
    assert "pairs, derived from the points" in text


@pytest.mark.slow
def test_a_teacher_that_answers_nothing_is_an_error_not_a_run(beir, tiny_recipe, tmp_path):
    recipe = load_recipe(str(tiny_recipe), {"teacher.model": "imported:typo"})
    with pytest.raises(DataError, match=r"holds no point labels of imported:typo\. Import them with .*--name typo"):
        adapt(recipe, load_dataset(str(beir)), tmp_path / "run", Progress())
    assert not (tmp_path / "run").exists()
    with LabelStore(tmp_path / "labels.sqlite", "points", teacher_key(recipe.teacher, "point")) as store:
        store.add([(("another query", "another document"), 1.0)])  # of the right teacher, and of no use
    recipe = recipe.model_copy(update={"label_store": str(tmp_path / "labels.sqlite")})
    recipe.teacher.pair.per_query = 0
    with pytest.raises(ModelError, match=r"no answer to any of 96 points"):
        adapt(recipe, load_dataset(str(beir)), tmp_path / "run", Progress())
