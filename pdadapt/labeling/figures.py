"""Figures about the labels of one iteration, as labels.json holds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pdadapt.runs.artefacts import JsonRecord


@dataclass(frozen=True)
class LabelFigures(JsonRecord):
    """How many labels there are, how many were asked for, and how consistent the pairs are.

    A figure is None if it does not apply. labels.json leaves such figures out.
    """

    points_asked: int
    """Points that the label store did not hold before."""
    pair_prompts_asked: int
    """Prompts for pairs whose labels the store did not hold before."""
    points: int
    points_unanswered: int
    pairs: int
    pairs_derived: int | None = None
    """Pairs derived from the points instead of asked for."""
    pairs_unanswered: int | None = None
    position_bias: float | None = None
    """Mean log-odds for the document shown first."""
    flip_rate: float | None = None
    """Share of the pairs asked in both orders whose answer depends on the order."""
    disagreement: float | None = None
    """Share of the pairs that contradict the points."""
    triples: int | None = None
    """Triples of documents whose three pairs were all judged."""
    cycles: int | None = None
    """Intransitive triples: a over b over c over a."""

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in super().to_json().items() if value is not None}
