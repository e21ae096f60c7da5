"""What a model has on the hub, or in its cache, is asked before any work; the hub is one on this machine."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

import hub_server
import pytest
import torch
from huggingface_hub import constants, hf_api
from safetensors.torch import load_file

from pdadapt.errors import ModelError
from pdadapt.labeling.check import check_teacher
from pdadapt.models.hub import download, fetch_command, find_repository
from pdadapt.models.outline import check_encoder
from pdadapt.models.source import resolve_model
from pdadapt.retrieval.engines.load import check_model
from pdadapt.settings.schema import ModelSettings, RetrieveSettings, TeacherSettings
from pdadapt.students.load import load_student_as
from pdadapt.teachers.kind import teacher_kind

REPOSITORY = """
.gitattributes LICENSE README.md config.json generation_config.json special_tokens_map.json tokenizer_config.json
model.safetensors model.safetensors.index.json model-00001-of-00002.safetensors 2_Dense/model.safetensors
tokenizer.json spiece.model sentencepiece.bpe.model tokenizer.model vocab.txt vocab.json merges.txt bpe.codes source.spm
qwen.tiktoken added_tokens.json chat_template.jinja additional_chat_templates/rag.jinja artifact.metadata modules.json
sentence_bert_config.json config_sentence_transformers.json 1_Pooling/config.json 2_Dense/config.json
"""
OTHER_FORMATS = """
pytorch_model.bin pytorch_model-00001-of-00002.bin tf_model.h5 flax_model.msgpack rust_model.ot onnx/model.onnx
openvino/openvino_model.bin consolidated.safetensors consolidated.00.pth original/params.pt coreml/model.mlpackage
model.Q4_K_M.gguf training_args.bin optimizer.pt
"""


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub without models, and an empty cache."""
    for remembered in (find_repository, download):
        remembered.cache_clear()
    with hub_server.serve() as served:
        for name, value in {
            "ENDPOINT": served.address,
            "HUGGINGFACE_CO_URL_TEMPLATE": served.address + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": False,
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(hf_api.api, "endpoint", served.address)  # which was made with the address of the day
        monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)  # likewise
        yield served
    for remembered in (find_repository, download):
        remembered.cache_clear()


def copy(source, target, *without):
    shutil.copytree(source, target)
    for name in without:
        (target / name).unlink()
    return target


def environment(hub, tmp_path, offline=False):
    own = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": str(int(offline))}
    return {**os.environ, **own, "PYTHONPATH": str(Path(__file__).parents[2])}


