"""Records that stay on disk."""

import gzip
import json

import pytest

from pdadapt.data.corpus import Document
from pdadapt.data.documents import read_corpus
from pdadapt.data.records import LineFile, read_rows, read_text
from pdadapt.errors import DataError

TEXTS = ["plain", "", "Umlaute äöü ß", "日本語 🚲", "a\u2028b \x0b c", "tabs are spaces here", "x" * 5000]


def write(tmp_path, rows, name="docs.jsonl"):
    file = tmp_path / name
    file.write_bytes(b"".join(row if isinstance(row, bytes) else row.encode() for row in rows))
    return file


def rows(texts):
    return [json.dumps({"_id": f"d{i}", "text": text}, ensure_ascii=False) + "\n" for i, text in enumerate(texts)]


@pytest.mark.parametrize("break_with", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n\n"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_records_are_read_one_by_one_and_by_number_alike(tmp_path, break_with, start, end):
    lines = break_with.join(row.rstrip("\n") for row in rows(TEXTS))
    file = write(tmp_path, [start + lines + end])
    records = LineFile(file, read_text)
    assert list(records.read()) == TEXTS
    assert [records[i] for i in range(len(records))] == TEXTS
    assert records[-1] == TEXTS[-1] and records[1:3] == TEXTS[1:3]


def test_a_corpus_on_disk_is_the_corpus_in_memory(tmp_path):
    plain = write(tmp_path, rows(TEXTS))
    packed = tmp_path / "docs.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
    on_disk, in_memory = read_corpus(plain), read_corpus(packed)
    assert list(on_disk) == list(in_memory) == [Document(f"d{i}", "", text) for i, text in enumerate(TEXTS) if text]
    assert on_disk["d3"] == in_memory["d3"] == Document("d3", "", TEXTS[3])
    assert "d3" in on_disk and "d99" not in on_disk
    assert on_disk.sample(3) == in_memory.sample(3)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("Umlaut ä".encode("latin-1") + b"\n", r"docs\.jsonl:3: not UTF-8 text"),
        ("[1]\n", r"docs\.jsonl:3: a list is not a JSON object"),
        ('{"_id": "x"\n', r"docs\.jsonl:3: not valid JSON"),
        ('{"_id": "d0", "text": "again"}\n', r"d0"),
        ('{"text": "no id"}\n', r"docs\.jsonl:3: the document has no id"),
    ],
)
def test_a_bad_line_is_named(tmp_path, bad, message):
    with pytest.raises(DataError, match=message):
        read_corpus(write(tmp_path, [*rows(TEXTS[:2]), bad]))


def test_a_csv_whose_fields_are_parted_by_semicolons_is_said_so(tmp_path):
    file = tmp_path / "excel.csv"
    file.write_text("id;title;text\nd1;Rad;läuft unrund\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"excel\.csv:1: the columns are separated by `;`\. Save the file with commas"):
        list(read_rows(file, "document"))
