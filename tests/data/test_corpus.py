import gzip
import json
from pathlib import Path

import pyarrow.parquet
import pytest

from pdadapt.data.corpus import Document, data_hashes
from pdadapt.data.documents import read_corpus
from pdadapt.data.load import load_dataset
from pdadapt.data.passages import reload_dataset
from pdadapt.data.queries import read_queries, read_query_sources
from pdadapt.data.trec import read_qrels
from pdadapt.errors import DataError


def test_title_and_text_are_joined_once_and_the_same_way():
    assert Document("1", "Title", "text").contents == "Title text"
    assert Document("1", "", "text").contents == "text"


def test_dataset_reloads_from_another_working_folder(tmp_path, monkeypatch):
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.txt").write_text(f"text {name}", encoding="utf-8")
    queries = folder / "queries.txt"
    queries.write_text("a query\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    dataset = load_dataset("texts", queries)  # a relative path, and an absolute one of a file within
    assert [document.doc_id for document in dataset.corpus.documents] == ["a.txt", "b.txt"]
    monkeypatch.chdir("/")
    again = reload_dataset(dataset.source)
    assert data_hashes(again, again.queries) == data_hashes(dataset, dataset.queries)

    read = []
    monkeypatch.setattr("pdadapt.data.load.read_queries", lambda file, _: read.append(str(file)) or {"q": "a query"})
    source = load_dataset(str(folder), Path("hf:org/name")).source
    reload_dataset(source)
    assert read == ["hf:org/name"] * 2, "a name on the hub is no path"


def test_a_beir_folder_keeps_the_test_queries_out_of_the_unlabeled_ones(beir):
    dataset = load_dataset(str(beir))
    assert len(dataset.corpus) == 20
    assert len(dataset.queries) == 12
    assert set(dataset.test_queries) == set(dataset.qrels) == {f"q{i}" for i in range(12, 18)}
    assert not set(dataset.queries) & set(dataset.test_queries)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("ending", "text"),
    [
        ("jsonl", '{"_id": 7, "title": "T", "text": "a b"}\n\n{"id": "x8", "contents": "c"}\n'),
        ("tsv", "7\ta b\tT\nx8\tc\t\n"),
        ("csv", "id,title,text\n7,T,a b\nx8,,c\n"),
    ],
)
def test_every_format_gives_the_same_documents(tmp_path, ending, text, packed):
    file = tmp_path / (f"docs.{ending}.gz" if packed else f"docs.{ending}")
    file.write_bytes(gzip.compress(text.encode(), mtime=0) if packed else text.encode())
    assert list(read_corpus(file)) == [Document("7", "T", "a b"), Document("x8", "", "c")]


def test_queries_one_a_line_get_the_line_as_id(tmp_path):
    (tmp_path / "q.txt").write_text("how to\n\nwhy so\n", encoding="utf-8")
    assert read_queries(tmp_path / "q.txt") == {"q1": "how to", "q3": "why so"}


def test_own_queries_replace_those_of_the_folder(tmp_path, beir):
    (tmp_path / "q.tsv").write_text("a\tspoke tension\n", encoding="utf-8")
    dataset = load_dataset(str(beir), tmp_path / "q.tsv")
    assert dataset.queries == {"a": "spoke tension"}
    assert len(dataset.test_queries) == 6


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("q.jsonl", '{"id": 0, "doc_id": "d0", "text": "spoke"}\n{"id": 1, "doc_id": "", "text": "rim"}\n'),
        ("q.jsonl", '{"query_id": "0", "docid": "d0", "text": "spoke"}\n{"qid": "1", "docno": null, "text": "rim"}\n'),
        ("q.tsv", "qid\tquery\tdocid\n0\tspoke\td0\n1\trim\t\n"),
        ("q.csv", "_id,text,Doc ID\n0,spoke,d0\n1,rim,\n"),
    ],
)
def test_own_queries_bring_labels_from_any_field_name(tmp_path, beir, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert load_dataset(str(beir), tmp_path / name).train_qrels == {"0": {"d0": 1}}


def test_a_document_id_that_names_the_query_is_no_label(tmp_path, beir):
    (tmp_path / "q.tsv").write_text("docid\ttext\nd0\tspoke\n", encoding="utf-8")
    assert load_dataset(str(beir), tmp_path / "q.tsv").train_qrels == {}
    (tmp_path / "q.jsonl").write_text('{"_id": 0, "pid": 0, "text": "rim"}\n', encoding="utf-8")
    assert read_query_sources(tmp_path / "q.jsonl") == {"0": {"0": 1}}


@pytest.mark.parametrize("text", ["q1\td1\t2\n", "query-id\tcorpus-id\tscore\nq1\td1\t2\n", "q1 0 d1 2\n"])
def test_qrels_in_beir_and_trec_columns(tmp_path, text):
    (tmp_path / "qrels.tsv").write_text(text, encoding="utf-8")
    assert read_qrels(tmp_path / "qrels.tsv") == {"q1": {"d1": 2}}


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        (
            "c.jsonl",
            '{"_id": "1", "text": "a"}\n{"_id": "1", "text": "b"}\n',
            r"c\.jsonl:2: duplicate document id '1'",
        ),
        ("c.jsonl", '{"_id": "1", "text": "a"}\n{oops\n', r"c\.jsonl:2: not valid JSON"),
        ("c.jsonl", '{"text": "a"}\n', r"c\.jsonl:1: the document has no id"),
        ("c.jsonl", '{"_id": "1"}\n', r"c\.jsonl:1: the document has no text"),
        ("c.jsonl", '{"_id": "a b", "text": "x"}\n', r"white space"),
        ("c.jsonl", '{"_id": "1", "text": "bad \\ud83d half"}\n', r"c\.jsonl:1: the text contains half of a surrogate"),
        (
            "c.jsonl",
            '{"_id": "1", "title": "bad \\ud83d", "text": "x"}\n',
            r"c\.jsonl:1: the text contains half of a surrogate",
        ),
        ("c.jsonl", "[1]\n", r"c\.jsonl:1: a list is not a JSON object"),
        ("c.tsv", "only-an-id\n", r"c\.tsv:1: the line contains no tab\. Write id<TAB>text"),
        ("c.csv", "a,b\n1,2\n", r"c\.csv:1: a CSV file needs a header"),
        ("c.csv", 'id,text\n1,a\n2,"b\n3,"c"\n4,d\n', r"c\.csv:3: not valid CSV"),  # would swallow document 3
        ("c.csv", 'id,text\n1,a\n2,"b\n3,c\n', r"c\.csv:3: not valid CSV"),
        ("c.csv", "id,text\n1,a, b\n", r"c\.csv:2: the row has more fields than the header"),
        ("c.doc", "x", r"unknown file format"),
        ("c.jsonl", "\n", r"contains no documents"),
    ],
)
def test_a_bad_corpus_is_refused_with_file_and_line(tmp_path, name, text, problem):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=problem):
        read_corpus(tmp_path / name)


