"""Whatever stands in a file, the readers raise nothing but PdadaptError, and what they accept is sound."""

import contextlib
import gzip
import io
import json

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pdadapt.data.columns import FIELD_NAMES
from pdadapt.data.documents import read_corpus
from pdadapt.data.queries import read_queries
from pdadapt.data.run_file import read_run, write_run
from pdadapt.data.trec import read_qrels
from pdadapt.errors import PdadaptError
from pdadapt.labeling.exchange import LABEL_COLUMNS, import_labels, read_label_rows
from pdadapt.labeling.store import LabelStore, is_labeled
from pdadapt.settings.prompt import POINT_FIELDS, load_prompt
from pdadapt.settings.recipes import all_settings, load_recipe, parse_override
from pdadapt.settings.schema import Recipe

fuzz = settings(
    max_examples=250,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

ROWS = [{"_id": "d1", "title": "Rim", "text": "a hoop"}, {"id": 2, "contents": "Öl 日本 🚲", "title": None}]
LABELS = [
    {"query": "q", "document": "d", "score": 1.5, "query_id": "1", "teacher": {"task": "point"}},
    {"task": "pair", "query": "q", "document": "d", "document_b": "e", "score": -2, "doc_id": 7, "teacher": "{}"},
]
RECIPE = """# mine
base: small
student: {model: ./x, query_length: 32}
train: {learning_rate: 1.0e-5, steps: null, report_to: []}
teacher: {point: {labels: ["Yes", "No"]}, pair: &pair {per_query: 4, order: both}}
evaluate: {measures: [nDCG@10, 'R@100']}
"""


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(rows):
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


def read_documents(file):
    corpus = read_corpus(file)
    for document in corpus:
        assert document.doc_id.split() == [document.doc_id] and corpus[document.doc_id] == document
        assert b"\0" not in document.contents.encode()
    assert len({document.doc_id for document in corpus}) == len(corpus) > 0


def read_questions(file):
    for query_id, text in read_queries(file).items():
        assert query_id.split() == [query_id] and text.strip() and b"\0" not in text.encode()


def read_judgments(file):
    assert all(isinstance(grade, int) for judged in read_qrels(file).values() for grade in judged.values())


def read_ranking(file):
    ranking = read_run(file)
    write_run(file, ranking.items(), "tag")
    again = read_run(file)
    assert again.keys() == ranking.keys() and all(len(again[query]) == len(ranking[query]) for query in ranking)


def read_settings(file):
    Recipe.model_validate_json(load_recipe(str(file)).model_dump_json())


def read_prompt(file):
    load_prompt(str(file), POINT_FIELDS).render({"query": "q", "document": "d"})


def take_labels(file):
    store = file.with_name("taken.sqlite")
    try:
        count = import_labels(file, store, None)
        assert 0 < len(list(read_label_rows(store))) <= count
    finally:
        for left in file.parent.glob("taken.sqlite*"):
            left.unlink()


def read_store(file):
    is_labeled(file, "key")


def store(folder):
    with LabelStore(folder / "labels.sqlite", "points", "key") as labels:
        labels.add([(("q", "d"), 1.0)])
    return (folder / "labels.sqlite").read_bytes()


FILES = {
    "docs.jsonl": (jsonl(ROWS), read_documents),
    "docs.tsv": ("d1\ta hoop\tRim\nd2\tÖl 日本\n".encode(), read_documents),
    "docs.csv": ('_id,title,text\nd1,Rim,"a, hoop"\nd2,,"Öl ""日本""\nx"\n'.encode(), read_documents),
    "docs.parquet": (parquet([{"_id": "d1", "text": "a hoop"}, {"_id": "d2", "text": "Öl"}]), read_documents),
    "asked.txt": ("what is a rim\n\nÖl?\n".encode(), read_questions),
    "asked.tsv": (b"q1\twhat is a rim\nq2\toil\n", read_questions),
    "asked.jsonl": (jsonl([{"_id": "q1", "text": "a rim?", "answers": ["hoop", 3]}]), read_questions),
    "qrels.tsv": (b"query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n#\n\nq2 d1 -1\n", read_judgments),
    "test.qrels": (b"q1 0 d1 2.0\nq1 0 d2 +1\n# a comment\n#q2 0 d1 -1\n", read_judgments),
    "qrels.csv": (b"qid,docno,relevance\nq1,d1,1\n", read_judgments),
    "qrels.jsonl": (jsonl([{"query_id": "q1", "Doc-ID": 7, "score": 1.0}]), read_judgments),
    "qrels.parquet": (parquet([{"query-id": "q1", "corpus-id": "d1", "score": 1}]), read_judgments),
    "header.tsv": ("\ufeffDocID\ttitle\ttext\nd1\tRim\ta hoop\td\n".encode(), read_documents),
    "quoted.tsv": (b'"d1"\t"a ""hoop"""\t"Rim"\nd2\t"Oil"\t""\n', read_documents),
    "wide.tsv": ("d1\ta hoop\nd2\tÖl\n".encode("utf-16"), read_documents),
    "mine.run": (b"q1 Q0 d1 1 2.5 tag\nq1 Q0 d2 2 -1e-3 tag\nq2 Q0 d1 1 0 tag\n", read_ranking),
    "mine.yaml": (RECIPE.encode(), read_settings),
    "own.txt": (b"Relevant?\n{query}\n{document}\n", read_prompt),
    "labels.jsonl": (jsonl(LABELS), take_labels),
    "labels.parquet": (
        parquet([{"task": None, "document_b": None, **row, "teacher": "{}"} for row in LABELS]),
        take_labels,
    ),
}
PACKED = {f"{name}.gz": content for name, content in FILES.items() if name.startswith(("docs.j", "asked.t", "docs.c"))}
ODD = [
    *(b"\0", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xe2\x80\xa8", b"\x85", b"\x0b"),
    *(b"\r", b"\n", b"\t", b" ", b'"', b"'", b"{", b"}", b"[", b"]", b",", b":", b"-", b"&a", b"*a", b"!!bool x"),
    *(b"!!binary x", b"? ", b"<<: ", b"NaN", b"1e999", b"-", b"null", b"true", b"\\ud800", b"9" * 5_000, b"[" * 2_000),
    *(b"2026-99-99", b"0x_", b"1:99", "²".encode(), "٣".encode()),
]  # fmt: skip


@st.composite
def mutated(draw, content):
    """The content after some edits: bytes replaced, removed, doubled, cut off."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 8)))
        piece = draw(st.sampled_from([*ODD, content[start:end] * 2, b""]) | st.binary(max_size=4))
        content = content[:start] + piece + content[end:]
    return content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content


def read(file, content, reader):
    file.write_bytes(content)
    with contextlib.suppress(PdadaptError):
        reader(file)


@pytest.mark.parametrize("name", FILES)
def test_fuzzed_files_are_valid_before_edits(name, tmp_path):
    content, reader = FILES[name]
    (tmp_path / name).write_bytes(content)
    reader(tmp_path / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
@fuzz
@given(data=st.data())
def test_files_with_edits_and_bytes_at_random(name, tmp_path, data):
    content, reader = FILES[name]
    read(tmp_path / name, data.draw(mutated(content) | st.binary(max_size=200)), reader)


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKED)
@fuzz
@given(data=st.data(), inside=st.booleans())
def test_packed_files_with_edits(name, tmp_path, data, inside):
    content, reader = PACKED[name]
    broken = (
        gzip.compress(data.draw(mutated(content)), mtime=0)
        if inside
        else data.draw(mutated(gzip.compress(content, mtime=0)))
    )
    read(tmp_path / name, broken, reader)


@pytest.mark.slow
@fuzz
@given(data=st.data())
def test_label_stores_with_edits(tmp_path, data):
    if not (tmp_path / "labels.sqlite").exists():
        store(tmp_path)
    whole = (tmp_path / "labels.sqlite").read_bytes()
    read(tmp_path / "broken.sqlite", data.draw(mutated(whole) | st.binary(max_size=200)), read_store)


ODD_JSON = {"<deep>": b"[" * 2_000 + b"]" * 2_000, "<long>": b"9" * 5_000, "<large>": b"9" * 400, "<rate>": b"1e999"}
letters = st.text(st.characters(codec=None), max_size=5)  # halves of surrogate pairs too
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | letters | st.sampled_from(["q", "d", "", *ODD_JSON]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(letters, inner, max_size=3),
    max_leaves=4,
)


def rows_of(*keys):
    return st.lists(st.dictionaries(st.sampled_from(keys), values), min_size=1, max_size=4).map(written)


def written(rows):
    """As JSONL, with what no Python value is written as."""
    content = jsonl(rows)
    for mark, odd in ODD_JSON.items():
        content = content.replace(json.dumps(mark).encode(), odd)
    return content


@pytest.mark.slow
@pytest.mark.parametrize("reader", [read_documents, read_questions])
@fuzz
@given(
    rows=rows_of(
        *FIELD_NAMES["document"]["id"][:3], *FIELD_NAMES["query"]["text"][:4], "title", "answers", "Doc-ID", "TEXT"
    )
)
def test_json_of_any_values(reader, tmp_path, rows):
    read(tmp_path / "x.jsonl", rows, reader)


@pytest.mark.slow
@fuzz
@given(rows=rows_of(*LABEL_COLUMNS))
def test_labels_of_any_values(tmp_path, rows):
    read(tmp_path / "labels.jsonl", jsonl(LABELS[:1]) + rows, take_labels)


fields = st.sampled_from(["q", "Q0", "0", "1", "-1", "--1", "²", "1e9", "nan", "1_0", "9" * 5_000, "d"]) | letters


@pytest.mark.slow
@fuzz
@given(lines=st.lists(st.lists(fields, min_size=2, max_size=7)))
def test_lines_of_any_fields(tmp_path, lines):
    content = "\n".join(map(" ".join, lines)).encode("utf-8", "surrogatepass")
    read(tmp_path / "qrels.tsv", b"q d 1\n" + content, read_judgments)
    read(tmp_path / "mine.run", content, read_ranking)


@pytest.mark.slow
@fuzz
@given(overrides=st.dictionaries(st.sampled_from([key for key, *_ in all_settings()]) | letters, values, max_size=3))
def test_settings_of_any_values(overrides):
    with contextlib.suppress(PdadaptError):
        Recipe.model_validate_json(load_recipe("paper", overrides).model_dump_json())


@pytest.mark.slow
@fuzz
@given(text=st.text())
def test_overrides_of_any_text(text):
    for override in (text, f"train.steps={text}"):
        with contextlib.suppress(PdadaptError):
            load_recipe("paper", dict([parse_override(override)]))