def pdadapt(arguments, environment, folder):
    return subprocess.run(
        [sys.executable, "-m", "pdadapt", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
    )


def test_hub_model_is_checked_without_its_weights(hub, encoder):
    hub.models["own/bert"] = encoder
    source = resolve_model("own/bert")
    source.check()
    assert check_model("own/bert", {}, RetrieveSettings()) == "colbert" and teacher_kind(
        ModelSettings(model="own/bert")
    )
    assert source.identity() == f"own/bert@{hub_server.COMMIT}"
    ours = [path for path in hub.asked if path == "/api/models/own/bert"]
    assert len(ours) <= 3, "transformers asks twice itself"
    assert not [path for path in hub.asked if "safetensors" in path or "modules.json" in path]
    assert source.file("modules.json") is None and source.file("config.json").is_file()


def test_a_model_of_the_hub_loads_as_its_folder_does(hub, encoder):
    hub.models["own/bert"] = encoder
    found, expected = (load_student_as(name).encode_document(["rim hub"])[0] for name in ("own/bert", str(encoder)))
    assert found.equal(expected)
    assert check_encoder(resolve_model(f"own/bert@{hub_server.COMMIT}"), "Student") == 512


LACKING = {
    "pickles only": (
        {"model.safetensors": None, "pytorch_model.bin": ""},
        r"holds pickled weights \(pytorch_model\.bin\), .*\. Convert them with `pdadapt convert own/m FOLDER`, and",
    ),
    "parts of pickles": (
        {"model.safetensors": None, "pytorch_model-00001-of-00002.bin": "", "pytorch_model.bin.index.json": "{}"},
        r"holds pickled weights \(pytorch_model-00001-of-00002\.bin\)",
    ),
    "weights of another library": (
        {"model.safetensors": None, "tf_model.h5": ""},
        r"has no weights \(\*\.safetensors\) on the hub\. Give another model",
    ),
    "weights of a module only": (
        {"model.safetensors": None, "2_Dense/model.safetensors": "", "pytorch_model.bin": ""},
        "holds pickled weights",
    ),
    "GGUF only": (
        {"model.safetensors": None, "x.Q4.gguf": ""},
        r"has GGUF files only\. Fetch one with `hf download own/m x\.Q4\.gguf --local-dir FOLDER`, and give FOLDER/x",
    ),
    "GGUF without a configuration": (
        {"model.safetensors": None, "config.json": None, "x.Q4.gguf": ""},
        r"has GGUF files only\. Fetch one",
    ),
    "an adapter": (
        {"model.safetensors": None, "config.json": None, "adapter_config.json": "{}", "adapter_model.safetensors": ""},
        r"is an adapter \(adapter_config\.json\), .*\. Merge it into its base model",
    ),
    "an adapter beside a configuration": (
        {"model.safetensors": None, "adapter_config.json": "{}", "adapter_model.safetensors": ""},
        "is an adapter",
    ),
    "a part of the weights": (
        {
            "model.safetensors": None,
            "model.safetensors.index.json": '{"weight_map": {"a": "model-1-of-2.safetensors"}}',
        },
        r"lacks model-1-of-2\.safetensors, which its index names\. Give another model",
    ),
    "an index that is none": (
        {"model.safetensors": None, "model.safetensors.index.json": "{"},
        r"model\.safetensors\.index\.json is not valid JSON",
    ),
    "a tokenizer": (
        {"tokenizer.json": None, "tokenizer_config.json": None, "vocab.txt": None},
        r"has no tokenizer \(tokenizer\.json\) on the hub\. Give another model",
    ),
    "a configuration": ({"config.json": None}, r"has no config\.json on the hub\. Give another model"),
    "a module": (
        {"modules.json": '[{"path": "", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}]'},
        r"lacks the folder 1_Pooling, which its modules\.json names\. Give another model",
    ),
}


@pytest.mark.parametrize(("files", "message"), LACKING.values(), ids=LACKING)
def test_hub_model_that_lacks_files_is_refused_without_its_weights(hub, encoder, tmp_path, files, message):
    folder = hub.models["own/m"] = copy(encoder, tmp_path / "m")
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).unlink(missing_ok=True) if content is None else (folder / name).write_text(content)
    with pytest.raises(ModelError, match=message):
        resolve_model("own/m").check()
    with pytest.raises(ModelError, match=message):
        check_model("own/m", {}, RetrieveSettings())
    assert not [path for path in hub.asked if path.endswith((".safetensors", ".bin", ".gguf", ".h5"))]


def test_hub_model_that_is_missing_or_gated_is_refused(hub, encoder):
    hub.models |= {"own/bert": encoder, "own/closed": encoder}
    hub.gated.add("own/closed")
    for name, message in (
        (
            "own/none",
            r"The hub has no model 'own/none', or shows it to its owner only\. Check the name, or run `hf auth",
        ),
        ("own/bert@nope", r"'own/bert' has no revision 'nope'\. Give one"),
        (
            "own/closed",
            r"accept its terms\. Accept them on https://huggingface\.co/own/closed, and run `hf auth login`",
        ),
        ("no good", "is neither an existing folder nor a hub id"),
    ):
        with pytest.raises(ModelError, match=message):
            resolve_model(name).check()


def test_hub_that_answers_with_a_page_is_refused(hub, encoder):
    hub.models["own/bert"] = encoder
    hub.portal = True
    with pytest.raises(ModelError, match=r"the hub did not deliver it \(.*\)\. Fetch it where there is a network"):
        resolve_model("own/bert").check()


def test_hub_model_is_identified_from_the_cache_offline(hub, encoder, monkeypatch):
    hub.models["own/bert"] = encoder
    load_student_as("own/bert")
    identity = resolve_model("own/bert").identity()
    for name, value in (("ENDPOINT", "http://127.0.0.1:9"), ("HF_HUB_OFFLINE", True)):
        monkeypatch.setattr(constants, name, value)
        find_repository.cache_clear()
        source = resolve_model("own/bert")
        source.check()
        assert source.folder.name == hub_server.COMMIT and source.identity() == identity
        assert check_model("own/bert", {}, RetrieveSettings()) == "colbert"
    weights = source.folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:999])
    with pytest.raises(ModelError, match=r"model\.safetensors is missing or damaged"):
        source.check()
    weights.unlink()
    find_repository.cache_clear()
    with pytest.raises(ModelError, match=r"has no weights .*\. Fetch it where there is a network with `hf download"):
        resolve_model("own/bert").check()


