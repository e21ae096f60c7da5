"""Encodings of text files, and files whose names are not UTF-8."""

import gzip
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pdadapt.data.corpus import Document
from pdadapt.data.documents import read_corpus
from pdadapt.data.load import load_dataset
from pdadapt.data.queries import read_queries
from pdadapt.data.run_file import read_run
from pdadapt.data.trec import read_qrels
from pdadapt.errors import DataError, RunError, explain
from pdadapt.labeling.exchange import import_labels, read_label_rows
from pdadapt.runs.folder import RunFolder
from pdadapt.runtime.files import write_atomic
from pdadapt.settings.schema import Recipe

CAFE = os.fsdecode(b"caf\xe9")


def has_one_document(file):
    return [found.text for found in read_corpus(file)] == ["Öl 日本"]


def has_one_label(file):
    store = file.with_name("labels.sqlite")
    return import_labels(file, store, "me") == 1 and [row["document"] for row in read_label_rows(store)] == ["日本"]


READERS = {
    "c.jsonl": ('{"_id": "d1", "text": "Öl 日本"}\n', has_one_document),
    "c.tsv": ("d1\tÖl 日本\n", has_one_document),
    "c.csv": ("id,text\nd1,Öl 日本\n", has_one_document),
    "q.txt": ("Öl 日本\n", lambda file: read_queries(file) == {"q1": "Öl 日本"}),
    "q.tsv": ("Ö1\tÖl 日本\n", lambda file: read_queries(file) == {"Ö1": "Öl 日本"}),
    "test.tsv": ("qÖ\td日\t1\n", lambda file: read_qrels(file) == {"qÖ": {"d日": 1}}),
    "x.run": ("qÖ Q0 d日 1 2.0 Öl\n", lambda file: read_run(file) == {"qÖ": [("d日", 2.0)]}),
    "l.jsonl": ('{"query": "Öl", "document": "日本", "score": 1}\n', has_one_label),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", READERS)
def test_a_byte_order_mark_says_what_a_file_is(tmp_path, name, encoding, packed):
    text, is_read = READERS[name]
    content = text.replace("\n", "\r\n").encode(encoding)
    file = tmp_path / f"{name}{'.gz' * packed}"
    file.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    assert is_read(file)


@pytest.mark.subprocess
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", READERS)
def test_another_encoding_is_named_with_the_line_and_a_command_that_mends_it(tmp_path, name, encoding, packed):
    text, is_read = READERS[name]
    text = text.replace("日本", "„x“" if encoding == "cp1252" else "ä").replace("日", "ü")
    content = (text.replace("Ö", "O") + text).encode(encoding)
    folder = tmp_path / "a folder"
    folder.mkdir()
    file = folder / f"{name}{'.gz' * packed}"
    file.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    with pytest.raises(DataError) as raised:
        is_read(file)
    message = str(raised.value)
    if "NUL" in message:
        assert encoding.startswith("utf-16") and "iconv -f utf-16le -t utf-8 OLD > NEW" in message
        return
    assert f"{file}:" in message and "not UTF-8 text" in message and shlex.quote(str(file)) in message
    command = (
        message.partition("If it is text, convert it: ")[2]
        .removesuffix(".")
        .replace("NEW", shlex.quote(f"{tmp_path}/{file.name}"))
    )
    subprocess.run(["bash", "-c", command], check=True)
    mended = (tmp_path / file.name).read_bytes()
    assert (gzip.decompress(mended) if packed else mended).decode() == text.replace("Ö", "O") + text


def test_carriage_returns_end_lines(tmp_path):
    (tmp_path / "c.tsv").write_bytes(b"id\ttext\rd1\trim\rd2\tpad\r")
    corpus = read_corpus(tmp_path / "c.tsv")
    assert list(corpus) == [Document("d1", "", "rim"), Document("d2", "", "pad")] and corpus["d2"].text == "pad"


def test_files_whose_names_are_not_utf_8_are_documents(tmp_path):
    for name in (f"{CAFE}.txt", "caf%E9.txt", "a b\n.md", "é.txt.GZ"):
        (tmp_path / name).write_bytes(gzip.compress(b"gz", mtime=0) if name.endswith("GZ") else b"rim")
    dataset = load_dataset(str(tmp_path))
    assert sorted(document.doc_id for document in dataset.corpus) == [
        "a%20b%0A.md",
        "caf%25E9.txt",
        "caf%E9.txt",
        "é.txt",
    ]
    assert all(document.doc_id in dataset.corpus for document in dataset.corpus)


def test_two_files_that_would_be_one_document_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("rim", encoding="utf-8")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"pad", mtime=0))
    with pytest.raises(DataError, match=r"a\.txt\.gz: duplicate document id 'a\.txt'"):
        load_dataset(str(tmp_path))


