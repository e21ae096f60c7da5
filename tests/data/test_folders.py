"""Which file of a corpus' folder is what, and what the corpus is called."""

import gzip
import io
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from pdadapt.data.load import load_dataset
from pdadapt.errors import DataError

JUDGED = {"q1": {"d1": 2, "d2": 0}}
BEIR = b"query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n"
TREC = b"# by hand\n\nq1 0 d1 2\r\nq1 0 d2 0\r\n"


def parquet():
    file = io.BytesIO()
    rows = [{"query-id": "q1", "corpus-id": doc_id, "score": float(grade)} for doc_id, grade in JUDGED["q1"].items()]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "my.set"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(
        '{"_id": "d1", "text": "rim"}\n{"_id": "d2", "text": "pad"}\n', encoding="utf-8"
    )
    (folder / "queries.tsv").write_text("q1\ta rim\nq2\ta pad\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("qrels/test.tsv", BEIR),
        ("qrels/test.TSV", BEIR),
        ("qrels/test.tsv.gz", gzip.compress(BEIR, mtime=0)),
        ("qrels/test.txt", TREC),
        ("qrels/test.qrels", TREC),
        ("qrels/test", TREC),
        ("qrels/test.csv", BEIR.replace(b"\t", b",")),
        ("qrels/test.jsonl", b'{"qid": "q1", "docid": "d1", "rel": 2}\n{"qid": "q1", "docid": "d2", "rel": 0}\n'),
        ("qrels/test.parquet", parquet()),
        ("qrels.test.tsv", BEIR),
        ("test.qrels", TREC),
        ("qrels.txt", TREC),
        ("qrels.tsv.gz", gzip.compress(BEIR, mtime=0)),
    ],
)
def test_judgments_are_found_whatever_their_format(folder, name, content):
    (folder / name).write_bytes(content)
    (folder / "qrels" / "train.tsv").write_bytes(b"q2\td2\t1\n")
    dataset = load_dataset(str(folder))
    assert dataset.qrels == JUDGED and dataset.qrels_from == name and not dataset.notices.sentences
    assert dataset.queries == {"q2": "a pad"} and dataset.test_queries == {"q1": "a rim"}
    assert dataset.train_qrels == {"q2": {"d2": 1}}


def test_of_two_files_of_a_split_the_plain_tsv_is_read(folder):
    (folder / "qrels" / "test.tsv").write_bytes(BEIR)
    (folder / "qrels" / "test.tsv.gz").write_bytes(b"broken")
    (folder / "qrels" / "test.txt").write_bytes(b"broken")
    assert load_dataset(str(folder)).qrels == JUDGED


def test_a_split_with_a_dot_is_a_split_of_its_own(folder):
    (folder / "qrels" / "dev.small.tsv").write_bytes(BEIR)
    assert load_dataset(str(folder), split="dev.small").qrels == JUDGED
    with pytest.raises(DataError, match=r"has no judgments for split 'dev'\. Pass one .*--split .*: dev\.small\."):
        load_dataset(str(folder), split="dev")


@pytest.mark.parametrize("name", ["qrels/dev.tsv", "qrels.dev.txt", "my.qrels", "qrels/validation.tsv.gz"])
def test_folder_notice_names_judgments_of_another_split(folder, name):
    (folder / name).write_bytes(gzip.compress(BEIR, mtime=0) if name.endswith("gz") else BEIR)
    if "/" not in name:
        (folder / "qrels").rmdir()
    dataset = load_dataset(str(folder))
    assert len(dataset.queries) == 2 and not dataset.qrels
    (said,) = dataset.notices.sentences
    named = Path(name.removeprefix("qrels.")).name.partition(".")[0]
    assert said.startswith(
        f"{folder} has judgments for {named}, but not for split 'test'. Nothing is measured, and all"
    )
    assert load_dataset(str(folder), split=named).qrels == JUDGED, "as the notice advises"
    with pytest.raises(DataError, match=rf"has judgments for {named}, but not for split 'test'\. Use --split"):
        load_dataset(str(folder), strict=True)
    with pytest.raises(DataError, match=rf"has no judgments for split 'other'\. Pass one .*--split .*: {named}\."):
        load_dataset(str(folder), split="other")


NEAR = ["test.tsv", "my-qrels.tsv", "judgments.tsv", "qrel.txt", "Relevance.csv", "qrels.zip", "qrel/test.tsv"]


@pytest.mark.parametrize("name", [*NEAR, "relevance/test.tsv", "qrels/test/0.tsv"])
def test_folder_notice_names_misplaced_judgments_and_its_advice_works(folder, name):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(BEIR)
    (folder / "qrels" / "train.tsv").write_bytes(b"q2\td2\t1\n")
    dataset = load_dataset(str(folder))
    (said,) = dataset.notices.sentences
    shown = name if "/" not in name else str(Path(name).parent)
    rename = "Move the file in it" if "/" in name else "Rename it"
    assert said == (
        f"{folder} has no judgments for split 'test', but these may be judgments: {shown}. Nothing is measured, and "
        f"all queries are used for training. {rename} to qrels/test.tsv, or pass it with --qrels if the command has "
        "that option."
    )
    with pytest.raises(
        DataError, match=rf"these may be judgments: .*\. {rename} to qrels/test\.tsv, or leave out --strict"
    ):
        load_dataset(str(folder), strict=True)
    if name == "qrels/test/0.tsv":
        (folder / "qrels" / "train.tsv").unlink()
        with pytest.raises(DataError, match=r"qrels contains no file of judgments\. Put test\.tsv into it"):
            load_dataset(str(folder))
    file.rename(folder / "qrels" / "test.tsv")
    dataset = load_dataset(str(folder), strict=True)
    assert dataset.qrels == JUDGED and not dataset.notices.sentences


