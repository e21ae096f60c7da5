"""The student's temperature is fitted before training."""

import math
import shutil

import pytest
import torch

from pdadapt.data.load import load_dataset
from pdadapt.pipeline import adapt
from pdadapt.runtime.progress import Progress
from pdadapt.settings.recipes import load_recipe
from pdadapt.training import stage
from pdadapt.training.losses import kd_loss
from pdadapt.training.temperature import LARGEST, fit_temperature, read_fit

POINTS = torch.tensor([[2.0, 0.5, -1.0, torch.nan], [0.0, 3.0, 1.0, -2.0]])


def test_fit_finds_the_scale_of_scores_in_the_teachers_order():
    fit = fit_temperature(0.3 * POINTS.nan_to_num(), POINTS, temperature=0.5)
    assert fit.temperature == pytest.approx(0.15, rel=1e-3) and fit.kd == pytest.approx(0, abs=1e-5)


def test_fit_has_the_least_loss_of_all_temperatures():
    scores = torch.tensor([[1.0, 1.5, -1.0, 4.0], [0.2, 2.0, -0.5, -0.1]])
    fit = fit_temperature(scores, POINTS, temperature=1.0)
    tried = [float(kd_loss(scores, POINTS, 1.0, math.exp(power / 20))) for power in range(-100, 100)]
    assert fit.kd <= min(tried) + 1e-6
    assert fit.kd_uniform == pytest.approx(float(kd_loss(torch.zeros(2, 4), POINTS)))


def test_fit_to_the_opposite_order_makes_the_student_uniform():
    fit = fit_temperature(-POINTS.nan_to_num(), POINTS, temperature=1.0)
    assert fit.temperature > LARGEST / 2 and fit.kd == pytest.approx(fit.kd_uniform, rel=1e-2)


def test_labels_without_any_difference_fit_temperature_1():
    fit = fit_temperature(torch.randn(2, 4), torch.ones(2, 4), temperature=1.0)
    assert (fit.temperature, fit.kd, fit.kd_uniform) == (1.0, 0.0, 0.0)


@pytest.mark.slow
def test_a_run_with_auto_trains_as_one_with_the_fitted_temperature(tiny_recipe, beir, tmp_path, monkeypatch):
    dataset = load_dataset(str(beir))

    def checkpoint(name, **changes):
        adapt(
            load_recipe(str(tiny_recipe), {"iterations": 1, "train.steps": 2} | changes),
            dataset,
            tmp_path / name,
            Progress(),
        )
        return (tmp_path / name / "iteration-1" / "checkpoint" / "model.safetensors").read_bytes()

    automatic = checkpoint("auto", **{"train.student_temperature": "auto"})
    fit = read_fit(tmp_path / "auto" / "iteration-1" / "temperature.json")
    assert 0 <= fit.kd <= fit.kd_uniform
    assert automatic == checkpoint("fitted", **{"train.student_temperature": fit.temperature})
    shutil.rmtree(tmp_path / "auto" / "iteration-1" / "checkpoint")
    monkeypatch.setattr(stage, "fit_to_student", None)  # the fit is read back
    assert automatic == checkpoint("auto", **{"train.student_temperature": "auto"})
