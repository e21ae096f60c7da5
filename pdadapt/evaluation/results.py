"""Results of an evaluation and of a run: what metrics.json and agreement.json hold.

Each class is a frozen dataclass. The order of its fields is the order of the keys on disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pdadapt.labeling.figures import LabelFigures
from pdadapt.runs.artefacts import JsonRecord, parse_as


@dataclass(frozen=True)
class Comparison(JsonRecord):
    """The difference of two systems on one measure, query by query."""

    base: int
    """Position of the base in the list of systems."""
    system: int
    """Position of the system that is compared with the base."""
    change: float
    """Mean of the system minus mean of the base."""
    interval: tuple[float, float] | None
    """95 % confidence interval of the change (Student's t); None if there is none."""
    p: float
    """p-value of the paired randomisation test."""
    p_t: float
    """p-value of the paired t-test."""
    wins: int
    """Queries whose value is higher than the base's."""
    ties: int
    losses: int
    p_holm: float
    """p, corrected for the number of comparisons (Holm)."""
    p_t_holm: float

    @property
    def margin(self) -> float | None:
        """Half of the confidence interval."""
        return (self.interval[1] - self.interval[0]) / 2 if self.interval else None

    @property
    def queries(self) -> int:
        return self.wins + self.ties + self.losses


@dataclass(frozen=True)
class MeasureResult(JsonRecord):
    """One measure of several systems."""

    means: tuple[float, ...]
    """The value of each system."""
    comparisons: tuple[Comparison, ...]

    def against_base(self, system: int | None = None) -> Comparison:
        """The comparison of a system, or the last comparison."""
        if system is None:
            return self.comparisons[-1]
        return next(one for one in self.comparisons if one.system == system)

    def before_and_after(self, comparison: Comparison) -> tuple[float, float]:
        """The values of the two systems that are compared."""
        return self.means[comparison.base], self.means[comparison.system]


Measures = dict[str, MeasureResult]  # by the measure's name


def measures_to_json(measures: Mapping[str, MeasureResult]) -> dict[str, Any]:
    return {name: result.to_json() for name, result in measures.items()}


def measures_from_json(tree: Any) -> Measures:
    """Raises ValidationError when a field is missing or of another type."""
    measures: Measures = parse_as(Measures, tree)
    return measures


@dataclass(frozen=True)
class ChangedRanking(JsonRecord):
    """A query whose value differs between two systems, with their best documents."""

    query_id: str
    query: str
    values: tuple[float, float]
    """Values of the first measure. Their key on disk is the measure's name."""
    top: tuple[tuple[str, ...], tuple[str, ...]]
    """Ids of the best documents of each system."""


@dataclass(frozen=True)
class Metrics(JsonRecord):
    """What `pdadapt evaluate` measured: its metrics.json."""

    corpus: str
    documents: int
    test_queries: int
    models: tuple[str, ...]
    measures: Measures
    most_changed: tuple[ChangedRanking, ...]

    @classmethod
    def from_json(cls, tree: Any) -> Self:
        first = next(iter(tree["measures"])) if tree.get("measures") else ""
        changed = [one | {"values": one.get(first)} for one in tree.get("most_changed", ())]
        return super().from_json(tree | {"most_changed": changed})

    def to_json(self) -> dict[str, Any]:
        first = next(iter(self.measures), "")
        changed = [{first if key == "values" else key: value for key, value in one.to_json().items()}
                   for one in self.most_changed]  # fmt: skip
        return super().to_json() | {"most_changed": changed}


@dataclass(frozen=True)
class JudgedDocument(JsonRecord):
    """A document as the report shows it, with its relevance grade; None if it has no judgment."""

    doc_id: str
    title: str
    text: str
    grade: int | None


@dataclass(frozen=True)
class LabeledDocument(JsonRecord):
    """A document as the report shows it, with the teacher's point label; None if the teacher gave no answer."""

    doc_id: str
    title: str
    text: str
    point: float | None


ShownDocument = JudgedDocument | LabeledDocument


@dataclass(frozen=True)
class ChangedQuery(JsonRecord):
    """A query whose value changed by the adaptation, with the best documents of the base and the adapted student."""

    query_id: str
    query: str
    before: float
    after: float
    documents: tuple[tuple[ShownDocument, ...], tuple[ShownDocument, ...]]


@dataclass(frozen=True)
class MostChanged(JsonRecord):
    """The queries with the largest changes."""

    gained: tuple[ChangedQuery, ...]
    lost: tuple[ChangedQuery, ...]


@dataclass(frozen=True)
class Verdict(JsonRecord):
    """Whether the adaptation helped."""

    outcome: str
    """`helped`, `no difference`, `harmed` or `unknown`."""
    sentence: str


@dataclass(frozen=True)
class RunMetrics(JsonRecord):
    """What a run of `pdadapt adapt` came to: its metrics.json."""

    corpus: str
    summary: str
    """A sentence on the corpus and its queries."""
    documents: int
    queries: int
    """Training queries."""
    test_queries: int
    iteration: int
    """The iteration whose checkpoint is kept for use; 0 is the student before training."""
    checkpoint: str
    labels: tuple[LabelFigures, ...]
    """One entry for each iteration."""
    agreement: tuple[Measures, ...]
    """Agreement with the teacher on held-out queries, for each iteration; a value is empty if no query says enough."""
    general: tuple[Measures, ...]
    """The base against the student of each iteration, on the general set (the forgetting check)."""
    measures: Measures
    """The base and the student of each iteration on the test queries; empty without judgments."""
    most_changed: MostChanged
    verdict: Verdict

    @property
    def shown(self) -> int:
        """The iteration that reports compare with the base: the kept one, or the last if the base is kept."""
        return self.iteration or len(self.labels)

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"labels": [labels.to_json() for labels in self.labels]}
