"""Corpora by name: ir_datasets reads small archives in the layout of the real ones, from its folder."""

import io
import os
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pdadapt.cli.main import app
from pdadapt.data.catalog import CQADUPSTACK_FORUMS, find_entry, load_named
from pdadapt.data.corpus import Document
from pdadapt.data.load import load_dataset
from pdadapt.errors import DataError
from pdadapt.pipeline import adapt
from pdadapt.runtime.progress import Progress
from pdadapt.settings.recipes import load_recipe

CORPUS = '{"_id": "d1", "title": "", "text": "rim spoke"}\n{"_id": "d2", "title": "", "text": "pad rotor"}\n'
QUERIES = '{"_id": "q1", "text": "rim"}\n{"_id": "q2", "text": "pad"}\n{"_id": "q3", "text": "hub"}\n'
HEAD = "query-id\tcorpus-id\tscore\n"


@pytest.fixture(scope="module")
def home():
    """The archives of FiQA, ArguAna and MS MARCO where ir_datasets looks for them, with two or three lines each."""
    home = Path(os.environ["IR_DATASETS_HOME"])
    judged = {"train": "q2\td2\t1\n", "dev": "q3\td1\t1\n", "test": "q1\td1\t2\nq1\td2\t0\n"}
    for name, splits in (("fiqa", ("train", "dev", "test")), ("arguana", ("test",))):
        (home / "beir" / name).mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(home / "beir" / name / "source.zip", "w") as archive:
            archive.writestr(f"{name}/corpus.jsonl", CORPUS)
            archive.writestr(f"{name}/queries.jsonl", QUERIES)
            for split in splits:
                archive.writestr(f"{name}/qrels/{split}.tsv", HEAD + judged[split])
    (home / "beir" / "nq").mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(home / "beir" / "nq" / "source.zip", "w") as archive:
        blank = '{"_id": "d%s", "title": "", "text": " "}\n'
        archive.writestr("nq/corpus.jsonl", blank % 0 + CORPUS.replace("\n", "\n" + blank % 9, 1))
        archive.writestr("nq/queries.jsonl", QUERIES.replace('"hub"', '""'))
        archive.writestr("nq/qrels/test.tsv", HEAD + "q1\td1\t1\nq1\td9\t1\nq3\td1\t1\nq7\td1\t1\n")
    marco = home / "msmarco-passage"
    (marco / "train").mkdir(parents=True, exist_ok=True)
    (marco / "train" / "qrels").write_text("7\t0\t1\t1\n", encoding="utf-8")
    pack(marco / "queries.tar.gz", {"queries.train.tsv": "7\twhat is a rim\n8\twhat is a pad\n"})
    collection = {"collection.tsv": "0\tpad rotor\n1\trim spoke\n", "queries.dev.small.tsv": "9\twhat is a hub\n"}
    pack(marco / "collectionandqueries.tar.gz", collection | {"qrels.dev.small.tsv": "9\t0\t1\t1\n"})
    return home


def pack(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))


def test_a_beir_set_is_adapted_on_train_and_tested_on_test(home):
    dataset = load_dataset("fiqa")
    assert list(dataset.corpus) == [Document("d1", "", "rim spoke"), Document("d2", "", "pad rotor")]
    assert dataset.corpus["d2"].text == "pad rotor" and dataset.corpus.documents[1].doc_id == "d2"
    assert dataset.corpus.documents[:1] == [Document("d1", "", "rim spoke")]
    assert dataset.queries == {"q2": "pad"} and dataset.test_queries == {"q1": "rim"}
    assert dataset.qrels == {"q1": {"d1": 2, "d2": 0}} and dataset.train_qrels == {"q2": {"d2": 1}}
    assert dataset.summary == (
        "fiqa: 2 documents; 1 queries to adapt on (the text of beir/fiqa/train); 1 to test on (beir/fiqa/test)."
    )
    assert set(load_dataset("fiqa", split="dev").test_queries) == {"q3"}
    assert load_dataset("beir/fiqa/test").queries == dataset.queries


def test_blank_texts_of_a_named_set_are_left_out_and_counted(home):
    dataset = load_dataset("nq")
    kept = [Document("d1", "", "rim spoke"), Document("d2", "", "pad rotor")]
    documents = dataset.corpus.documents
    assert list(dataset.corpus) == documents[:] == documents[0:9] == kept and documents[1:] == kept[1:]
    assert [documents[0], documents[1], documents[-1]] == [dataset.corpus["d1"], *documents[::-1][:1], kept[1]]
    assert "d0" not in dataset.corpus and dataset.test_queries == {"q1": "rim"}
    assert dataset.notices.sentences == [
        "Left out 1 blank query: beir/nq: query 'q3'.",
        "Left out 2 blank documents: beir/nq: document 'd0' (and 1 more).",
        "beir/nq: 2 of 3 judged queries have no text and are left out: 'q3' and 1 more.",
        "beir/nq: 1 of 2 judged documents are missing from the corpus: 'd9'.",
    ]
    assert load_dataset("nq").corpus.fingerprint == dataset.corpus.fingerprint
    with pytest.raises(DataError, match=r"^beir/nq: query 'q3': the query is blank\. Write"):
        load_dataset("nq", strict=True)


