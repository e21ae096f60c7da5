"""Teachers on a Ray cluster. The workers load them; this process does not."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from pdadapt.data.corpus import Corpus
from pdadapt.models.device import dtype_name
from pdadapt.models.transfer import FileContents, read_model_files, unpack_files, unpacked_model
from pdadapt.runtime.ray_cluster import RayCluster, RayTask
from pdadapt.settings.schema import TeacherSettings
from pdadapt.teachers.base import Chunk, Scores, Task, Teacher, score_of
from pdadapt.teachers.kind import model_of, task_settings, teacher_kind
from pdadapt.teachers.load import Teachers


class ClusterTeachers:
    """A TeacherLoader whose teachers are loaded and asked by all workers of a cluster."""

    def __init__(self, cluster: RayCluster, settings: TeacherSettings, tasks: Collection[Task], corpus: Corpus):
        """Load nothing yet. tasks: the tasks for which a teacher may be loaded. corpus: what BM25 scores with."""
        self.corpus = corpus
        self.cluster = cluster
        self.settings = settings
        self.tasks = tasks

    def __call__(self, task: Task) -> Teacher:
        """Return a teacher for the task. Servers, BM25 and imported labels are asked from this process."""
        model = model_of(self.settings, task)
        kind = teacher_kind(model)
        if kind in ("endpoint", "bm25", "imported"):
            return Teachers(self.settings, self.tasks, corpus=self.corpus)(task)
        tasks = [each for each in self.tasks if model_of(self.settings, each) == model]  # as in Teachers._load
        files = read_model_files(model.model)
        resolved = {"kind": kind, "dtype": dtype_name(model.dtype)}  # as in the label key
        changes: dict[str, Any] = {**model.model_dump(), **resolved}
        for each in tasks:
            chosen = task_settings(self.settings, each)
            if chosen.prompt.endswith(".txt"):
                files[f"{each}.txt"] = Path(chosen.prompt).read_bytes()
            changes[each] = chosen.model_copy(update={"model": None, "kind": "auto"})
        settings = self.settings.model_copy(update=changes)
        return RemoteTeacher(self.cluster, functools.partial(AnswerChunk, settings, tasks, task, files))

    def free(self) -> None:
        """Do nothing: the workers hold the models."""


class RemoteTeacher:
    """A teacher for points or pairs whose chunks are answered by the workers of a cluster."""

    def __init__(self, cluster: RayCluster, make: Callable[[], RayTask]):
        """make: called once in each worker; returns the function that answers a chunk."""
        self.cluster = cluster
        self.make = make

    def score_points(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        """Yield the scores of each chunk, in the order in which the workers finish them."""
        for chunk, result in self.cluster.map(self.make, chunks):
            yield list(zip(chunk.asked, json.loads(result), strict=True))

    score_pairs = score_points


class AnswerChunk:
    """Answers chunks in a worker, with a teacher that the worker loads."""

    def __init__(self, settings: TeacherSettings, tasks: Collection[Task], task: Task, files: FileContents):
        """Load the teacher.

        settings: one model for all `tasks`; the model is loaded for them. task: the one that is asked.
        files: the files of the model and of the prompts.
        """
        with unpack_files(files) as folder:
            changes: dict[str, Any] = {"model": unpacked_model(settings.model, folder)}
            for each in tasks:
                prompt = f"{each}.txt"
                if prompt in files:
                    changes[each] = task_settings(settings, each).model_copy(
                        update={"prompt": str(folder / f"{each}.txt")}
                    )
            teacher = Teachers(settings.model_copy(update=changes), tasks)(task)
        self.score = score_of(teacher, task)

    def __call__(self, chunk: Chunk) -> bytes:
        """Return the scores of the chunk's questions as JSON, in their order."""
        scores = dict(itertools.chain.from_iterable(self.score([chunk])))
        return json.dumps([scores[question] for question in chunk.asked]).encode()
