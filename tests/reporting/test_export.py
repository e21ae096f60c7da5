"""Checkpoints for other tools give the embeddings that ours do."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from sentence_transformers import MultiVectorEncoder, SentenceTransformer

from pdadapt.data.load import load_dataset
from pdadapt.errors import ModelError, RunError
from pdadapt.pipeline import adapt
from pdadapt.reporting.export import export_checkpoint
from pdadapt.runtime.progress import Progress
from pdadapt.settings.recipes import load_recipe
from pdadapt.students.colbert import load_colbert
from pdadapt.students.dense import load_dense, save_dense
from pdadapt.students.pylate import save_colbert

QUERIES = ["wheel spoke tension", "brake"]
DOCUMENTS = ["rim spoke , hub nipple tension !", "pad", "chain cassette derailleur . " * 8]


@pytest.fixture
def colbert(stanford, tmp_path):
    """A trained student's checkpoint: not the weights it started from."""
    model = load_colbert(str(stanford))
    torch.manual_seed(1)
    for weight in model.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    save_colbert(model, tmp_path / "student")
    return tmp_path / "student"


def embeddings(model):
    return [*model.encode_query(QUERIES), *model.encode_document(DOCUMENTS)]


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.as_tensor(one), torch.as_tensor(other), atol=1e-5, rtol=0)


@pytest.mark.parametrize("file_format", ["stanford", "pylate", "sentence-transformers"])
def test_a_colbert_loads_again_from_every_format(colbert, tmp_path, file_format):
    export_checkpoint(str(colbert), tmp_path / "out", file_format)
    expected = embeddings(load_colbert(str(colbert)))
    same(embeddings(load_colbert(str(tmp_path / "out"))), expected)
    same(embeddings(MultiVectorEncoder(str(tmp_path / "out"))), expected)
    assert not list((tmp_path / "out").rglob("*.bin"))


def test_stanfords_settings_are_the_students(colbert, tmp_path):
    export_checkpoint(str(colbert), tmp_path / "out", "stanford")
    metadata = json.loads((tmp_path / "out" / "artifact.metadata").read_text(encoding="utf-8"))
    expected = {"query_maxlen": 32, "doc_maxlen": 180, "dim": 16, "mask_punctuation": True}
    assert {key: metadata[key] for key in expected} == expected
    assert metadata["attend_to_mask_tokens"] is False


@pytest.mark.subprocess
def test_stanfords_own_code_gives_the_same_embeddings(colbert, engine_environment, tmp_path):
    python = engine_environment("colbert") / "bin" / "python"
    export_checkpoint(str(colbert), tmp_path / "out", "stanford")
    script = f"""
import numpy
from colbert.infra import ColBERTConfig
from colbert.modeling.checkpoint import Checkpoint
folder = {str(tmp_path / "out")!r}
checkpoint = Checkpoint(folder, colbert_config=ColBERTConfig.load_from_checkpoint(folder))
documents = checkpoint.docFromText({DOCUMENTS!r}, bsize=8, keep_dims="flatten")[0]
queries = checkpoint.queryFromText({QUERIES!r})
numpy.savez({str(tmp_path / "found.npz")!r}, queries=queries.float().numpy(), documents=documents.float().numpy())
"""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([python, "-c", script], check=True, env=environment)
    found, model = np.load(tmp_path / "found.npz"), load_colbert(str(colbert))
    np.testing.assert_allclose(found["queries"], torch.stack(model.encode_query(QUERIES)), atol=1e-4)
    np.testing.assert_allclose(found["documents"], torch.cat(model.encode_document(DOCUMENTS)), atol=1e-4)


def graph_embeddings(folder, model, task, texts):
    """As a user of the graph would: tokenize, run, keep what counts."""
    import onnxruntime

    features = model.preprocess(texts, prompt=model.prompts.get(task), task=task)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    inputs = {name: features[name].numpy() for name in ("input_ids", "attention_mask")}
    return session.run(["embeddings"], inputs)[0], features


