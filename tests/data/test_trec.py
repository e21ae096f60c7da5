"""Qrels and runs are read as leniently, and as strictly, as documents and queries."""

import gzip
import io
import json

import pyarrow
import pyarrow.parquet
import pytest

from pdadapt.data.notices import Notices
from pdadapt.data.run_file import read_run, write_run
from pdadapt.data.trec import read_qrels
from pdadapt.errors import DataError

RANKING = {"q1": [("d1", 2.5), ("d2", 1.0)], "q2": [("d1", -3.0)]}
ROWS = [{"qid": q, "docno": d, "rank": 1, "score": score} for q, ranked in RANKING.items() for d, score in ranked]


def parquet(rows):
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


def lines(separator, names=()):
    return "".join(separator.join(map(str, row)) + "\n" for row in [names, *(row.values() for row in ROWS)] if row)


TREC = "q1 Q0 d1 1 2.5 t\n\n  \t\nq1\tQ0\td2\t2\t1\tt with words\r\n\nq2 Q0 d1 1 -3e0 t"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.run", TREC.encode()),
        ("x.run", b"\n" + TREC.encode()),
        ("x.run", TREC.encode("utf-8-sig")),
        ("x.run", TREC.encode("utf-16")),
        ("x.run.gz", gzip.compress(TREC.encode(), mtime=0)),
        ("x.run", f"# by hand\n{TREC}\n#\n".encode()),
        ("x.tsv", lines("\t", ROWS[0]).encode()),
        ("x.csv", lines(",", ROWS[0]).encode()),
        ("x.jsonl", "\n\n".join(map(json.dumps, ROWS)).encode()),
        ("x.parquet", parquet(ROWS)),
    ],
)
def test_a_run_is_read_in_every_format(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert read_run(tmp_path / name) == RANKING


@pytest.mark.parametrize(
    ("score", "message"),
    [
        ("NaN", r"the score 'NaN' is not a finite number\. Write one, or remove the document from the run"),
        ("inf", r"the score 'inf' is not a finite number"),
        ("-Infinity", r"the score '-Infinity' is not a finite number"),
        ("1e999", r"the score '1e999' is not a finite number"),
        ("high", r"the score 'high' is not a finite number"),
        ("1_0", r"the score '1_0' is not a finite number"),
        ("1,5", r"the score '1,5' has a decimal comma\. Write 1\.5\."),
        ("-0,25", r"the score '-0,25' has a decimal comma\. Write -0\.25\."),
        ("1,000,000", r"the score '1,000,000' is not a finite number"),
    ],
)
def test_a_score_that_is_no_number_is_named(tmp_path, score, message):
    (tmp_path / "x.run").write_text(f"q1 Q0 d1 1 9.0 t\n\nq1 Q0 d2 2 {score} t\n", encoding="utf-8")
    with pytest.raises(DataError, match=rf"x\.run:3: {message}"):
        read_run(tmp_path / "x.run")


def test_scores_of_parquet_and_jsonl_are_checked(tmp_path):
    (tmp_path / "x.parquet").write_bytes(parquet([{**ROWS[0], "score": float("nan")}]))
    with pytest.raises(DataError, match=r"x\.parquet: row 1: the score 'nan' is not a finite number"):
        read_run(tmp_path / "x.parquet")
    (tmp_path / "x.jsonl").write_text('{"qid": "q1", "docno": "d1"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"x\.jsonl:1: the ranking has no score\. Write it in a field `score`"):
        read_run(tmp_path / "x.jsonl")
    with pytest.raises(DataError, match=r"x\.jsonl:1: the judgment has no grade\. Write it in a field `score`"):
        read_qrels(tmp_path / "x.jsonl")


def test_a_query_whose_id_begins_with_a_number_sign_keeps_its_ranking(tmp_path):
    ranking = {"#1": [("d1", 2.0)], "q2": [("d1", 1.0)]}
    write_run(tmp_path / "x.run", ranking.items(), "t")
    assert read_run(tmp_path / "x.run") == ranking
    (tmp_path / "x.run").write_text("q1 Q0 d1 1 2.0 t\n#q1 Q0 d2 2 NaN t\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"x\.run:2: the score 'NaN'"):
        read_run(tmp_path / "x.run")


def test_comments_of_qrels_are_skipped_and_those_that_could_be_judgments_are_said(tmp_path):
    file = tmp_path / "test.qrels"
    file.write_text("# by hand\nq1 0 d1 1\n#\n# topic 2\n\nq2 0 d2 1\n", encoding="utf-8")
    notices = Notices(strict=True)
    assert read_qrels(file, notices) == {"q1": {"d1": 1}, "q2": {"d2": 1}} and not notices.sentences
    file.write_text("q1 0 d1 1\n#q1 0 d2 1\n#2 d2 1\n", encoding="utf-8")
    notices = Notices()
    assert read_qrels(file, notices) == {"q1": {"d1": 1}}
    assert notices.sentences == [
        f"Left out 2 judgments because their lines start with # and are comments: {file}:2 (and 1 more)."
    ]
    file.write_text("q1 0 d1 1\n#q1 0 d2 1\n", encoding="utf-8")
    notices = Notices()
    read_qrels(file, notices)
    assert notices.sentences == [f"Left out 1 judgment because its line starts with # and is a comment: {file}:2."]
    with pytest.raises(
        DataError, match=r"test\.qrels:2: the judgment is a comment, because its line starts with #\. Remove"
    ):
        read_qrels(file, Notices(strict=True))


def test_a_document_has_one_grade(tmp_path):
    file = tmp_path / "test.tsv"
    file.write_text("q1 d1 1\nq1 d1 1.0\n", encoding="utf-8")
    assert read_qrels(file) == {"q1": {"d1": 1}}
    file.write_text("q1 d1 1\nq1 d2 1\nq1 d1 0\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"test\.tsv:3: document 'd1' has grade 0 for query 'q1', but grade 1 in an"):
        read_qrels(file)


def test_quotes_around_fields_of_qrels_are_no_part_of_an_id(tmp_path):
    (tmp_path / "test.tsv").write_text('"query-id"\t"corpus-id"\t"score"\n"q1"\t"d""1"\t1\n', encoding="utf-8")
    assert read_qrels(tmp_path / "test.tsv") == {"q1": {'d"1': 1}}


@pytest.mark.parametrize(
    "text",
    [
        "query_id\tdoc_id\trelevance\tnote\nq1\td1\t1\thi there\nq1\td2\t0\t\n",
        "query_id\titer\tdoc_id\trelevance\nq1\t\td1\t1\nq1\t0\td2\t0\n",
        "# by hand\nQuery ID\tDoc ID\tScore\nq1\td1\t1\nq1\td2\t0\n",
        "#qid\tdocno\tlabel\tby\nq1\td1\t1\tme too\nq1\td2\t0\t\n",
        'note\t"qid"\t"docno"\t"rel"\n"so ""so"" it is"\tq1\td1\t1\n"none"\tq1\td2\t0\n',
    ],
)
def test_qrels_with_a_tab_separated_header_split_lines_at_tabs(tmp_path, text):
    (tmp_path / "test.tsv").write_text(text, encoding="utf-8")
    assert read_qrels(tmp_path / "test.tsv") == {"q1": {"d1": 1, "d2": 0}}


def test_a_run_may_hold_the_text_of_its_queries(tmp_path):
    text = "qid\tdocid\tdocno\trank\tscore\tquery\nq1\t17\td1\t0\t2.5\twhat is a rim\n"
    (tmp_path / "x.tsv").write_text(text, encoding="utf-8")
    assert read_run(tmp_path / "x.tsv") == {"q1": [("d1", 2.5)]}


@pytest.mark.parametrize(
    ("name", "line", "problem"),
    [
        ("csv", ",d1,1", "the query has no id"),
        ("csv", "q1,,1", "the document has no id"),
        ("csv", '"q 1",d1,1', "the id 'q 1' contains white space"),
        ("csv", 'q1,"d 1",1', "the id 'd 1' contains white space"),
        ("tsv", '"q 1"\t"d1"\t"1"', "a field in quotes contains white space"),
        ("tsv", '"q 1" d1 1', "a field in quotes contains white space"),
        ("tsv", '""\t"d1"\t1', "the query has no id"),
        ("jsonl", '{"qid": "q 1", "docid": "d1", "score": 1}', "the id 'q 1' contains white space"),
    ],
)
@pytest.mark.parametrize("header", [False, True])
def test_ids_are_checked_alike_in_every_format(tmp_path, name, line, problem, header):
    names = {"csv": "qid,docid,score\n", "tsv": "qid\tdocid\tscore\n"}.get(name, "\n") if header else ""
    (tmp_path / f"test.{name}").write_text(f"{names}{line}\n", encoding="utf-8")
    if header and "\t" in line:
        problem = problem.replace("a field in quotes contains", "the id 'q 1' contains")
    with pytest.raises(DataError, match=rf"test\.{name}:{1 + header}: {problem}"):
        read_qrels(tmp_path / f"test.{name}")


@pytest.mark.parametrize("line", ["q1 0 d1", "q1", "q1 0 d1 1 2", "q1\td1\t1\t2\t3"])
def test_a_line_of_another_shape_is_named(tmp_path, line):
    (tmp_path / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\nq1\td1\t1\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"test\.tsv:3: .* is not a (judgment|whole number)\. Write "):
        read_qrels(tmp_path / "test.tsv")
    (tmp_path / "test.tsv").write_text(f"{line}\nq1\td1\t1\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"test\.tsv:1: .* is not a (judgment|whole number)\. Write "):
        read_qrels(tmp_path / "test.tsv")
