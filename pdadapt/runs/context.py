"""What every stage of one run needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pdadapt.data.corpus import Corpus, Dataset, Queries
from pdadapt.runs.folder import RunFolder
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import Recipe
from pdadapt.teachers.base import Task

if TYPE_CHECKING:
    from pdadapt.runtime.ray_cluster import RayCluster


@dataclass(frozen=True)
class RunContext:
    """What every stage gets. preflight.check fills all fields; preflight.start_context only what training needs.

    Stages change nothing in it.
    """

    run: RunFolder
    recipe: Recipe
    dataset: Dataset
    queries: Queries
    """The training queries, sampled to retrieve.max_queries."""
    test_queries: Queries
    """The test queries, sampled to evaluate.max_queries."""
    held_out: frozenset[str]
    """The ids of the training queries that no training sees."""
    progress: Progress
    label_keys: Mapping[Task, str] = field(default_factory=dict)
    """The keys of the labels in the store, for each task that a teacher is asked."""
    relevant: Mapping[str, list[str]] = field(default_factory=dict)
    """By query, the documents labeled relevant, if the recipe uses L_CL."""
    origin: dict[str, Any] = field(default_factory=dict)
    """What run.json says the run is made from."""
    cluster: RayCluster | None = None
    """The Ray cluster that encodes and labels, if any."""

    @property
    def corpus(self) -> Corpus:
        return self.dataset.corpus
