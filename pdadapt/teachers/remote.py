"""Teachers that are asked on a Ray cluster; nothing is loaded on this machine."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from pdadapt.models.device import dtype_here
from pdadapt.models.transfer import Files, model_files, placed, unpacked
from pdadapt.runtime.ray_cluster import Cluster, Work
from pdadapt.settings.schema import TeacherSettings
from pdadapt.teachers.base import Chunk, Scores, Task, score_of
from pdadapt.teachers.kind import asked_of, model_of, teacher_kind
from pdadapt.teachers.load import Teachers


class ClusterTeachers:
    """Teachers that are asked by all workers; nothing is loaded here."""

    def __init__(self, cluster: Cluster, settings: TeacherSettings, tasks: Collection[Task]):
        self.cluster = cluster
        self.settings = settings
        self.tasks = tasks

    def __call__(self, task: Task) -> Any:
        """One that is elsewhere already, or whose labels are imported, is asked from here."""
        model = model_of(self.settings, task)
        kind = teacher_kind(model)
        if kind in ("endpoint", "imported"):
            return Teachers(self.settings, self.tasks)(task)
        tasks = [each for each in self.tasks if model_of(self.settings, each) == model]  # as Teachers loads it
        files = model_files(model.model)
        changes: dict[str, Any] = {
            **model.model_dump(),
            "kind": kind,
            "dtype": dtype_here(model.dtype),
        }  # as in the key
        for each in tasks:
            asked = asked_of(self.settings, each)
            if asked.prompt.endswith(".txt"):
                files[f"{each}.txt"] = Path(asked.prompt).read_bytes()
            changes[each] = asked.model_copy(update={"model": None, "kind": "auto"})
        settings = self.settings.model_copy(update=changes)
        return TaskPrompt(self.cluster, functools.partial(AnswerChunk, settings, tasks, task, files))

    def free(self) -> None:
        """There is nothing to give back."""


class TaskPrompt:
    def __init__(self, cluster: Cluster, make: Callable[[], Work]):
        self.cluster = cluster
        self.make = make

    def score_points(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        for chunk, result in self.cluster.map(self.make, chunks):
            yield list(zip(chunk.asked, json.loads(result), strict=True))

    score_pairs = score_points


class AnswerChunk:
    """A teacher in a worker."""

    def __init__(self, settings: TeacherSettings, tasks: Collection[Task], task: Task, files: Files):
        """settings: of one model for all the tasks, which it is loaded for."""
        with unpacked(files) as folder:
            changes: dict[str, Any] = {"model": placed(settings.model, folder)}
            for each in tasks:
                if f"{each}.txt" in files:
                    changes[each] = asked_of(settings, each).model_copy(update={"prompt": str(folder / f"{each}.txt")})
            teacher = Teachers(settings.model_copy(update=changes), tasks)(task)
        self.score = score_of(teacher, task)

    def __call__(self, chunk: Chunk) -> bytes:
        """JSON: the scores of the chunk's questions, in their order."""
        scores = dict(itertools.chain.from_iterable(self.score([chunk])))
        return json.dumps([scores[question] for question in chunk.asked]).encode()
