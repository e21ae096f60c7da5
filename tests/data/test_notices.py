"""Blank documents and queries, and judgments of what is not there: left out, counted and said; or refused."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from pdadapt.cli.main import app
from pdadapt.data.corpus import Document, data_hashes, relevant_documents
from pdadapt.data.documents import read_corpus
from pdadapt.data.load import load_dataset
from pdadapt.data.notices import Notices
from pdadapt.data.passages import reload_dataset
from pdadapt.data.queries import read_queries
from pdadapt.errors import DataError

KEPT = [Document("d1", "", "rim"), Document("d4", "only a title", ""), Document("d6", "T", "pad")]
ROWS = [
    {"_id": "d1", "title": "", "text": "rim"},
    {"_id": "d2", "title": "", "text": "  "},
    {"_id": "d3", "title": " ", "text": ""},
    {"_id": "d4", "title": "only a title", "text": ""},
    {"_id": "d5", "title": "", "text": "\u00a0"},
    {"_id": "d6", "title": "T", "text": "pad"},
]


def separated(rows, separator):
    text = io.StringIO()
    csv.writer(text, delimiter=separator).writerows([rows[0].keys(), *(row.values() for row in rows)])
    return text.getvalue().encode()


def parquet(rows):
    file = io.BytesIO()
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist([{k: v or None for k, v in row.items()} for row in rows]), file
    )
    return file.getvalue()


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


FORMATS = {
    "jsonl": (jsonl, ":2"),
    "tsv": (lambda rows: separated(rows, "\t"), ":3"),
    "csv": (lambda rows: separated(rows, ","), ":3"),
    "parquet": (parquet, ": row 2"),
}


@pytest.mark.parametrize("ending", FORMATS)
def test_blank_documents_are_left_out_and_counted_in_every_format(tmp_path, ending):
    write, second = FORMATS[ending]
    file = tmp_path / f"c.{ending}"
    file.write_bytes(write(ROWS))
    notices = Notices()
    corpus = read_corpus(file, notices)
    assert list(corpus) == KEPT == corpus.documents[:] and corpus.documents[1:] == KEPT[1:]
    assert [corpus.documents[i] for i in range(3)] == [corpus[document.doc_id] for document in KEPT] == KEPT
    assert "d2" not in corpus and corpus.missing_ids(["d6", "d5", "x"]) == ["d5", "x"]
    assert notices.sentences == [f"Left out 3 blank documents: {file}{second} (and 2 more)."]
    assert notices.blank["document"] == {"d2", "d3", "d5"}
    with pytest.raises(DataError, match=rf"c\.{ending}{second}: the document is blank \(and 2 more\)\. .* --strict"):
        read_corpus(file, Notices(strict=True))


@pytest.mark.parametrize("ending", FORMATS)
def test_blank_queries_are_left_out_and_counted_in_every_format(tmp_path, ending):
    write, second = FORMATS[ending]
    file = tmp_path / f"q.{ending}"
    file.write_bytes(write([{"_id": row["_id"], "text": row["text"]} for row in ROWS]))
    notices = Notices()
    assert read_queries(file, notices) == {"d1": "rim", "d6": "pad"}
    assert notices.sentences == [f"Left out 4 blank queries: {file}{second} (and 3 more)."]
    with pytest.raises(DataError, match=rf"q\.{ending}{second}: the query is blank \(and 3 more\)"):
        read_queries(file, Notices(strict=True))


@pytest.mark.parametrize("value", [None, float("nan"), ""])
def test_missing_title_or_text_is_not_read_as_a_word(tmp_path, value):
    rows = [{"_id": "d1", "title": value, "text": "rim"}, {"_id": "d2", "title": "Pads", "text": value}]
    (tmp_path / "c.jsonl").write_bytes(jsonl([*rows, {"_id": "d3", "title": 1984, "text": value}]))
    pyarrow.parquet.write_table(
        pyarrow.table({"_id": ["d1"], "title": [float("nan")], "text": ["rim"]}), tmp_path / "c.parquet"
    )
    found = [document.contents for document in read_corpus(tmp_path / "c.jsonl")]
    assert found == ["rim", "Pads", "1984"]
    assert list(read_corpus(tmp_path / "c.parquet")) == [Document("d1", "", "rim")]


@pytest.mark.parametrize("rows", [["d1", "d2", "d1"], ["d2", "d1", "d2"], ["d3", "d2", "d2"]])
def test_ids_of_blank_records_are_checked_too(tmp_path, rows):
    for kind, read in (("document", read_corpus), ("query", read_queries)):
        (tmp_path / "x.jsonl").write_bytes(jsonl({"_id": each, "text": "" if each == "d2" else "rim"} for each in rows))
        with pytest.raises(DataError, match=rf"x\.jsonl:3: duplicate {kind} id '{rows[2]}'"):
            read(tmp_path / "x.jsonl")


def test_blank_documents_of_text_folders_and_hub_sets_are_left_out(tmp_path):
    (tmp_path / "notes").mkdir()
    for name, text in {"a.txt": "rim", "b.txt": " \n", "c.md": ""}.items():
        (tmp_path / "notes" / name).write_text(text, encoding="utf-8")
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "train.jsonl").write_bytes(jsonl(ROWS))
    for source, found, first in (
        ("notes", ["a.txt"], "/b.txt (and 1 more)"),
        ("hub", ["d1", "d4", "d6"], ": row 2 (and 2 more)"),
    ):
        name = f"hf:{tmp_path / source}" if source == "hub" else str(tmp_path / source)
        dataset = load_dataset(name)
        assert [document.doc_id for document in dataset.corpus] == found
        assert [dataset.corpus.documents[-1].doc_id, *(each.doc_id for each in dataset.corpus.documents[:-1])][
            0
        ] == found[-1]
        assert dataset.notices.sentences[0].endswith(f"{first}.")
        with pytest.raises(DataError, match="is blank"):
            load_dataset(name, strict=True)


@pytest.fixture
def messy(beir, tmp_path):
    """The BEIR folder with a blank document and a blank query, and judgments of what is not there."""
    folder = tmp_path / "messy"
    (folder / "qrels").mkdir(parents=True)
    more = {
        "corpus.jsonl": '{"_id": "blank", "text": " "}\n',
        "queries.jsonl": '{"_id": "q90", "text": null}\n',
        "qrels/test.tsv": "q12\tgone\t1\nq12\tblank\t1\nq90\td1\t1\nq91\td1\t1\n",
    }
    for name, text in more.items():
        (folder / name).write_bytes((beir / name).read_bytes() + text.encode())
    (folder / "qrels" / "train.tsv").write_text("q0\td3\t1\nq0\tblank\t1\nq95\td1\t1\n", encoding="utf-8")
    return folder


def said_of(folder):
    test = f"{folder}/qrels/test.tsv"
    return [
        f"Left out 1 blank document: {folder}/corpus.jsonl:21.",
        f"Left out 1 blank query: {folder}/queries.jsonl:19.",
        f"{test}: 2 of 8 judged queries have no text and are left out: 'q90' and 1 more.",
        f"{test}: 2 of 22 judged documents are missing from the corpus: 'gone' and 1 more.",
    ]


def test_judged_queries_and_documents_that_are_not_there_are_counted(messy, beir):
    dataset, whole = load_dataset(str(messy)), load_dataset(str(beir))
    assert dataset.notices.sentences == said_of(messy)
    assert data_hashes(dataset, dataset.queries) == data_hashes(whole, whole.queries)
    assert dataset.test_queries == whole.test_queries and dataset.qrels["q12"]["gone"] == 1, "which recall counts"
    again = reload_dataset(dataset.source)
    assert data_hashes(again, again.queries) == data_hashes(dataset, dataset.queries)
    assert again.notices.sentences == dataset.notices.sentences


def test_training_judgments_are_counted_when_they_are_read(messy):
    dataset = load_dataset(str(messy))
    assert relevant_documents(dataset, dataset.queries) == {"q0": ["d3"]}, "a blank document teaches nothing"
    train = f"{messy}/qrels/train.tsv"
    assert dataset.notices.sentences[4:] == [
        f"{train}: 1 of 2 judged queries have no text and are left out: 'q95'.",
        f"{train}: 1 of 2 judged documents are missing from the corpus: 'blank'.",
    ]


def test_training_judgments_of_documents_that_are_not_there_are_left_out(messy, tmp_path):
    (messy / "qrels" / "train.tsv").write_text("q0\td3\t1\nq0\tgone\t1\nq1\tgone\t1\n", encoding="utf-8")
    dataset = load_dataset(str(messy))
    assert relevant_documents(dataset, dataset.queries) == {"q0": ["d3"]}
    assert dataset.notices.sentences[4:] == [
        f"{messy}/qrels/train.tsv: 1 of 2 judged documents are missing from the corpus: 'gone'."
    ]
    own = tmp_path / "q.jsonl"
    own.write_bytes(jsonl([{"_id": "a", "doc_id": "d1", "text": "x"}, {"_id": "b", "doc_id": "gone", "text": "y"}]))
    dataset = load_dataset(str(messy), own)
    assert relevant_documents(dataset, dataset.queries) == {"a": ["d1"]}
    dataset = load_dataset(str(messy), own)
    dataset.notices.strict = True
    with pytest.raises(DataError, match=r"q\.jsonl: 1 of 2 judged documents .*: 'gone'\. Add them, remove"):
        relevant_documents(dataset, dataset.queries)
    (messy / "qrels" / "train.tsv").write_text("q0\tgone\t1\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"train\.tsv names none of the documents"):
        relevant_documents(dataset := load_dataset(str(messy)), dataset.queries)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("corpus.jsonl", r"corpus\.jsonl:21: the document is blank\. Write"),
        ("queries.jsonl", r"queries\.jsonl:19: the query is blank\. Write"),
        ("qrels/test.tsv", r"test\.tsv: 2 of 8 judged queries .*: 'q90' and 1 more\. Add them, remove"),
    ],
)
def test_strict_refuses_what_a_notice_reports(messy, beir, broken, message):
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        if name != broken:
            (messy / name).write_bytes((beir / name).read_bytes())
    load_dataset(str(messy))
    with pytest.raises(DataError, match=message):
        load_dataset(str(messy), strict=True)


@pytest.mark.slow
def test_every_command_that_loads_a_dataset_says_it_and_can_be_strict(
    messy, encoder, llama, cross_encoder, tiny_recipe, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    runner, recipe = CliRunner(), ["--recipe", str(tiny_recipe)]
    (tmp_path / "their.run").write_text(
        "q12 Q0 blank 1 3.0 t\nq12 Q0 d0 2 2.0 t\nq90 Q0 d0 1 1.0 t\n", encoding="utf-8"
    )
    commands = {
        "adapt": ["--corpus", "messy", *recipe, "--out", "run", "--set", "train.steps=1"],
        "evaluate": ["--corpus", "messy", "--model", "bm25", "--out", "measured"],
        "search": ["bm25", "rim", "--corpus", "messy"],
        "rerank": ["--corpus", "messy", *recipe, "--run", "their.run", "--out", "new.run"],
        "train-reranker": ["--corpus", "messy", *recipe, "--out", "reranker", "--model", str(encoder)],
        "queries": ["messy", *recipe, "--out", "new.jsonl", "--count", "1", "--set", "generate.round_trip=null"],
    }
    for name, options in commands.items():
        refused = runner.invoke(app, [name, *options, "--strict"])
        assert isinstance(refused.exception, DataError) and "is blank" in str(refused.exception), (name, refused.output)
        found = runner.invoke(app, [name, *options])
        assert [found.output.count(sentence) for sentence in said_of(Path("messy"))] == [1] * 4, (name, found.output)
        assert found.exit_code == 0 or name == "queries", (name, found.output, found.exception)
    assert (
        "train.tsv: 1 of 2 judged documents are missing from the corpus"
        in runner.invoke(app, ["train-reranker", *commands["train-reranker"]]).output
    )
    assert (tmp_path / "new.run").read_text(encoding="utf-8").split()[:3] == ["q12", "Q0", "d0"]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["summary"].endswith(" ".join(said_of(Path("messy"))))


def test_notice_is_said_once_and_replaced_by_its_key():
    notices, said = Notices(), []
    notices.add("a", "one")
    notices.say(said.append)
    notices.add("a", "two")
    notices.say(said.append)
    notices.say(said.append)
    assert said == ["one", "two"] and notices.sentences == ["two"]


def test_qrels_that_are_given_take_the_place_of_those_that_lack_queries(messy, beir):
    from pdadapt.data.judgments import with_qrels

    dataset = with_qrels(load_dataset(str(messy)), beir / "qrels" / "test.tsv")
    assert [sentence for sentence in dataset.notices.sentences if "judged" in sentence] == []
    assert replace(dataset, notices=Notices()) == dataset
