"""The job of writing queries: its inputs, its files, and the checks that are made before the work begins."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pdadapt.data.corpus import Corpus, Dataset, fingerprint
from pdadapt.data.notices import Notices
from pdadapt.data.queries import read_queries
from pdadapt.errors import DataError, RunError
from pdadapt.generation import kinds, sources
from pdadapt.generation.answer_log import count_reasons
from pdadapt.generation.writers import check_writer, writer_identity, writing_prompts
from pdadapt.labeling.check import check_teacher
from pdadapt.models.source import resolve_model
from pdadapt.retrieval.engines.base import Engine
from pdadapt.retrieval.engines.load import BASELINE, check_model, index_origin, load_engine
from pdadapt.retrieval.search import index_corpus
from pdadapt.runs.changes import Change, differences, name_changes
from pdadapt.runtime.files import check_parent_folder, read_settings
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import GenerateSettings, QueryKind, Recipe, RetrieveSettings
from pdadapt.students.colbert import PROJECTION_SAMPLE
from pdadapt.teachers.label_key import teacher_key


@dataclass(frozen=True)
class GenerationJob:
    """Queries to write into the file `out`."""

    recipe: Recipe
    corpus: Corpus
    examples: Sequence[str]  # real queries
    out: Path
    store: Path  # the label store
    progress: Progress

    @property
    def report(self) -> Path:
        """The file of the report."""
        return report_file(self.out)

    @property
    def folder(self) -> Path:
        """The folder of intermediate files, which exists during the work."""
        return work_folder(self.out)

    @property
    def sources(self) -> Path:
        """The file with the documents that are written about."""
        return self.folder / "sources.json"

    @cached_property
    def origin(self) -> dict[str, Any]:
        """Everything that the queries depend on. Raises PdadaptError if a part of it is missing."""
        recipe = self.recipe
        origin = {
            "corpus_sha256": self.corpus.fingerprint,
            "seed": recipe.seed,
            **requested_settings(recipe.generate, self.examples),
            "writer": writer_identity(recipe),
        }
        if self.clustered or recipe.generate.round_trip == "student":
            student = recipe.student.model_dump(mode="json")
            origin["student"] = {**student, "model": resolve_model(recipe.student.model).identity()}
        if recipe.generate.least_point is not None:
            origin["teacher"] = json.loads(teacher_key(recipe.teacher, "point", self.corpus))
        return origin

    @property
    def clustered(self) -> bool:
        """Whether there are more documents than queries, so that they are chosen by the student's embeddings."""
        return len(self.corpus) > self.recipe.generate.count

    def only_judges(self, key: str) -> bool:
        """Whether this part of the origin changes which answers are kept, but not the answers."""
        return (
            key in ("generate.round_trip", "generate.k", "generate.least_point")
            or key.startswith("teacher")
            or (key.startswith("student") and not self.clustered)
        )

    @cached_property
    def shares(self) -> dict[QueryKind, float]:
        """The share of each kind of query."""
        return kinds.shares(self.examples, self.recipe.generate.kinds)

    @cached_property
    def usable_documents(self) -> tuple[list[int], Counter[str]]:
        """The positions of sampled documents that can be written about, and counts of the reasons against the others.

        Raises DataError if there is no such document.
        """
        documents = self.corpus.documents
        positions = sources.draw_documents(len(documents), self.recipe.generate.count, self.recipe.seed)
        with self.progress.task("look at documents", len(positions), "documents") as advance:
            reasons = sources.reasons_left_out((documents[position].contents for position in positions), advance)
        usable = [position for position, reason in zip(positions, reasons, strict=True) if reason is None]
        if not usable:
            raise DataError(
                f"No document of the corpus is suitable for writing queries ({count_reasons(reasons)}). Give queries "
                "with --queries FILE."
            )
        return usable, Counter(filter(None, reasons))

    @cached_property
    def engine(self) -> Engine:
        """The engine of the round trip, with its index."""
        recipe = self.recipe
        name = BASELINE if recipe.generate.round_trip == "bm25" else recipe.student.model
        settings = recipe.student.model_dump(exclude={"model"})
        engine = load_engine(name, settings, self.corpus.sample(PROJECTION_SAMPLE), recipe.retrieve)
        origin = index_origin(name, self.corpus, settings, recipe.retrieve)
        index_corpus(engine, self.corpus, self.folder / "index", self.progress, origin)
        return engine


