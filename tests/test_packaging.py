"""An installed wheel finds its prompts, recipes and demo corpus, and so does a checkout."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pdadapt.runtime.files import resource_folder

ROOT = Path(__file__).parent.parent
SCRIPT = """
import pdadapt, pathlib
from pdadapt.data.load import load_dataset
from pdadapt.runtime.files import resource_folder
from pdadapt.settings.prompt import POINT_FIELDS, load_prompt
from pdadapt.settings.recipes import load_recipe
assert pathlib.Path(pdadapt.__file__).is_relative_to({target!r}), pdadapt.__file__
assert resource_folder("recipes").is_relative_to({target!r})
load_prompt("yes-no", POINT_FIELDS), load_recipe("demo")
print(len(load_dataset("demo").corpus))
"""


def test_a_checkout_reads_its_top_level_folders():
    if resource_folder("prompts").parent == (ROOT / "pdadapt"):
        pytest.fail("prompts/ belongs at the top level of a checkout")
    assert resource_folder("prompts") == ROOT / "prompts"
    assert resource_folder("recipes") == ROOT / "recipes"


@pytest.mark.subprocess
def test_a_wheel_carries_what_it_needs_and_works_elsewhere(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "prompts/yes-no.txt",
        "recipes/paper.yaml",
        "data/shipped/demo/corpus.jsonl",
        "data/shipped/demo/qrels/test.tsv",
        "cli/main.py",
        "reporting/report.html.jinja",
    ):
        assert f"pdadapt/{wanted}" in names
    assert not [name for name in names if name.startswith("tests/")]
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    script = SCRIPT.format(target=str(target))
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(target)}
    )
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) >= 400
