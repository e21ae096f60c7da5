"""Load the teacher of a task when it is first asked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, assert_never

from pdadapt.data.corpus import Corpus
from pdadapt.models.device import release_memory
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import ModelSettings, TeacherSettings
from pdadapt.teachers.base import Chunk, Scores, Task, Teacher
from pdadapt.teachers.kind import check_precision, model_of, teacher_kind

if TYPE_CHECKING:
    from pdadapt.teachers.endpoint import EndpointTeacher


class ImportedTeacher:
    """Stands for labels that were imported. Questions without an imported label get no answer."""

    def score_points(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        """Yield None for every question."""
        for chunk in chunks:
            yield [(question, None) for question in chunk.asked]

    score_pairs = score_points


class Teachers:
    """A TeacherLoader that keeps one model in memory at a time."""

    def __init__(
        self,
        settings: TeacherSettings,
        tasks: Collection[Task] = ("point", "pair"),
        progress: Progress | None = None,
        corpus: Corpus | None = None,
    ):
        """Load nothing yet. tasks: the tasks for which a teacher may be loaded. corpus: what BM25 scores with."""
        self.corpus = corpus
        self.progress = progress or Progress()
        self.settings = settings
        self.tasks = tasks
        self._loaded: tuple[ModelSettings, Teacher] | None = None

    def __call__(self, task: Task) -> Teacher:
        """Return a PointTeacher for `point`, a PairTeacher for `pair`. Raises ModelError if it cannot be loaded."""
        model = model_of(self.settings, task)
        if self._loaded is None or self._loaded[0] != model:
            self.free()
            with self.progress.task("load teacher", 1, "model") as advance:
                self._loaded = model, self._load(model)
                advance(1)
        return self._loaded[1]

    def free(self) -> None:
        """Release the memory of the loaded teacher."""
        self._loaded = None
        release_memory()

    def _load(self, model: ModelSettings) -> Teacher:
        check_precision(self.settings)
        kind = teacher_kind(model)
        tasks = [task for task in self.tasks if model_of(self.settings, task) == model]
        point = self.settings.point if "point" in tasks else None
        pair = self.settings.pair if "pair" in tasks else None
        match kind:
            case "imported":
                return ImportedTeacher()
            case "endpoint":
                return load_endpoint(model, self.settings, tasks, self.progress)
            case "cross_encoder":
                from pdadapt.teachers.cross_encoder import CrossEncoderTeacher

                return CrossEncoderTeacher(model)
            case "bi_encoder":
                from pdadapt.teachers.bi_encoder import BiEncoderTeacher

                return BiEncoderTeacher(model)
            case "multi_vector":
                from pdadapt.teachers.bi_encoder import MultiVectorTeacher

                return MultiVectorTeacher(model)
            case "bm25":
                from pdadapt.teachers.bm25 import BM25Teacher, corpus_of_bm25

                return BM25Teacher(corpus_of_bm25(self.corpus))
            case "seq2seq":
                from pdadapt.teachers.seq2seq import Seq2SeqTeacher

                return Seq2SeqTeacher(model, point, pair)
            case "causal":
                from pdadapt.teachers.causal import CausalTeacher

                return CausalTeacher(model, point, pair)
            case _:
                assert_never(kind)


def load_endpoint(
    model: ModelSettings, settings: TeacherSettings, tasks: Collection[Task], progress: Progress | None = None
) -> EndpointTeacher:
    """Return the teacher behind a server, with the prompts of the given tasks. No server is asked."""
    from pdadapt.teachers.endpoint import EndpointTeacher

    say = (progress or Progress()).say
    point = settings.point if "point" in tasks else None
    return EndpointTeacher(model, point, settings.pair if "pair" in tasks else None, say)
