"""Queries with labels beside queries without: how they are read, listed and trained on."""

import json

import pytest
from typer.testing import CliRunner

from pdadapt.cli.main import app
from pdadapt.data.load import load_dataset
from pdadapt.errors import DataError
from pdadapt.labeling.training_list import read_lists
from pdadapt.pipeline import adapt
from pdadapt.runtime.progress import Progress
from pdadapt.settings.recipes import load_recipe, recipe_names


@pytest.fixture
def labeled(beir, tmp_path):
    """The BEIR folder with labels for two of the queries to adapt on: documents that nothing else points to."""
    folder = tmp_path / "labeled"
    (folder / "qrels").mkdir(parents=True)
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        (folder / name).write_bytes((beir / name).read_bytes())
    queries = list(load_dataset(str(beir)).queries)[:2]
    rows = [f"{queries[0]}\td19\t1", f"{queries[0]}\td3\t0", f"{queries[1]}\td18\t2", f"{queries[1]}\td17\t1"]
    (folder / "qrels" / "train.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "\n".join(rows) + "\n", encoding="utf-8"
    )
    return folder, {queries[0]: ["d19"], queries[1]: ["d18", "d17"]}


@pytest.fixture
def msmarco(labeled, tmp_path):
    """The same in MS MARCO's files."""
    source, folder = load_dataset(str(labeled[0])), tmp_path / "marco"
    folder.mkdir()

    def write(name, rows):
        (folder / name).write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")

    write("collection.tsv", [(document.doc_id, document.contents) for document in source.corpus])
    write("queries.train.tsv", source.queries.items())
    write("queries.dev.small.tsv", source.test_queries.items())
    for name, qrels in (("train", source.train_qrels), ("dev.small", source.qrels)):
        write(f"qrels.{name}.tsv", [(q, 0, d, grade) for q, found in qrels.items() for d, grade in found.items()])
    return folder


def test_ms_marcos_files_are_the_same_dataset(labeled, msmarco):
    beir, marco = load_dataset(str(labeled[0])), load_dataset(str(msmarco))
    assert [(d.doc_id, d.contents) for d in marco.corpus] == [(d.doc_id, d.contents) for d in beir.corpus]
    for field in ("queries", "test_queries", "qrels", "train_qrels"):
        assert getattr(marco, field) == getattr(beir, field), field
    assert len(beir.train_qrels) == 2


def supervised(tiny_recipe, **changes):
    return load_recipe(str(tiny_recipe), {"train.lambda_cl": 1.0, "train.n_way": 3, "train.steps": 2} | changes)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["best", "pairs"])
def test_every_relevant_document_is_labeled_listed_and_trained_on(kind, labeled, tiny_recipe, tmp_path):
    folder, relevant = labeled
    recipe = supervised(tiny_recipe, **{"retrieve.k": 4, "train.list": kind, "teacher.pair.per_query": 1})
    adapt(recipe, load_dataset(str(folder)), tmp_path / "run", Progress())
    lists = {entry.query_id: entry for entry in read_lists(tmp_path / "run/iteration-1/lists.jsonl")}
    for query_id, entry in lists.items():
        named = {place for i, j, _ in entry.pairs for place in (i, j)}
        named |= {entry.doc_ids.index(doc_id) for doc_id in entry.relevant}
        assert len(entry.doc_ids) == (max(3, len(named)) if kind == "pairs" else 3)
        assert sorted(entry.relevant) == sorted(relevant.get(query_id, []))
        assert set(entry.relevant) <= set(entry.doc_ids)
        assert None not in entry.points, "the teacher was asked about them too"
        assert entry.points == sorted(entry.points, reverse=True)
    rows = (tmp_path / "run/iteration-1/train.jsonl").read_text(encoding="utf-8").splitlines()
    assert any(json.loads(row)["cl"] > 0 for row in rows)


@pytest.mark.slow
def test_adaptation_reads_no_label(labeled, beir, tiny_recipe, tmp_path):
    recipe = load_recipe(str(tiny_recipe), {"train.steps": 1})
    found = []
    for name, folder in (("with", labeled[0]), ("without", beir)):
        adapt(recipe, load_dataset(str(folder)), tmp_path / name, Progress())
        found.append((tmp_path / name / "iteration-1/checkpoint/model.safetensors").read_bytes())
    assert found[0] == found[1]


@pytest.mark.slow
def test_train_msmarco_command_runs_on_local_files(msmarco, tiny_recipe, tmp_path):
    out = tmp_path / "run"
    changes = [part for key in ("train.lambda_cl=1", "train.steps=2") for part in ("--set", key)]
    command = ["train-msmarco", "--corpus", str(msmarco), "--recipe", str(tiny_recipe), "--out", str(out), *changes]
    said = [CliRunner().invoke(app, command) for _ in range(2)]
    assert [found.exit_code for found in said] == [0, 0], said[0].output
    assert "queries.train.tsv" in said[0].output and "nDCG@10" in said[0].output and "Done." in said[0].output
    assert "already finished" in said[1].output
    assert "cl" in json.loads((out / "iteration-1/train.jsonl").read_text(encoding="utf-8").splitlines()[0])


def test_supervised_recipe_without_judgments_is_refused_before_any_work(labeled, beir, tiny_recipe, tmp_path):
    with pytest.raises(DataError, match=r"Add qrels/train\.tsv"):
        adapt(supervised(tiny_recipe), load_dataset(str(beir)), tmp_path / "run", Progress())
    file = labeled[0] / "qrels" / "train.tsv"
    file.write_text(file.read_text(encoding="utf-8").replace("d19", "d99"), encoding="utf-8")
    with pytest.raises(DataError, match=r"'d99'.* leave out --strict"):
        adapt(supervised(tiny_recipe), load_dataset(str(labeled[0]), strict=True), tmp_path / "run", Progress())
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in recipe_names() if name.startswith("ablations/")])
def test_every_ablation_runs_on_small_models(name, labeled, stanford, encoder, cross_encoder, t5_untied, tmp_path):
    tree = load_recipe(name)
    starts_plain = tree.retrieve.model is not None
    models = {
        "student.model": str(encoder if starts_plain else stanford),
        "teacher.point.model": str(cross_encoder),
        "teacher.pair.model": str(t5_untied),
    }
    if starts_plain:
        models |= {"retrieve.model": str(stanford), "student.projection": min(16, tree.student.projection)}
    sizes = {"train.steps": 1, "train.batch_size": 4, "teacher.pair.per_query": min(3, tree.teacher.pair.per_query)}
    recipe = load_recipe(name, models | sizes | {"retrieve.max_queries": 4, "train.document_length": 32})
    metrics = adapt(recipe, load_dataset(str(labeled[0])), tmp_path / "run", Progress())
    assert len(metrics.measures["nDCG@10"].means) == tree.iterations + 1
    curve = (tmp_path / "run/iteration-1/train.jsonl").read_text(encoding="utf-8").splitlines()
    terms = {"cl": True, "kd": tree.train.lambda_kd > 0, "pair": tree.train.lambda_pair > 0}
    assert {term: term in json.loads(curve[0]) for term in terms} == terms
