"""Pickled weights become safetensors, tensor by tensor; nothing but tensors is read."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, safe_open
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.base.modules.dense import Dense
from sentence_transformers.sentence_transformer.modules import Pooling
from tiny_models import make_t5
from transformers import AutoModel, T5ForConditionalGeneration
from typer.testing import CliRunner

from pdadapt.cli.main import app
from pdadapt.errors import ModelError, RunError
from pdadapt.models.convert import convert_to_safetensors
from pdadapt.models.source import resolve_model
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import TeacherSettings
from pdadapt.students.load import load_student_as
from pdadapt.teachers.base import Pair, scores_in_order
from pdadapt.teachers.load import Teachers


def pickle(folder, target, **options):
    """The same model with its weights in pickles, as the hub's older ones are."""
    shutil.copytree(folder, target)
    for file in list(target.rglob("*.safetensors")):
        torch.save(load_file(file), file.with_name("pytorch_model.bin"), **options)
        file.unlink()
    return target


def same(folder, other):
    for file in folder.rglob("*.safetensors"):
        found, expected = load_file(other / file.relative_to(folder)), load_file(file)
        assert found.keys() == expected.keys()
        assert all(found[name].equal(weight) and found[name].dtype == weight.dtype for name, weight in expected.items())


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before torch 1.6"])
def test_convert_keeps_a_bert_as_it_was(encoder, tmp_path, old):
    pickled = pickle(encoder, tmp_path / "pickled", _use_new_zipfile_serialization=not old)
    with pytest.raises(ModelError, match="Convert them with `pdadapt convert"):
        resolve_model(str(pickled)).check()
    said = CliRunner().invoke(app, ["convert", str(pickled), str(tmp_path / "out")])
    assert said.exit_code == 0 and said.stdout == f"Wrote {tmp_path / 'out'}\n", said.output
    same(encoder, tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {file.name for file in encoder.iterdir()}
    assert resolve_model(str(tmp_path / "out")).identity()
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
def test_a_t5_judges_as_it_did_whether_its_embeddings_are_tied_or_not(tmp_path, tied):
    for name in ("whole", "pickled"):
        (tmp_path / name).mkdir()
        make_t5(tmp_path / name, tied)
    model = T5ForConditionalGeneration.from_pretrained(tmp_path / "whole")
    torch.save(model.state_dict(), tmp_path / "pickled" / "pytorch_model.bin")  # tied weights share their memory
    (tmp_path / "pickled" / "model.safetensors").unlink()
    convert_to_safetensors(str(tmp_path / "pickled"), tmp_path / "out", Progress())
    again, found = T5ForConditionalGeneration.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"]
    assert (again.lm_head.weight.data_ptr() == again.shared.weight.data_ptr()) == tied
    pairs = [Pair("spoke tension", "rim spoke hub", "pad rotor"), Pair("squeal", "chain cog", "pad rotor squeal")]
    scores = [
        scores_in_order(
            Teachers(TeacherSettings(model=str(tmp_path / name), dtype="float32"), ["pair"])("pair").score_pairs, pairs
        )
        for name in ("whole", "out")
    ]
    assert scores[0] == scores[1]


def test_weights_in_parts_stay_in_parts_and_find_each_other(encoder, tmp_path):
    pickled = pickle(encoder, tmp_path / "pickled")
    weights = torch.load(pickled / "pytorch_model.bin")
    names = sorted(weights)
    parts = {f"pytorch_model-0000{i + 1}-of-00002.bin": names[i::2] for i in range(2)}
    for file, own in parts.items():
        torch.save({name: weights[name] for name in own}, pickled / file)
    (pickled / "pytorch_model.bin").unlink()
    index = {"metadata": {"total_size": 1}, "weight_map": {name: file for file, own in parts.items() for name in own}}
    (pickled / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")
    convert_to_safetensors(str(pickled), tmp_path / "out", Progress())
    resolve_model(str(tmp_path / "out")).check()
    found = AutoModel.from_pretrained(tmp_path / "out", use_safetensors=True).state_dict()
    assert all(found[name].equal(weight) for name, weight in weights.items())
    assert sorted(file.name for file in (tmp_path / "out").glob("*.safetensors")) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]


def test_a_stanford_colbert_encodes_as_it_did(stanford, tmp_path):
    convert_to_safetensors(str(pickle(stanford, tmp_path / "pickled")), tmp_path / "out", Progress())
    same(stanford, tmp_path / "out")
    texts = ["rim spoke, hub.", "pad"]
    for found, expected in zip(
        *(load_student_as(str(name)).encode_document(texts) for name in (tmp_path / "out", stanford)), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_sentence_transformer_keeps_its_modules(encoder, tmp_path):
    transformer = Transformer(str(encoder))
    modules = [transformer, Pooling(32, "mean"), Dense(32, 8)]
    SentenceTransformer(modules=modules).save_pretrained(str(tmp_path / "st"), create_model_card=False)
    pickled = pickle(tmp_path / "st", tmp_path / "pickled")
    convert_to_safetensors(str(pickled), tmp_path / "out", Progress())
    assert (tmp_path / "out" / "2_Dense" / "model.safetensors").is_file() and not list(
        (tmp_path / "out").rglob("*.bin")
    )
    found, expected = (SentenceTransformer(str(tmp_path / name)).encode(["rim hub"]) for name in ("out", "st"))
    assert (found == expected).all()


def test_a_module_alone_is_converted_and_what_is_not_loaded_is_left(encoder, tmp_path):
    """Whose transformer has safetensors, and pickles in other parts beside them."""
    modules = [Transformer(str(encoder)), Pooling(32, "mean"), Dense(32, 8)]
    SentenceTransformer(modules=modules).save_pretrained(str(tmp_path / "st"), create_model_card=False)
    half = shutil.copytree(tmp_path / "st", tmp_path / "half")
    torch.save(load_file(half / "2_Dense" / "model.safetensors"), half / "2_Dense" / "pytorch_model.bin")
    (half / "2_Dense" / "model.safetensors").unlink()
    (half / "checkpoint-5").mkdir()
    for name in ("pytorch_model-00001-of-00003.bin", "pytorch_model.bin.index.json", "checkpoint-5/pytorch_model.bin"):
        (half / name).write_bytes(b"{")
    with pytest.raises(ModelError, match=r"holds pickled weights \(2_Dense/pytorch_model\.bin\)"):
        resolve_model(str(half)).check()
    convert_to_safetensors(str(half), tmp_path / "out", Progress())
    resolve_model(str(tmp_path / "out")).check()
    same(tmp_path / "st", tmp_path / "out")
    assert not list((tmp_path / "out").glob("model-*")) and not list((tmp_path / "out").rglob("*.bin"))


def test_convert_writes_views_without_the_rest_of_their_tensor(encoder, tmp_path):
    pickled = pickle(encoder, tmp_path / "pickled")
    large = torch.arange(1000.0).reshape(10, 100)
    torch.save(
        {"row": large[3], "column": large[:, 5], "again": large[3], "none": torch.zeros(0)},
        pickled / "pytorch_model.bin",
    )
    convert_to_safetensors(str(pickled), tmp_path / "out", Progress())
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert found["row"].equal(large[3]) and found["again"].equal(large[3]) and found["column"].equal(large[:, 5])
    assert os.path.getsize(tmp_path / "out" / "model.safetensors") < 2000


class Code:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"a": torch.ones(2), "b": Code()},
            r"pytorch_model\.bin holds code, which pdadapt does not run\. Give",
        ),
        ({"state_dict": {"a": torch.ones(2)}}, r"holds no table of weights by name\. Give another model"),
        ({}, r"holds no table of weights by name\. Give another model"),
        ({0: torch.ones(2)}, r"holds no table of weights by name\. Give another model"),
        ({"a": torch.ones(2).to_sparse()}, r"holds no table of weights by name\. Give another model"),
        ({"a": torch.ones(2, device="meta")}, r"holds no table of weights by name\. Give another model"),
        ({"a": torch.ones(2, dtype=torch.complex128)}, r"holds no table of weights by name\. Give another model"),
        ([torch.ones(2)], r"holds no table of weights by name\. Give another model"),
        (b"", r"is cut short or damaged\. Fetch it again"),
        (b"\x80\x02broken", r"is cut short or damaged\. Fetch it again"),
        (b"PK\x03\x04broken", r"is cut short or damaged\. Fetch it again"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            r"is cut short or damaged\. Fetch it again",
        ),
    ],
)
def test_convert_refuses_files_without_weights_and_leaves_nothing(encoder, tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    pickled = pickle(encoder, tmp_path / "pickled")
    if isinstance(content, bytes):
        (pickled / "pytorch_model.bin").write_bytes(content)
    else:
        torch.save(content, pickled / "pytorch_model.bin")
    with pytest.raises(ModelError, match=message):
        convert_to_safetensors(str(pickled), tmp_path / "out", Progress())
    assert {path.name for path in tmp_path.iterdir()} == {"pickled"}


def test_convert_needs_pickled_weights_and_a_new_folder(encoder, tmp_path):
    with pytest.raises(
        ModelError, match=r"has no pickled weights \(pytorch_model\.bin\) to convert\. Give a model that has"
    ):
        convert_to_safetensors(str(encoder), tmp_path / "out", Progress())
    pickled = pickle(encoder, tmp_path / "pickled")
    (pickled / "training_args.bin").write_bytes(b"no weights")
    (tmp_path / "there").mkdir()
    with pytest.raises(RunError, match=r"there already exists\. Give another folder"):
        convert_to_safetensors(str(pickled), tmp_path / "there", Progress())
    convert_to_safetensors(str(pickled), tmp_path / "out", Progress())
    assert not list((tmp_path / "out").glob("training_args*"))
