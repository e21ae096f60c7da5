"""Bad corpora: files of every format, documents, ids and texts."""

import gzip

import pytest

from bad_input.harness import ADAPT, Case, corpus, cut, document, more, other_corpus

MESSAGES = "messages/data.txt"
CASES = {
    "corpus that is not there": Case("adapt --corpus nowhere.jsonl --recipe tiny.yaml", names="nowhere.jsonl"),
    "corpus without a name": Case("adapt --corpus '' --recipe tiny.yaml --out out", names="''"),
    "corpus' name mistyped": Case("adapt --corpus scifcat --recipe tiny.yaml", names="'scifcat' scifact"),
    "corpus whose name is too long": Case(ADAPT.replace("data", "a" * 300), names="'aaa"),
    "corpus that is licensed": Case(ADAPT.replace("data", "bioasq"), names="'bioasq'"),
    "dataset that the hub does not have": Case(ADAPT.replace("data", "hf:nowhere/none"), names="hf:nowhere/none"),
    "corpus of another format": Case(ADAPT.replace("data", "a.docx"), {"a.docx": "x"}, names="a.docx"),
    "folder without documents": Case(ADAPT.replace("data", "empty"), {"empty/x.pdf": "x"}, names="empty corpus.jsonl"),
    "folder with a binary text file": Case(
        ADAPT.replace("data", "notes"), {"notes/a.txt": b"\xff\xfe\x00"}, names="notes/a.txt"
    ),
    "folder with NUL in a text file": Case(ADAPT.replace("data", "notes"), {"notes/a.txt": "a\0"}, names="notes/a.txt"),
    "empty corpus": Case(ADAPT, {"data/corpus.jsonl": ""}, names="data/corpus.jsonl"),
    "binary corpus": Case(ADAPT, {"data/corpus.jsonl": b"\x89PNG\xff"}, names="data/corpus.jsonl:1"),
    "corpus in Latin-1": Case(
        ADAPT,
        {"data/corpus.jsonl": lambda old: old + '{"_id": "x", "text": "Öl"}'.encode("latin-1")},
        names="data/corpus.jsonl:21",
    ),
    "corpus in UTF-16 without a mark": Case(
        ADAPT, other_corpus("corpus.tsv", "d1\trim\nd2\tpad\n".encode("utf-16-le")), names="data/corpus.tsv:1"
    ),
    "truncated gzip": Case(
        ADAPT,
        other_corpus("corpus.jsonl.gz", cut(gzip.compress(b'{"_id": "d1", "text": "rim"}'))),
        names="data/corpus.jsonl.gz",
    ),
    "gzip that is none": Case(ADAPT, other_corpus("corpus.jsonl.gz", "{}"), names="data/corpus.jsonl.gz Not"),
    "gzip of another encoding": Case(
        ADAPT, other_corpus("corpus.jsonl.gz", gzip.compress(b"\xff")), names="data/corpus.jsonl.gz:1"
    ),
    "broken JSON": Case(ADAPT, {"data/corpus.jsonl": more('{"_id": "x"')}, names="data/corpus.jsonl:21"),
    "JSON array": Case(ADAPT, {"data/corpus.jsonl": more('[{"_id": "x"}]')}, names="data/corpus.jsonl:21"),
    "JSON number without end": Case(
        ADAPT, {"data/corpus.jsonl": more('{"_id": ' + "1" * 5_000 + "}")}, names="data/corpus.jsonl:21"
    ),
    "JSON too deep": Case(ADAPT, {"data/corpus.jsonl": more('{"_id": ' + "[" * 99_999)}, names="data/corpus.jsonl:21"),
    "document id twice": Case(ADAPT, document(_id="d3"), names="data/corpus.jsonl:21 'd3'"),
    "document without an id": Case(ADAPT, document(_id=""), names="data/corpus.jsonl:21"),
    "document without a text": Case(
        ADAPT, {"data/corpus.jsonl": more('{"_id": "d90", "title": "rim"}')}, names="data/corpus.jsonl:21"
    ),
    "document whose text is a number": Case(ADAPT, document(text=42), names="data/corpus.jsonl:21"),
    "document whose text is a list": Case(ADAPT, document(text=["rim"]), names="data/corpus.jsonl:21"),
    "document whose text is true": Case(ADAPT, document(text=True), names="data/corpus.jsonl:21"),
    "JSON with a raw NUL byte": Case(
        ADAPT, {"data/corpus.jsonl": more('{"_id": "x", "text": "a\0b"}')}, names="data/corpus.jsonl:21"
    ),
    "id with a space": Case(ADAPT, document(_id="a b"), names="data/corpus.jsonl:21"),
    "id with a tab": Case(ADAPT, document(_id="a\tb"), names="data/corpus.jsonl:21 'a\\tb'"),
    "id with a newline": Case(ADAPT, document(_id="a\nb"), names="data/corpus.jsonl:21 'a\\nb'"),
    "id with a NUL byte": Case(ADAPT, document(_id="a\0b"), names="data/corpus.jsonl:21"),
    "id that is a list": Case(ADAPT, document(_id=["a"]), names="data/corpus.jsonl:21"),
    "id that is a fraction": Case(ADAPT, document(_id=1.0), names="data/corpus.jsonl:21"),
    "text with a NUL byte": Case(ADAPT, document(text="a\0b"), names="data/corpus.jsonl:21"),
    "text with half a letter": Case(ADAPT, document(text="\ud83d"), names="data/corpus.jsonl:21"),
    "title that is a list": Case(ADAPT, document(title=["a"]), names="data/corpus.jsonl:21"),
    "document of 50 MB": Case(ADAPT, document(text="rim " * 12_500_000), names="data/corpus.jsonl:21"),
    "TSV without a tab": Case(ADAPT, other_corpus("corpus.tsv", "d1\trim\nd2\n"), names="data/corpus.tsv:2"),
    "TSV with a column too many": Case(
        ADAPT, other_corpus("corpus.tsv", "d1\trim\tRim\nd2\ta url\tPad\tpad\n"), names="data/corpus.tsv:2"
    ),
    "CSV without a header": Case(ADAPT, other_corpus("corpus.csv", "d1,rim\nd2,pad\n"), names="data/corpus.csv:1"),
    "CSV with a quote left open": Case(
        ADAPT, other_corpus("corpus.csv", 'id,text\nd1,"rim\nd2,pad\n'), names="data/corpus.csv:2"
    ),
    "CSV with more fields than its header": Case(
        ADAPT, other_corpus("corpus.csv", "id,text\nd1,rim,pad\n"), names="data/corpus.csv:2"
    ),
    "Parquet that is none": Case(ADAPT, other_corpus("corpus.parquet", b"PAR1 no"), names="data/corpus.parquet"),
    "corpus of one document": Case(f"{ADAPT} --queries data/queries.jsonl", corpus("rim spoke"), names="'data'"),
    "documents that are all the same": Case(ADAPT, corpus(*["rim spoke"] * 9), names="'data'"),
    "documents that are all blank": Case(ADAPT, corpus("", " ", "\n"), names="data/corpus.jsonl"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_refused_in_one_sentence_and_nothing_changes(name, command_line, golden):
    command_line.refuses(CASES[name], golden(MESSAGES), name)


def test_each_message_has_a_case(golden):
    golden(MESSAGES).check_names(CASES)