@pytest.mark.slow
@pytest.mark.parametrize("task", ["query", "document"])
def test_export_to_onnx_gives_the_same_embeddings(colbert, tmp_path, task):
    export_checkpoint(str(colbert), tmp_path / "out", "onnx")
    model = load_colbert(str(colbert))
    texts = QUERIES if task == "query" else DOCUMENTS
    found, features = graph_embeddings(tmp_path / "out", model, task, texts)
    output = model(features, task=task)
    counted = output["attention_mask"].bool()
    same([torch.as_tensor(found)[counted]], [output["token_embeddings"][counted]])
    assert {"tokenizer.json", "config_sentence_transformers.json"} <= {
        file.name for file in (tmp_path / "out").iterdir()
    }


@pytest.mark.slow
def test_export_of_a_dense_student_offers_its_formats(encoder, tmp_path):
    model = load_dense(str(encoder), 16, 64, "mean", "cosine")
    save_dense(model, tmp_path / "student")
    expected = SentenceTransformer(str(tmp_path / "student")).encode(DOCUMENTS)
    export_checkpoint(str(tmp_path / "student"), tmp_path / "st", "sentence-transformers")
    same(SentenceTransformer(str(tmp_path / "st")).encode(DOCUMENTS), expected)
    export_checkpoint(str(tmp_path / "student"), tmp_path / "onnx", "onnx")
    found, _ = graph_embeddings(tmp_path / "onnx", load_dense(str(tmp_path / "student")), "document", DOCUMENTS)
    same(found, expected)
    with pytest.raises(ModelError, match="dense student, which stanford cannot express"):
        export_checkpoint(str(tmp_path / "student"), tmp_path / "no", "stanford")


def test_export_to_stanford_refuses_what_it_computes_differently(encoder, colbert, tmp_path):
    save_colbert(load_colbert(str(encoder)), tmp_path / "unmarked")
    with pytest.raises(ModelError, match="export it with --format pylate"):
        export_checkpoint(str(tmp_path / "unmarked"), tmp_path / "out", "stanford")
    with pytest.raises(RunError, match="already exists"):
        export_checkpoint(str(colbert), tmp_path / "unmarked", "pylate")


@pytest.mark.subprocess
def test_the_command_takes_a_run_and_leaves_a_card(tiny_recipe, beir, tmp_path):
    run, out = tmp_path / "run", tmp_path / "exported"
    adapt(load_recipe(str(tiny_recipe), {"train.steps": 1}), load_dataset(str(beir)), run, Progress())
    command = [sys.executable, "-m", "pdadapt", "export", str(run), "--format", "pylate", "--out", str(out)]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    same(embeddings(load_colbert(str(out))), embeddings(load_colbert(str(run / "iteration-1" / "checkpoint"))))
    card = (out / "README.md").read_text(encoding="utf-8")
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    base, adapted = metrics["measures"]["nDCG@10"]["means"]
    assert f"| nDCG@10 | {base:.4f} | {adapted:.4f} |" in card
    recipe = load_recipe(str(tiny_recipe))
    assert "12 queries, 96 point labels and\n48 pair labels" in card
    assert f"`{recipe.teacher.model}`. No relevance judgment was used." in card and f"`{recipe.student.model}`" in card
    assert "EMNLP" in card and "n_way: 6" in card

    (run / "metrics.json").write_text(json.dumps(metrics | {"iteration": 0}), encoding="utf-8")
    export_checkpoint(str(run), tmp_path / "base", "pylate")
    same(embeddings(load_colbert(str(tmp_path / "base"))), embeddings(load_colbert(str(run / "student"))))
    card = (tmp_path / "base" / "README.md").read_text(encoding="utf-8")
    assert f"| nDCG@10 | {base:.4f} |  |" in card and "unchanged, since" in card and "iteration 1" not in card


@pytest.mark.subprocess
def test_an_upload_that_failed_is_tried_again_from_the_folder(colbert, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://localhost:9")
    command = [sys.executable, "-m", "pdadapt", "export", str(colbert), "--out", str(tmp_path / "out")]
    command += ["--push-to-hub", "me/mine"]
    for said in ("Wrote", ""):
        process = subprocess.run(command, capture_output=True, text=True)
        assert process.returncode == 1 and process.stdout.startswith(said)
        assert "Repeat the command to upload it" in process.stderr.replace("\n", " ")
