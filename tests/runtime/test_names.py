"""Names of files: whatever two things are called, they do not meet."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pdadapt.cli.main import app
from pdadapt.data.load import load_dataset
from pdadapt.data.passages import split_documents
from pdadapt.data.run_file import read_run, write_run
from pdadapt.retrieval.engines.load import index_folder
from pdadapt.runtime.names import MAX_NAME_BYTES, file_names
from pdadapt.settings.schema import RetrieveSettings


def test_names_are_as_plain_as_they_can_be_and_differ():
    assert file_names(["bm25", "colbert-ir/colbertv2.0"]) == ["bm25", "colbert-ir_colbertv2.0"]
    assert file_names(["x", "x"]) == ["x", "x"]
    first, second, third = file_names(["a/b", "a_b", "c"])
    assert first.startswith("a_b-") and second.startswith("a_b-") and first != second and third == "c"
    assert file_names(["a_b", "c", "a/b"]) == [second, third, first], "the same in any order"
    assert file_names(["bm25"], taken=["bm25"])[0].startswith("bm25-")
    assert all(file_names([name])[0] for name in (".", "..", "/", "___", "漢字/模型", "\udcff"))


@given(st.lists(st.text(st.sampled_from("aAbB_/-. é\u0301漢\udcff")), min_size=1, max_size=8, unique=True))
def test_file_names_differ_on_any_file_system(names):
    found = file_names(names)
    assert len({name.casefold() for name in found}) == len(names)
    assert not any("/" in name or not name.strip(".") for name in found)


def test_a_long_name_is_cut_and_still_its_own(tmp_path):
    names = ["/".join(["folder"] * 60 + [end]) for end in "ab"]
    for name in file_names(names):
        assert len(name.encode()) <= MAX_NAME_BYTES + 9
        (tmp_path / f"{name}.run").touch()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_models_whose_names_differ_little_leave_a_run_each(beir, encoder, stanford, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    os.symlink(encoder, "a/b")
    os.symlink(stanford, "a_b")
    command = ["evaluate", "--corpus", str(beir), "--model", "./a/b", "--against", "./a_b", "--no-bm25", "--out", "out"]
    for more in ([], ["--index", "kept"]):
        said = CliRunner().invoke(app, [*command, *more])
        assert said.exit_code == 0, said.output
        runs = [read_run(file) for file in sorted((tmp_path / "out").glob("*.run"))]
        assert len(runs) == 2 and runs[0] != runs[1]
    assert len(list((tmp_path / "kept").glob("*/index.json"))) == 2
    search = ["search", "./a/b", "--corpus", str(beir), "rim hub", "--k", "3", "--index", "kept"]
    alone = CliRunner().invoke(app, search).output
    beside = CliRunner().invoke(app, [*search, "--compare", "./a_b"]).output
    scores = [word for word in alone.split() if "." in word and word.replace(".", "").isdigit() and len(word) > 3]
    assert scores and all(score in beside for score in scores)


def test_evaluate_does_not_overwrite_a_given_run(beir, tmp_path):
    out = tmp_path / "out"
    write_run(out / "bm25.run", [("q12", [("d0", 2.0), ("d1", 1.0)])], "mine")
    before = (out / "bm25.run").read_bytes()
    command = [
        "evaluate",
        "--corpus",
        str(beir),
        "--run",
        str(out / "bm25.run"),
        "--against",
        "bm25",
        "--out",
        str(out),
    ]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0, said.output
    assert (out / "bm25.run").read_bytes() == before and len(list(out.glob("bm25-*.run"))) == 1
    assert json.loads((out / "metrics.json").read_text(encoding="utf-8"))["models"] == ["bm25", str(out / "bm25.run")]


@pytest.mark.parametrize("other", ["x/corpus.jsonl", "y/corpus.jsonl"])
def test_an_index_is_of_one_corpus_and_one_way_to_split_it(other, beir, tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "corpus.jsonl").write_bytes((beir / "corpus.jsonl").read_bytes())
    dataset = load_dataset(str(tmp_path / "x" / "corpus.jsonl"))
    folder = index_folder(tmp_path, dataset, "bm25", RetrieveSettings())
    again = index_folder(tmp_path, load_dataset(str(tmp_path / other)), "bm25", RetrieveSettings())
    assert (folder == again) == other.startswith("x")
    assert index_folder(tmp_path, split_documents(dataset, "words=3,overlap=1"), "bm25", RetrieveSettings()) != folder
    assert folder.name.startswith("corpus-bm25-bm25-")