def pdadapt(folder, *arguments):
    command = [sys.executable, "-m", "pdadapt", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    found = subprocess.run(command, cwd=folder, capture_output=True, env=environment)
    return found.returncode, (found.stdout + found.stderr).decode(errors="backslashreplace")


@pytest.fixture
def cafe(beir, tmp_path):
    """A BEIR folder, queries and qrels whose names are not UTF-8, one of the documents blank."""
    folder = tmp_path / CAFE
    (folder / "qrels").mkdir(parents=True)
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        (folder / name).write_bytes((beir / name).read_bytes())
    with open(folder / "corpus.jsonl", "a", encoding="utf-8") as corpus:
        corpus.write('{"_id": "blank", "text": ""}\n')
    (tmp_path / f"{CAFE}.jsonl").write_bytes((beir / "queries.jsonl").read_bytes())
    (tmp_path / f"{CAFE}.tsv").write_bytes((beir / "qrels" / "test.tsv").read_bytes())
    return folder


@pytest.mark.subprocess
def test_paths_that_are_not_utf_8_are_measured_with(cafe, tmp_path):
    own = ("--qrels", f"{CAFE}.tsv", "--queries", f"{CAFE}.jsonl", "--out", f"{CAFE}-out", "--json", f"{CAFE}.json")
    code, said = pdadapt(tmp_path, "evaluate", "--corpus", CAFE, "--model", "bm25", *own)
    assert code == 0 and r"caf\xe9: 18 test queries" not in said and "blank document" in said, said
    assert r"caf\xe9: 6 test queries, 20 documents" in said
    run = f"{CAFE}-out/bm25.run"
    code, said = pdadapt(tmp_path, "evaluate", "--run", run, "--against", run, "--qrels", f"{CAFE}.tsv", "--out", "x")
    assert code == 0, said
    for line in (
        ("search", "bm25", "rim", "--corpus", f"{CAFE}/no.jsonl"),
        ("evaluate", "--corpus", CAFE, "--run", f"{CAFE}.run"),
        ("evaluate", "--corpus", CAFE, "--model", f"./{CAFE}-model"),
        ("labels", "show", CAFE, "--query", CAFE),
    ):
        code, said = pdadapt(tmp_path, *line)
        last = said.strip().splitlines()[-1]
        assert code == 1 and last.startswith("Error: ") and "unexpected" not in said, said


@pytest.mark.subprocess
def test_adapt_names_a_corpus_whose_path_is_not_utf_8(cafe, tiny_recipe, tmp_path):
    options = ("--corpus", CAFE, "--recipe", str(tiny_recipe), "--set", "train.steps=1")
    code, said = pdadapt(tmp_path, "adapt", *options, "--out", "run")
    assert code == 0, said
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert r"caf\xe9: 20 documents" in report and "blank document" in report
    code, said = pdadapt(tmp_path, "adapt", *options, "--out", f"{CAFE}-run")
    assert code == 1 and "the name is not UTF-8, so no model can be saved there. Choose another --out" in said
    assert not (tmp_path / f"{CAFE}-run").exists()


def test_names_that_are_not_utf_8_are_explained_in_one_sentence(tmp_path):
    with pytest.raises(UnicodeEncodeError) as raised:
        CAFE.encode()
    assert explain(raised.value) == (
        r"'caf\udce9' holds bytes that are not UTF-8. Rename the file or folder. Finished work is kept."
    )
    write_atomic(tmp_path / "x", f"{CAFE}\n")
    assert (tmp_path / "x").read_text(encoding="utf-8") == "caf\\udce9\n"
    with pytest.raises(RunError, match="the name is not UTF-8"):
        RunFolder(Path(CAFE)).check(Recipe(), {})