def test_broken_archive_bad_encoding_and_missing_file_are_refused(tmp_path):
    (tmp_path / "c.jsonl.gz").write_bytes(b"not gzip")
    with pytest.raises(DataError, match="cannot be decompressed"):
        read_corpus(tmp_path / "c.jsonl.gz")
    (tmp_path / "test.tsv").write_bytes(b"q\xff\td\t1\n")
    with pytest.raises(DataError, match=r"test\.tsv:1: not UTF-8 text"):
        read_qrels(tmp_path / "test.tsv")
    with pytest.raises(DataError, match="not found"):
        load_dataset(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"has no corpus\.jsonl"):
        load_dataset(str(tmp_path))


def test_qrels_of_foreign_queries_are_refused(tmp_path, beir):
    (tmp_path / "qrels").mkdir()
    for name in ("corpus.jsonl", "queries.jsonl"):
        (tmp_path / name).write_text((beir / name).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "qrels" / "test.tsv").write_text("zz\td1\t1\n", encoding="utf-8")
    with pytest.raises(DataError, match="names none of the queries"):
        load_dataset(str(tmp_path))


def test_the_demo_corpus_is_what_the_readme_says():
    dataset = load_dataset("demo")
    assert len(dataset.corpus) >= 400
    assert len(dataset.queries) >= 150
    assert len(dataset.test_queries) >= 60
    for document in dataset.corpus:
        assert 40 <= len(document.text.split()) <= 120, document.doc_id
    for query_id, judged in dataset.qrels.items():
        assert set(judged.values()) <= {0, 1, 2}
        assert sum(grade > 0 for grade in judged.values()) >= 2, query_id
        assert all(doc_id in dataset.corpus for doc_id in judged)
    texts = [text.lower() for text in (*dataset.queries.values(), *dataset.test_queries.values())]
    assert len(set(texts)) == len(texts)
    assert len(json.dumps([document.contents for document in dataset.corpus])) < 1_000_000


def test_parquet_files_hold_documents_and_queries(tmp_path):
    rows = [{"_id": "7", "title": "T", "text": "a b"}, {"_id": "x8", "title": None, "text": "c"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "docs.parquet")
    assert list(read_corpus(tmp_path / "docs.parquet")) == [Document("7", "T", "a b"), Document("x8", "", "c")]
    assert read_queries(tmp_path / "docs.parquet") == {"7": "a b", "x8": "c"}
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"bad\.parquet cannot be read as Parquet"):
        read_corpus(tmp_path / "bad.parquet")


def test_a_folder_of_text_files_is_a_corpus(tmp_path):
    for name, text in {"b.txt": "pad", "notes/a file.md": "# Rim\nspoke\n", ".git/x.txt": "no", "c.pdf": "no"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "asked.txt").write_text("what is a rim\n", encoding="utf-8")
    dataset = load_dataset(str(tmp_path), tmp_path / "asked.txt")
    documents = [Document("b.txt", "", "pad"), Document("notes/a%20file.md", "", "# Rim\nspoke\n")]
    assert list(dataset.corpus) == documents
    with gzip.open(tmp_path / "a.txt.gz", "wt", encoding="utf-8") as file:
        file.write("hub")
    assert list(load_dataset(str(tmp_path), tmp_path / "asked.txt").corpus) == [
        Document("a.txt", "", "hub"),
        *documents,
    ]
    assert dataset.queries == {"q1": "what is a rim"}
    (tmp_path / "qrels").mkdir()
    with pytest.raises(DataError, match=r"has no corpus\.jsonl"):
        load_dataset(str(tmp_path))


def test_a_hugging_face_dataset_is_a_corpus(tmp_path):
    for split, text in {"train": "a b", "test": "c"}.items():
        (tmp_path / "data" / f"{split}.jsonl").parent.mkdir(exist_ok=True)
        (tmp_path / "data" / f"{split}.jsonl").write_text(f'{{"_id": "d", "text": "{text}"}}\n', encoding="utf-8")
    source = f"hf:{tmp_path / 'data'}"
    assert list(load_dataset(source).corpus) == [Document("d", "", "a b")]
    dataset = load_dataset(f"{source}@test", Path(f"{source}@train"))
    assert list(dataset.corpus) == [Document("d", "", "c")] and dataset.queries == {"d": "a b"}
    with pytest.raises(DataError, match="hf:nowhere/none: the dataset cannot be loaded"):
        load_dataset("hf:nowhere/none")
