"""A first line is a header if it names what a record needs; else it is a record, or an error that names it."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from pdadapt.data.columns import parse_header
from pdadapt.data.corpus import Document
from pdadapt.data.documents import read_corpus
from pdadapt.data.queries import read_queries
from pdadapt.data.run_file import read_run
from pdadapt.data.trec import read_qrels
from pdadapt.errors import DataError

DOCUMENTS = [Document("d1", "Rims", "true the rim"), Document("d2", "", "bleed the brake")]
NAMES = [
    ("docid", "title", "text"),
    ("corpus-id", "Title", "TEXT"),
    ("docno", "title", "contents"),
    ("_id", "title", "body"),
]
ORDERS = [(0, 1, 2), (2, 1, 0), (1, 2, 0)]


def table(rows, separator):
    return "".join(separator.join(row) + "\n" for row in rows)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("names", NAMES)
def test_columns_are_found_by_name_in_any_order_and_format(tmp_path, names, order):
    rows = [names, *DOCUMENTS]
    placed = [[row[i] for i in order] for row in rows]
    objects = [dict(zip(placed[0], row, strict=True)) for row in placed[1:]]
    (tmp_path / "c.tsv").write_text(table(placed, "\t"), encoding="utf-8")
    (tmp_path / "c.csv").write_text(table(placed, ","), encoding="utf-8")
    (tmp_path / "c.jsonl").write_text("".join(map("{}\n".format, map(json.dumps, objects))), encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(objects), tmp_path / "c.parquet")
    for ending in ("tsv", "csv", "jsonl", "parquet"):
        corpus = read_corpus(tmp_path / f"c.{ending}")
        assert list(corpus) == DOCUMENTS and corpus["d2"] == DOCUMENTS[1], ending


@pytest.mark.parametrize("names", ["query-id\ttext", "qid\tquery", "query_id\tquestion", "ID\tText", "_id\ttext"])
def test_the_header_of_queries_is_no_query(tmp_path, names):
    (tmp_path / "q.tsv").write_text(f"{names}\nq1\ta rim\n", encoding="utf-8")
    assert read_queries(tmp_path / "q.tsv") == {"q1": "a rim"}
    first, second = names.split("\t")
    (tmp_path / "q.tsv").write_text(f"{second}\t{first}\na rim\tq1\n", encoding="utf-8")
    assert read_queries(tmp_path / "q.tsv") == {"q1": "a rim"}


def test_a_query_has_its_own_id_and_a_document_its_own(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"doc_id": "d1", "query_id": "q1", "text": "a rim"}\n', encoding="utf-8")
    assert read_queries(tmp_path / "x.jsonl") == {"q1": "a rim"}
    assert [document.doc_id for document in read_corpus(tmp_path / "x.jsonl")] == ["d1"]


@pytest.mark.parametrize("line", ["id\tThe id of this document is id.", "title\t42", "docid\tA few words.", "d1\ttext"])
def test_record_that_holds_a_column_name_is_no_header(tmp_path, line):
    (tmp_path / "c.tsv").write_text(f"{line}\nd2\tpad\n", encoding="utf-8")
    corpus = read_corpus(tmp_path / "c.tsv")
    assert [(document.doc_id, document.text) for document in corpus] == [tuple(line.split("\t")), ("d2", "pad")]


HALF = [
    "#id\twords",
    "_id\ttext1",
    "query_nr.\tthe question",
    "uid\tfull text",
    "topic_number\tnarrative",
    "id\tText 2",
]


@pytest.mark.parametrize("line", HALF)
@pytest.mark.parametrize("read", [read_corpus, read_queries])
def test_a_first_line_that_begins_with_a_name_of_ids_is_no_record(tmp_path, read, line):
    (tmp_path / "c.tsv").write_text(f"{line}\nd2\tpad\n", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"c\.tsv:1: the line looks like a header .*, but no column is named for the text\. Name it"
    ):
        read(tmp_path / "c.tsv")


WHOLE = ["#id\ttext", "#qid\tquery", "query_nr.\tquery text", "uid\tpassage_text", "Document ID\tDocument Text"]


@pytest.mark.parametrize("line", [*WHOLE, "Topic Number\tQuestion", "#Doc-No.\tContents"])
def test_a_header_may_have_spaces_and_signs(tmp_path, line):
    (tmp_path / "c.tsv").write_text(f"{line}\nd2\tpad\n", encoding="utf-8")
    assert list(read_corpus(tmp_path / "c.tsv")) == [Document("d2", "", "pad")]
    assert read_queries(tmp_path / "c.tsv") == {"d2": "pad"}


def test_header_with_spaces_needs_an_id_column(tmp_path):
    (tmp_path / "c.tsv").write_text("Sample ID\tDocument Text\nd2\tpad\n", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"c\.tsv:1: the line looks like a header .*, but no column is named for the id"
    ):
        read_corpus(tmp_path / "c.tsv")


PYTERRIER = "qid,docid,docno,rank,score,query\nq1,17,d1,0,2.5,a rim\n"


@pytest.mark.parametrize(
    "text",
    [
        PYTERRIER,
        PYTERRIER.replace("docno", "DocNo"),
        ",qid,docid,docno,rank,score,query\n0,q1,17,d1,0,2.5,a rim\n",
        "query_id,doc_id,score\nq1,d1,2.5\n",
        "Query ID,Doc ID,Score\nq1,d1,2.5\n",
        "qid,docid,rank,score\nq1,d1,1,2.5\n",
        "query-id,corpus-id,score\nq1,d1,2.5\n",
    ],
)
def test_the_headers_of_the_usual_tools_name_the_document(tmp_path, text):
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    (tmp_path / "x.tsv").write_text(text.replace(",", "\t"), encoding="utf-8")
    (tmp_path / "q.csv").write_text(text.replace("2.5", "2").replace("Score", "score"), encoding="utf-8")
    names, row = (line.split(",") for line in text.splitlines())
    (tmp_path / "x.jsonl").write_text(json.dumps(dict(zip(names, row, strict=True))), encoding="utf-8")
    for ending in ("csv", "tsv", "jsonl"):
        assert read_run(tmp_path / f"x.{ending}") == {"q1": [("d1", 2.5)]}, ending
    assert read_qrels(tmp_path / "q.csv") == {"q1": {"d1": 2}}


@pytest.mark.parametrize(
    ("read", "names", "row"),
    [
        (read_corpus, "docid\tpid\ttext", "d1\tp1\trim"),
        (read_queries, "qid\ttopic_id\ttext", "1\t2\trim"),
        (read_run, "qid\tdocid\tpid\tscore", "q1\td1\tp1\t2"),
        (read_qrels, "qid\tdocno\tscore\tlabel", "q1\td1\t7\t1"),
    ],
)
@pytest.mark.parametrize("ending", ["tsv", "csv", "jsonl"])
def test_ambiguous_columns_are_refused(tmp_path, read, names, row, ending):
    file, rows = tmp_path / f"x.{ending}", [names.split("\t"), row.split("\t")]
    text = (
        json.dumps(dict(zip(*rows, strict=True))) if ending == "jsonl" else table(rows, "," * (ending == "csv") or "\t")
    )
    file.write_text(text, encoding="utf-8")
    with pytest.raises(
        DataError, match=rf"x\.{ending}:1: '.*' and '.*' both stand for the (id|document|grade), and neither"
    ):
        read(file)


def test_column_with_the_strongest_name_wins(tmp_path):
    for names in ("_id\tdocid\ttext", "id\tpid\ttext", "docno\tdocid\ttext"):
        (tmp_path / "c.tsv").write_text(f"{names}\nd1\t17\trim\n", encoding="utf-8")
        assert list(read_corpus(tmp_path / "c.tsv")) == [Document("d1", "", "rim")]
    (tmp_path / "c.jsonl").write_text('{"docid": "d1", "pid": null, "text": "rim"}\n', encoding="utf-8")
    assert list(read_corpus(tmp_path / "c.jsonl")) == [Document("d1", "", "rim")]


@pytest.mark.parametrize("ending", ["tsv", "csv"])
def test_row_shorter_than_its_header_is_refused(tmp_path, ending):
    text = "id\ttitle\ttext\nd1\tT\n".replace("\t", "\t" if ending == "tsv" else ",")
    (tmp_path / f"c.{ending}").write_text(text, encoding="utf-8")
    with pytest.raises(
        DataError, match=r":2: the row has 2 columns, but the header has 3 \(id, title, text\)\. The text is"
    ):
        read_corpus(tmp_path / f"c.{ending}")


def test_the_text_is_the_first_that_is_not_blank(tmp_path):
    rows = [
        {"_id": "1", "text": "", "body": "hello"},
        {"_id": "2", "text": " ", "contents": None, "body": "x", "query": "no"},
        {"_id": "3", "title": "T", "text": "", "query": "no"},
    ]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = [Document("1", "", "hello"), Document("2", "", "x"), Document("3", "T", "")]
    assert list(read_corpus(tmp_path / "c.jsonl")) == found
    rows = [{"_id": "1", "text": "", "question": "why"}, {"_id": "2", "query": "", "passage": "a whole document"}]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert read_queries(tmp_path / "q.jsonl") == {"1": "why"}, "a passage is no query"


@pytest.mark.parametrize("line", ["docid\tsentence", "topic\ttext", "title\ttext", "id\turl\theadline"])
def test_ambiguous_header_is_refused_by_its_line(tmp_path, line):
    (tmp_path / "c.tsv").write_text(f"\n{line}\nd2\tpad\trim\n", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"c\.tsv:2: the line looks like a header .*, but no column is named for the (id|text)"
    ):
        read_corpus(tmp_path / "c.tsv")


def test_header_may_have_extra_columns_but_no_duplicates(tmp_path):
    (tmp_path / "c.tsv").write_text("url\tid\ttext 2\ttext\nhttp://x\td1\tno\ta rim\n", encoding="utf-8")
    assert list(read_corpus(tmp_path / "c.tsv")) == [Document("d1", "", "a rim")]
    for name, text in {"c.tsv": "id\ttext\tText\n", "c.csv": "id,text,text\n"}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=r":1: two columns have the same name"):
            read_corpus(tmp_path / name)


def test_a_header_is_known_where_records_are_read_one_by_one(tmp_path):
    rows = "".join(f"Title {i}\td{i}\ttext {i}\n" for i in range(20))
    (tmp_path / "c.tsv").write_text(f"title\tdocno\ttext\n{rows}", encoding="utf-8")
    corpus = read_corpus(tmp_path / "c.tsv")
    assert corpus["d17"] == corpus.documents[17] == Document("d17", "Title 17", "text 17")
    assert corpus.documents[3:5] == [Document(f"d{i}", f"Title {i}", f"text {i}") for i in (3, 4)]


@pytest.mark.parametrize(
    ("names", "row"),
    [
        ("query-id\tcorpus-id\tscore", "q1\td1\t2"),
        ("Query_ID\tDocID\tRelevance", "q1\td1\t2"),
        ("qid iter docno rel", "q1 0 d1 2"),
        ("query-id 0 corpus-id score", "q1 0 d1 2"),
        ("docno\trel\ttopic", "d1\t2\tq1"),
        ("topic\tdocument\tgrade\tassessor", "q1\td1\t2\tme"),
    ],
)
def test_the_header_of_qrels_says_which_column_is_what(tmp_path, names, row):
    (tmp_path / "test.tsv").write_text(f"{names}\n{row}\n", encoding="utf-8")
    assert read_qrels(tmp_path / "test.tsv") == {"q1": {"d1": 2}}
    (tmp_path / "test.csv").write_text(f"{names}\n{row}\n".replace("\t", ",").replace(" ", ","), encoding="utf-8")
    assert read_qrels(tmp_path / "test.csv") == {"q1": {"d1": 2}}


def test_the_header_of_a_run_says_which_column_is_what(tmp_path):
    (tmp_path / "x.run").write_text("qid\tdocno\trank\tscore\nq1\td1\t1\t2.5\n", encoding="utf-8")
    assert read_run(tmp_path / "x.run") == {"q1": [("d1", 2.5)]}


@pytest.mark.parametrize("grade", ["0.7", "x", "", "1e-1", "nan", "2,0", "²", "1_0"])
@pytest.mark.parametrize("line", [1, 2])
@pytest.mark.parametrize("before", ["q1\t0\td1\t", "q1\td1\t"])
def test_qrels_with_an_unreadable_grade_are_refused(tmp_path, before, line, grade):
    lines = ["q9 0 d9 1"]
    lines.insert(line - 1, before + grade)
    (tmp_path / "test.tsv").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match=rf"test\.tsv:{line}: .*{grade}.* is not a (judgment|whole number)\. Write "):
        read_qrels(tmp_path / "test.tsv")


@pytest.mark.parametrize(("grade", "whole"), [("2.0", 2), ("+1", 1), ("-1", -1), ("1.", 1), ("0.0", 0), ("1e0", 1)])
def test_a_whole_grade_is_read_however_it_is_written(tmp_path, grade, whole):
    (tmp_path / "test.tsv").write_text(f"q1\t0\td1\t{grade}\nq2\t0\td1\t1\n", encoding="utf-8")
    assert read_qrels(tmp_path / "test.tsv")["q1"] == {"d1": whole}


def test_header_is_not_seen_in_ids_that_are_column_names():
    assert parse_header(["query", "doc", "1"], "judgment", "") is None
    assert parse_header(["query", "Q0", "doc", "1", "2.0", "tag"], "ranking", "") is None
    with pytest.raises(
        DataError,
        match=r"f:1: the line looks like a header \(query, doc, value\), but no column is named for the grade",
    ):
        parse_header(["query", "doc", "value"], "judgment", "f:1")