def test_the_hub_is_asked_once_a_process_for_what_is_cached(hub, encoder, tmp_path):
    hub.models["own/bert"] = encoder
    settings = TeacherSettings(model="own/bert", kind="bi_encoder")

    def start():
        for remembered in (find_repository, download):
            remembered.cache_clear()
        hub.asked.clear()
        for _ in range(2):
            check_teacher(settings, "point", {"rim"}, tmp_path / "labels.sqlite")
        return [path for path in hub.asked if path.endswith((".json", ".safetensors", ".txt"))]

    assert Counter(start())["/own/bert/resolve/main/config.json"] <= 2  # HEAD and GET
    assert start() == ["/own/bert/resolve/main/config.json"]


def test_checks_and_loading_take_the_same_commit(hub, encoder):
    hub.models["own/bert"] = encoder
    source = resolve_model("own/bert")
    assert (source.place, source.commit) == ("own/bert", hub_server.COMMIT)
    source = resolve_model(str(encoder))
    assert (source.place, source.commit) == (str(encoder), None)


def test_fetch_command_fetches_only_what_is_loaded():
    command = shlex.split(fetch_command("google/flan-t5-xl", "v1").strip("`"))
    assert command[:5] == ["hf", "download", "google/flan-t5-xl", "--revision", "v1"]
    patterns = [command[i + 1] for i, part in enumerate(command) if part == "--include"]
    fetched = {name for name in (REPOSITORY + OTHER_FORMATS).split() if any(fnmatch(name, one) for one in patterns)}
    assert fetched == {*REPOSITORY.split()} - {".gitattributes", "LICENSE", "README.md"}


@pytest.mark.subprocess
def test_fetch_command_fetches_a_whole_model(hub, stanford, tmp_path):
    folder = hub.models["own/colbert"] = copy(stanford, tmp_path / "m")
    (folder / "pytorch_model.bin").write_bytes(b"")
    command = [*shlex.split(fetch_command("own/colbert", None).strip("`")), "--local-dir", str(tmp_path / "got")]
    program = os.path.join(os.path.dirname(sys.executable), command[0])
    said = subprocess.run([program, *command[1:]], capture_output=True, text=True, env=environment(hub, tmp_path))
    assert said.returncode == 0, said.stderr
    assert not (tmp_path / "got" / "pytorch_model.bin").exists()
    source = resolve_model(str(tmp_path / "got"))
    source.check()
    assert source.identity() == resolve_model(str(stanford)).identity()


@pytest.mark.subprocess
def test_every_model_of_a_run_is_asked_for_before_any_work(hub, encoder, llama, beir, tiny_recipe, tmp_path):
    """The pair teacher, which is loaded last, has pickles only."""
    hub.models |= {"own/bert": encoder, "own/llama": llama}
    pickled = hub.models["own/pickled"] = copy(llama, tmp_path / "pickled", "model.safetensors")
    (pickled / "pytorch_model.bin").write_bytes(b"")
    command = ["adapt", "--corpus", beir, "--recipe", tiny_recipe, "--out", "out", "--student", "own/bert"]
    command += ["--teacher", "own/llama", "--pair-teacher", "own/pickled"]
    said = pdadapt(command, environment(hub, tmp_path), tmp_path)
    assert said.returncode == 1 and "Convert them with `pdadapt convert own/pickled FOLDER`" in said.stderr
    assert not (tmp_path / "out").exists()
    assert not [path for path in hub.asked if path.endswith((".safetensors", ".bin"))]


@pytest.mark.subprocess
def test_pickles_of_the_hub_become_a_folder_that_loads(hub, encoder, tmp_path):
    pickled = hub.models["own/pickled"] = copy(encoder, tmp_path / "pickled", "model.safetensors")
    weights = load_file(encoder / "model.safetensors")
    torch.save(weights, pickled / "pytorch_model.bin")
    (pickled / "tf_model.h5").write_bytes(b"0" * 99)
    said = pdadapt(["convert", "own/pickled", "converted"], environment(hub, tmp_path), tmp_path)
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines()[-1] == "Wrote converted"
    assert not [path for path in hub.asked if "h5" in path]
    resolve_model(str(tmp_path / "converted")).check()
    found = load_file(tmp_path / "converted" / "model.safetensors")
    assert found.keys() == weights.keys() and all(found[name].equal(weight) for name, weight in weights.items())
    assert json.loads((tmp_path / "converted" / "config.json").read_text())["model_type"] == "bert"
