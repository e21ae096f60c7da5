"""The student's temperature, fitted before training, so that no step is spent on the scale of the student's scores.

L_KD has two parts. One is the scale of the scores, which a temperature alone mends. The other is the order of the
documents, which only training mends.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from pdadapt.data.corpus import Corpus, Queries
from pdadapt.evaluation.agreement import score_lists
from pdadapt.labeling.training_list import TrainingList
from pdadapt.runs.artefacts import JsonRecord, read_json
from pdadapt.runtime.files import write_atomic
from pdadapt.settings.schema import TrainSettings
from pdadapt.students.colbert import get_lengths, set_lengths
from pdadapt.training.batch import kd_target
from pdadapt.training.losses import kd_loss

FITTED_LISTS = 64  # lists that the temperature is fitted to
SMALLEST, LARGEST = 1e-3, 1e3  # temperatures that are tried


@dataclass(frozen=True)
class TemperatureFit(JsonRecord):
    """The student's temperature with the least L_KD before training. All losses are in nats."""

    temperature: float
    kd: float
    """L_KD at this temperature: what is left to learn about the order of the documents."""
    kd_uniform: float
    """L_KD of a student that gives every document the same score: what the labels say."""


def fit_temperature(scores: Tensor, points: Tensor, temperature: float) -> TemperatureFit:
    """Fit the student's temperature to L_KD, which has one minimum.

    scores: (B, N) student scores. points: (B, N) teacher scores, NaN where missing, which are divided by `temperature`.
    """

    def loss(log_temperature: float) -> float:
        return float(kd_loss(scores, points, temperature, math.exp(log_temperature)))

    uniform = float(kd_loss(torch.zeros_like(scores), points, temperature))
    if not uniform:  # The labels say nothing, so no temperature is better than another.
        return TemperatureFit(1.0, 0.0, 0.0)
    bounds = math.log(SMALLEST), math.log(LARGEST)
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return TemperatureFit(math.exp(found.x), float(found.fun), uniform)


def fit_to_student(
    student: Any, lists: Sequence[TrainingList], corpus: Corpus, queries: Queries, settings: TrainSettings, seed: int
) -> TemperatureFit:
    """Fit the temperature of a student before training to a sample of the lists, at the lengths of the training."""
    chosen = sorted(random.Random(seed).sample(range(len(lists)), min(FITTED_LISTS, len(lists))))
    sample = [lists[place] for place in chosen]
    lengths = get_lengths(student)
    set_lengths(student, settings.query_length, settings.document_length)
    found = score_lists(student, sample, corpus, queries, settings.chunk_tokens)
    set_lengths(student, *lengths)
    width = max(len(entry.doc_ids) for entry in sample)
    scores, points = torch.zeros(len(sample), width), torch.full((len(sample), width), torch.nan)
    for row, (entry, values) in enumerate(zip(sample, found, strict=True)):
        target = kd_target(entry, settings)
        scores[row, : len(values)] = torch.tensor(values)
        points[row, : len(target)] = torch.tensor([torch.nan if point is None else point for point in target])
    return fit_temperature(scores, points, settings.temperature)


def save_fit(file: Path, fit: TemperatureFit) -> None:
    """Write the fit as JSON."""
    write_atomic(file, json.dumps(fit.to_json(), indent=2) + "\n")


def read_fit(file: Path) -> TemperatureFit:
    """Read a fit that save_fit wrote. Raises RunError if the file is damaged."""
    return read_json(file, TemperatureFit.from_json)