def test_a_set_of_test_queries_only_brings_none_to_adapt_on(home):
    dataset = load_dataset("arguana")
    assert not dataset.queries and set(dataset.test_queries) == {"q1"}


def test_ms_marco_by_name_has_labeled_and_unlabeled_queries(home):
    dataset = load_dataset("msmarco")
    assert [document.doc_id for document in dataset.corpus] == ["0", "1"]
    assert dataset.queries == {"7": "what is a rim", "8": "what is a pad"} and dataset.train_qrels == {"7": {"1": 1}}
    assert dataset.test_queries == {"9": "what is a hub"} and dataset.qrels == {"9": {"1": 1}}


@pytest.mark.parametrize(
    ("name", "documents", "test"),
    [
        ("dl19", "msmarco-passage", {"": "msmarco-passage/trec-dl-2019/judged"}),
        ("lotte/pooled/search", "lotte/pooled/test", {"": "lotte/pooled/test/search"}),
        ("touche2020", "beir/webis-touche2020/v2", {"": "beir/webis-touche2020/v2"}),
        ("cqadupstack/gis", "beir/cqadupstack/gis", {"": "beir/cqadupstack/gis"}),
    ],
)
def test_catalog_knows_the_names_of_the_field(name, documents, test):
    assert find_entry(name)[:2] == (documents, test)


def test_open_domain_questions_are_adapted_on_their_own_train_split():
    assert find_entry("nq-open").training_ids[0] == "dpr-w100/natural-questions/train"
    assert find_entry("quora").training_ids == ("beir/quora/dev",)


@pytest.mark.parametrize(
    ("name", "split", "problem"),
    [
        ("fiqaa", "test", r"not found\. Did you mean 'fiqa'"),
        ("cqadupstack", "test", r"several corpora \(.*beir-18.*\)\. Choose one of them: beir/cqadupstack/android, "),
        ("fiqa", "tset", r"no judgments for split 'tset'\. Pass one .*--split \(evaluate\.split\): dev, test, train\."),
        ("bioasq", "test", r"is licensed.*participants-area\.bioasq\.org.*corpus\.jsonl"),
    ],
)
def test_catalog_name_without_a_meaning_is_refused(home, name, split, problem):
    with pytest.raises(DataError, match=problem):
        load_dataset(name, split=split)


def test_without_the_network_the_file_and_its_place_are_said(home, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("IR_DATASETS_DL_TRIES", "1")
    place = home / "beir" / "scifact" / "source.zip"
    with pytest.raises(DataError, match=rf"Download https://\S+scifact\.zip on .* network, put it at {place} "):
        load_named("scifact")


@pytest.mark.slow
def test_adaptation_reads_no_judgment(beir, tiny_recipe, tmp_path):
    class Sealed(dict):
        """Judgments that may be read when training is over."""

        def __getitem__(self, query_id):
            assert (tmp_path / "run" / "iteration-1" / "checkpoint").is_dir(), "judgments read before the end"
            return super().__getitem__(query_id)

        get = items = values = __getitem__

    def untouchable():
        raise AssertionError("training judgments read")

    dataset = load_dataset(str(beir))
    sealed = replace(dataset, qrels=Sealed(dataset.qrels), read_train_qrels=untouchable)
    metrics = adapt(load_recipe(str(tiny_recipe), {"train.steps": 1}), sealed, tmp_path / "run", Progress())
    assert metrics.measures["nDCG@10"].means


def test_the_list_says_how_many_queries_there_are():
    result = CliRunner().invoke(app, ["datasets"], env={"COLUMNS": "100"})
    rows = {line.split()[0]: line.split()[1:] for line in result.output.splitlines() if line.strip()}
    assert rows["fiqa"] == ["57,638", "5,500", "dev", "500,", "test", "648", "fiqa"]
    assert rows["dl19"] == ["8,841,823", "808,731", "test", "43"]
    assert rows["bioasq"] == ["licensed", "bioasq"]
    assert len([name for name in rows if name.startswith("cqadupstack/")]) == len(CQADUPSTACK_FORUMS) == 12
