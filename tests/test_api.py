"""The public API: its names, its types, and what it leaves out of the start of the program."""

import json
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path

import pytest

import pdadapt
from pdadapt import adapt, evaluate, load_dataset, load_recipe, rerank


def test_the_public_names_exist_and_are_listed_by_dir():
    assert all(callable(getattr(pdadapt, name)) for name in pdadapt.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pdadapt.nothing


@pytest.mark.subprocess
def test_importing_the_package_imports_nothing_heavy():
    script = "import sys, pdadapt; print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_package_says_that_it_is_typed():
    assert (Path(pdadapt.__file__).parent / "py.typed").exists()


@pytest.fixture(scope="module")
def adapted(tiny_recipe, beir, tmp_path_factory):
    out = tmp_path_factory.mktemp("api") / "run"
    recipe = load_recipe(str(tiny_recipe), {"train.steps": 2})
    return recipe, out, adapt(load_dataset(str(beir)), recipe, out, quiet=True)


@pytest.mark.slow
def test_adapt_returns_what_metrics_json_holds(adapted):
    _, out, result = adapted
    assert is_dataclass(result) and Path(result.checkpoint).is_dir()
    assert (out / "metrics.json").read_text(encoding="utf-8") == json.dumps(result.to_json(), indent=2) + "\n"
    assert result.verdict.outcome in ("helped", "harmed", "no difference", "unknown")


@pytest.mark.slow
def test_evaluate_compares_a_run_folder_with_its_base(adapted, beir, tmp_path):
    recipe, out, result = adapted
    found = evaluate(beir, out, against=[out / "student"], out=tmp_path / "measured", recipe=recipe, quiet=True)
    assert found.models == (str(out / "student"), result.checkpoint)
    measured, adapted_measures = found.measures["nDCG@10"], result.measures["nDCG@10"]
    assert measured.means == pytest.approx(adapted_measures.means)
    assert measured.comparisons[0].change == pytest.approx(adapted_measures.comparisons[0].change)


@pytest.mark.slow
def test_rerank_writes_the_teachers_order(adapted, beir, tmp_path):
    recipe, out, _ = adapted
    found = rerank(beir, out / "iteration-0" / "test.run", tmp_path / "new.run", recipe, top=3, quiet=True)
    assert (tmp_path / "new.run").exists() and found.metrics is not None
    assert found.metrics.models == ("run", "reranked")