def test_a_split_that_is_asked_for_is_there_or_refused(folder, tmp_path):
    (folder / "qrels").rmdir()
    with pytest.raises(DataError, match=r"my\.set has no judgments for split 'dev'\. Add qrels/dev\.tsv, or leave out"):
        load_dataset(str(folder), split="dev")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("rim", encoding="utf-8")
    for source in (folder / "corpus.jsonl", tmp_path / "notes"):
        assert not load_dataset(str(source)).notices.sentences
        with pytest.raises(DataError, match=r"Corpus '.*' has no judgments for split 'dev'\. Leave out --split"):
            load_dataset(str(source), split="dev")


def test_beir_folder_without_test_judgments_gives_no_notice(folder):
    (folder / "qrels").rmdir()
    assert not load_dataset(str(folder)).notices.sentences
    (folder / "qrels").mkdir()
    (folder / "qrels" / "train.tsv").write_bytes(BEIR)
    (folder / "qrels" / "README.md").write_text("by hand", encoding="utf-8")
    (folder / "qrels.train.tsv.gz").write_bytes(gzip.compress(BEIR, mtime=0))
    assert not load_dataset(str(folder)).notices.sentences


@pytest.mark.parametrize("name", ["test.tsv.bz2", "test.xlsx", "test.tsv.zip"])
def test_judgments_that_cannot_be_read_are_not_passed_over(folder, name):
    (folder / "qrels" / name).write_bytes(b"x")
    with pytest.raises(DataError, match=rf"qrels/{name}: unknown file format\. Use \.tsv"):
        load_dataset(str(folder))


def test_a_corpus_has_the_name_of_its_folder_however_it_is_given(folder, monkeypatch):
    (folder / "qrels" / "train.tsv").write_bytes(b"q2\td2\t1\n")
    monkeypatch.chdir(folder)
    for source in (".", "./", "../my.set/", "qrels/..", str(folder)):
        assert load_dataset(source).name == "my.set"
    monkeypatch.chdir(folder / "qrels")
    assert load_dataset("..").name == "my.set"
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("rim", encoding="utf-8")
    monkeypatch.chdir(folder / "notes")
    assert load_dataset(".").name == "notes"
    assert load_dataset("../corpus.jsonl").name == "corpus"


MS_MARCO = {
    "collection.tsv": "0\tpad rotor\n1\trim spoke\n",
    "queries.train.tsv": "7\twhat is a rim\n",
    "qrels.train.tsv": "7\t0\t1\t1\n",
    "queries.dev.small.tsv": "9\twhat is a hub\n",
    "qrels.dev.small.tsv": "9\t0\t1\t1\n",
}


def test_ms_marcos_splits_are_checked_too(tmp_path):
    for name, text in MS_MARCO.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert load_dataset(str(tmp_path), split="dev.small", strict=True).qrels == {"9": {"1": 1}}
    for split in ("eval", "dev"):
        with pytest.raises(DataError, match=rf"no judgments for split '{split}'\. Pass one .*: dev\.small, train\."):
            load_dataset(str(tmp_path), split=split)
    (tmp_path / "queries.dev.small.tsv").rename(tmp_path / "asked.tsv")
    (said,) = load_dataset(str(tmp_path)).notices.sentences
    assert said.endswith(
        "qrels.dev.small.tsv judges queries whose text is missing. Add queries.dev.small.tsv to measure on them."
    )
    with pytest.raises(DataError, match=r"Add queries\.dev\.small\.tsv, or leave out --split"):
        load_dataset(str(tmp_path), split="dev.small")
    (tmp_path / "qrels.dev.small.tsv").rename(tmp_path / "judged.dev.tsv")
    (said,) = load_dataset(str(tmp_path)).notices.sentences
    assert "has no judgments for split 'dev.small', but these may be judgments: judged.dev.tsv." in said
    (tmp_path / "judged.dev.tsv").rename(tmp_path / "qrels.dev.small.txt.zst")
    with pytest.raises(DataError, match=r"qrels\.dev\.small\.txt\.zst: unknown file format"):
        load_dataset(str(tmp_path))


def test_ms_marcos_files_may_be_packed(tmp_path):
    for name, text in MS_MARCO.items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    dataset = load_dataset(str(tmp_path))
    assert (dataset.qrels, dataset.train_qrels) == ({"9": {"1": 1}}, {"7": {"1": 1}})
    assert dataset.queries == {"7": "what is a rim"} and dataset.corpus["1"].text == "rim spoke"
