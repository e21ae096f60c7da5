"""Load the teacher of a task when it is first asked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from pdadapt.models.device import release
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import ModelSettings, TeacherSettings
from pdadapt.teachers.base import Chunk, Scores, Task
from pdadapt.teachers.kind import check_precision, model_of, teacher_kind


class ImportedTeacher:
    """Labels made elsewhere: what was not imported has no answer."""

    def score_points(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        for chunk in chunks:
            yield [(question, None) for question in chunk.asked]

    score_pairs = score_points


class Teachers:
    """Loads the teacher of a task when it is first asked; one model at a time is in memory."""

    def __init__(
        self, settings: TeacherSettings, tasks: Collection[Task] = ("point", "pair"), progress: Progress | None = None
    ):
        """tasks: those that may be asked."""
        self.progress = progress or Progress()
        self.settings = settings
        self.tasks = tasks
        self._loaded: tuple[ModelSettings, Any] | None = None

    def __call__(self, task: Task) -> Any:
        """A PointTeacher for `point`, a PairTeacher for `pair`. Raises ModelError when it does not load."""
        model = model_of(self.settings, task)
        if self._loaded is None or self._loaded[0] != model:
            self.free()
            with self.progress.task("load teacher", 1, "model") as advance:
                self._loaded = model, self._load(model)
                advance(1)
        return self._loaded[1]

    def free(self) -> None:
        """Give the memory back."""
        self._loaded = None
        release()

    def _load(self, model: ModelSettings) -> Any:
        check_precision(self.settings)
        kind = teacher_kind(model)
        if kind == "imported":
            return ImportedTeacher()
        if kind == "cross_encoder":
            from pdadapt.teachers.cross_encoder import CrossEncoderTeacher

            return CrossEncoderTeacher(model)
        if kind in ("bi_encoder", "multi_vector"):
            from pdadapt.teachers.bi_encoder import BiEncoderTeacher, MultiVectorTeacher

            return (BiEncoderTeacher if kind == "bi_encoder" else MultiVectorTeacher)(model)
        asked = [task for task in self.tasks if model_of(self.settings, task) == model]
        if kind == "endpoint":
            return load_endpoint(model, self.settings, asked, self.progress)
        point = self.settings.point if "point" in asked else None
        pair = self.settings.pair if "pair" in asked else None
        if kind == "seq2seq":
            from pdadapt.teachers.seq2seq import Seq2SeqTeacher

            return Seq2SeqTeacher(model, point, pair)
        from pdadapt.teachers.causal import CausalTeacher

        return CausalTeacher(model, point, pair)


def load_endpoint(
    model: ModelSettings, settings: TeacherSettings, tasks: Collection[Task], progress: Progress | None = None
) -> Any:
    from pdadapt.teachers.endpoint import EndpointTeacher

    say = (progress or Progress()).say
    point = settings.point if "point" in tasks else None
    return EndpointTeacher(model, point, settings.pair if "pair" in tasks else None, say)