def prepare(recipe: Recipe, dataset: Dataset, out: Path, store: Path, progress: Progress) -> GenerationJob:
    """Return the job after finding, before any work, what would stop it later. Loads no weights and writes nothing.

    store: the label store for generate.least_point.
    Raises PdadaptError for everything that the user can correct.
    """
    check_parent_folder(out)
    if out.suffix != ".jsonl":
        raise DataError(f"{out}: the queries are written as JSONL. Choose a name that ends in .jsonl.")
    notices = Notices()
    job = GenerationJob(recipe, dataset.corpus, read_examples(recipe.generate, notices), out, store, progress)
    notices.say(progress.say)
    if out.exists():
        if not job.report.exists():
            raise RunError(f"{out} already exists and was not written by this command. Name another file.")
        if changes := origin_changes(job.report, job.origin):
            raise settings_error(out, changes)
        return job
    check_writer(recipe)
    searching = recipe.retrieve if recipe.generate.round_trip == "student" else RetrieveSettings()
    check_model(recipe.student.model, {"kind": recipe.student.kind}, searching)
    if recipe.generate.least_point is not None:
        check_teacher(recipe.teacher, "point", {""}, store, dataset.corpus)
    if not job.sources.exists():
        _ = job.usable_documents
    return job


def read_examples(generate: GenerateSettings, notices: Notices | None = None) -> list[str]:
    """Return the real queries of generate.examples. Raises DataError if the file is missing or malformed."""
    return list(read_queries(Path(generate.examples), notices).values()) if generate.examples else []


def requested_settings(generate: GenerateSettings, examples: Sequence[str]) -> dict[str, Any]:
    """Return everything in the settings `generate` that the queries depend on, except which model writes."""
    return {
        "generate": generate.model_dump(mode="json", exclude={"model", "kinds", "examples", "prompts"}),
        "generate.model": "its own" if generate.model else "the teacher's",
        "kinds": kinds.shares(examples, generate.kinds),
        "examples_sha256": fingerprint(("", text) for text in examples) if examples else None,
        "prompts": {name: prompt.sha256 for name, prompt in writing_prompts(generate).items()},
    }


def origin_changes(file: Path, origin: dict[str, Any]) -> list[Change]:
    """Return where an origin differs from the one in the file, a report or settings.json."""
    parts = read_settings(file).get("from", {}), json.loads(json.dumps(origin))
    # The model itself is compared as `writer`, whichever setting names it.
    before, now = ({key: part[key] for key in part if key != "generate.model"} for part in parts)
    return differences(before, now)


def settings_error(
    path: Path, changes: Sequence[Change], remedy: str = "Name another file, or remove this one."
) -> RunError:
    """Return the error for queries at `path` that were written with other settings."""
    return RunError(f"{path} holds queries of other settings: {name_changes(changes)}. {remedy}")


def check_written_queries(out: Path, recipe: Recipe) -> None:
    """Raises RunError if the queries in `out`, which a run uses, were written with other settings `generate`.

    Student, teacher and seed may differ, since the run has settings of its own for them.
    """
    report = report_file(out)
    if not report.exists():
        raise RunError(f"{out} was not written by this command. Use it with --queries {out}, or choose another --out.")
    origin = read_settings(report).get("from", {})
    remedy = f"Keep them with --queries {out}, or have others written with another --out."
    try:
        wanted = requested_settings(recipe.generate, read_examples(recipe.generate))
    except DataError as error:
        raise DataError(f"{error} The queries are already written. {remedy}") from None
    written = {key: origin.get(key) for key in wanted}
    if recipe.generate.model:
        written["generate.model"] = origin.get("writer", {}).get("model")
        wanted["generate.model"] = writer_identity(recipe)["model"]
    if changes := differences(written, json.loads(json.dumps(wanted))):
        raise settings_error(out, changes, remedy)


def work_folder(out: Path) -> Path:
    """Return the folder of intermediate files for a query file."""
    return out.with_name(out.name + ".work")


def report_file(out: Path) -> Path:
    """Return the report of a query file."""
    return out.with_name(out.name + ".report.json")
