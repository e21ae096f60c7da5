"""The folder in which the commands run."""

import contextlib
import shutil
from pathlib import Path

import pytest

from bad_input.harness import RECIPE, CommandLine
from pdadapt.data.load import load_dataset
from pdadapt.pipeline import adapt
from pdadapt.runtime.progress import Progress
from pdadapt.settings.recipes import load_recipe
from pdadapt.teachers import servers
from pdadapt.teachers.language_model import load_tokenizer


@pytest.fixture(scope="session")
def workshop(beir, encoder, llama, tmp_path_factory):
    """A folder with all that a run is made of, and a finished run."""
    folder = tmp_path_factory.mktemp("workshop")
    for name, found in {"data": beir, "encoder": encoder, "llama": llama}.items():
        shutil.copytree(found, folder / name)
    (folder / "tiny.yaml").write_text(RECIPE, encoding="utf-8")
    with contextlib.chdir(folder):
        adapt(load_recipe("tiny.yaml"), load_dataset("data"), Path("run"), Progress())
    return folder


@pytest.fixture
def here(workshop, tmp_path, monkeypatch):
    """A copy of it, in which the command runs."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PDADAPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(servers, "TRIES", 1)
    load_tokenizer.cache_clear()  # It is by name, and a command is a process of its own.
    shutil.copytree(workshop, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def command_line(here, capsys, monkeypatch):
    return CommandLine(capsys, monkeypatch)
