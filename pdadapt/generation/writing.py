"""Queries that are to be written: about what, by whom, into which file; and whether all that can be had."""

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
from pdadapt.generation import mix, sources
from pdadapt.generation.report import count_reasons
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
from pdadapt.students.colbert import PCA_DOCUMENTS
from pdadapt.teachers.label_key import teacher_key


@dataclass(frozen=True)
class Writing:
    """Queries that are being written."""

    recipe: Recipe
    corpus: Corpus
    examples: Sequence[str]  # real queries
    out: Path
    store: Path  # of labels
    progress: Progress

    @property
    def report(self) -> Path:
        return report_of(self.out)

    @property
    def folder(self) -> Path:
        """Of the work."""
        return work_of(self.out)

    @property
    def sources(self) -> Path:
        return self.folder / "sources.json"

    @cached_property
    def origin(self) -> dict[str, Any]:
        """What the queries depend on. Raises PdadaptError when a part of it is not there."""
        recipe = self.recipe
        origin = {
            "corpus_sha256": self.corpus.fingerprint,
            "seed": recipe.seed,
            **as_asked(recipe.generate, self.examples),
            "writer": writer_identity(recipe),
        }
        if self.clustered or recipe.generate.round_trip == "student":
            student = recipe.student.model_dump(mode="json")
            origin["student"] = {**student, "model": resolve_model(recipe.student.model).identity()}
        if recipe.generate.least_point is not None:
            origin["teacher"] = json.loads(teacher_key(recipe.teacher, "point"))
        return origin

    @property
    def clustered(self) -> bool:
        """Whether documents may be chosen among more than are needed: by the student's embeddings."""
        return len(self.corpus) > self.recipe.generate.count

    def judges(self, key: str) -> bool:
        """Whether this part of the origin changes no answer, but only which are kept."""
        return (
            key in ("generate.round_trip", "generate.k", "generate.least_point")
            or key.startswith("teacher")
            or (key.startswith("student") and not self.clustered)
        )

    @cached_property
    def shares(self) -> dict[QueryKind, float]:
        return mix.shares(self.examples, self.recipe.generate.kinds)

    @cached_property
    def fit(self) -> tuple[list[int], Counter[str]]:
        """Positions of documents that are fit to be written about; why the others that were looked at are not.

        Raises DataError when none is.
        """
        documents = self.corpus.documents
        positions = sources.draw(len(documents), self.recipe.generate.count, self.recipe.seed)
        with self.progress.task("look at documents", len(positions), "documents") as advance:
            left_out = sources.left_out((documents[position].contents for position in positions), advance)
        fit = [position for position, reason in zip(positions, left_out, strict=True) if reason is None]
        if not fit:
            raise DataError(
                f"No document of the corpus is one to write queries about ({count_reasons(left_out)}); bring queries "
                "with --queries FILE."
            )
        return fit, Counter(filter(None, left_out))

    @cached_property
    def engine(self) -> Engine:
        """What finds documents again, with its index."""
        recipe = self.recipe
        name = BASELINE if recipe.generate.round_trip == "bm25" else recipe.student.model
        settings = recipe.student.model_dump(exclude={"model"})
        engine = load_engine(name, settings, self.corpus.sample(PCA_DOCUMENTS), recipe.retrieve)
        origin = index_origin(name, self.corpus, settings, recipe.retrieve)
        index_corpus(engine, self.corpus, self.folder / "index", self.progress, origin)
        return engine


def prepare(recipe: Recipe, dataset: Dataset, out: Path, store: Path, progress: Progress) -> Writing:
    """Find before any work what would stop it in the middle; no weights are loaded, and nothing is written.

    store: where the teacher's labels are kept, if generate.least_point asks for them. Raises PdadaptError on anything
    the user can mend.
    """
    check_parent_folder(out)
    if out.suffix != ".jsonl":
        raise DataError(f"{out}: the queries are written as JSONL; give a name that ends in .jsonl.")
    notices = Notices()
    writing = Writing(recipe, dataset.corpus, read_examples(recipe.generate, notices), out, store, progress)
    notices.say(progress.say)
    if out.exists():
        if not writing.report.exists():
            raise RunError(f"{out} is there already, and was not written by this command; give another file.")
        if changes := differing(writing.report, writing.origin):
            raise other_settings(out, changes)
        return writing
    check_writer(recipe)
    searching = recipe.retrieve if recipe.generate.round_trip == "student" else RetrieveSettings()
    check_model(recipe.student.model, {"kind": recipe.student.kind}, searching)
    if recipe.generate.least_point is not None:
        check_teacher(recipe.teacher, "point", {""}, store)
    if not writing.sources.exists():
        _ = writing.fit
    return writing


def read_examples(generate: GenerateSettings, notices: Notices | None = None) -> list[str]:
    """Raises DataError when their file is missing or malformed."""
    return list(read_queries(Path(generate.examples), notices).values()) if generate.examples else []


def as_asked(generate: GenerateSettings, examples: Sequence[str]) -> dict[str, Any]:
    """What the queries depend on of that which the section `generate` says; the model is another matter."""
    return {
        "generate": generate.model_dump(mode="json", exclude={"model", "kinds", "examples", "prompts"}),
        "generate.model": "its own" if generate.model else "the teacher's",
        "kinds": mix.shares(examples, generate.kinds),
        "examples_sha256": fingerprint(("", text) for text in examples) if examples else None,
        "prompts": {name: prompt.sha256 for name, prompt in writing_prompts(generate).items()},
    }


def differing(file: Path, origin: dict[str, Any]) -> list[Change]:
    """Where an origin differs from that which this file tells of."""
    parts = read_settings(file).get("from", {}), json.loads(json.dumps(origin))
    found, wanted = ({key: part[key] for key in part if key != "generate.model"} for part in parts)
    return differences(found, wanted)  # the model itself is `writer`, by whichever setting


def other_settings(place: Path, changes: Sequence[Change], ways: str = "give another file, or remove it") -> RunError:
    """What to say, and what to do, when what is there was made in another way."""
    return RunError(f"{place} holds queries of other settings: {name_changes(changes)}; {ways}.")


def check_as_asked(out: Path, recipe: Recipe) -> None:
    """Raises RunError when the queries of this file, from which a run goes on, were asked for in another way: by other
    settings of the section `generate`. Student, teacher and seed, which the run has for itself too, may differ.
    """
    report = report_of(out)
    if not report.exists():
        raise RunError(f"{out} was not written by this command; use it with --queries {out}, or give another --out.")
    origin = read_settings(report).get("from", {})
    ways = f"keep them with --queries {out}, or have others written with another --out"
    try:
        wanted = as_asked(recipe.generate, read_examples(recipe.generate))
    except DataError as error:
        raise DataError(f"{error} The queries are there already: {ways}.") from None
    found = {key: origin.get(key) for key in wanted}
    if recipe.generate.model:
        found["generate.model"] = origin.get("writer", {}).get("model")
        wanted["generate.model"] = writer_identity(recipe)["model"]
    if changes := differences(found, json.loads(json.dumps(wanted))):
        raise other_settings(out, changes, ways)


def work_of(out: Path) -> Path:
    return out.with_name(out.name + ".work")


def report_of(out: Path) -> Path:
    return out.with_name(out.name + ".report.json")
