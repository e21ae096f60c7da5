"""Queries that a run of `adapt` writes for a corpus without queries."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pdadapt.data.corpus import Dataset
from pdadapt.data.load import with_queries
from pdadapt.errors import RunError
from pdadapt.generation.job import GenerationJob, check_written_queries, prepare, work_folder
from pdadapt.generation.write import write_queries
from pdadapt.models.token_budget import batch_limits
from pdadapt.preflight import check
from pdadapt.runs.folder import RunFolder
from pdadapt.runs.stages import StageName
from pdadapt.runtime.files import read_settings
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import Recipe
from pdadapt.training import distributed


def write_own_queries(
    recipe: Recipe, dataset: Dataset, run: RunFolder, progress: Progress, restart_from: StageName | None = None
) -> Dataset:
    """The dataset with the queries that an LLM has written for this run, or writes now."""
    found = own_queries(recipe, dataset, run, progress, restart_from)
    if isinstance(found, GenerationJob):
        progress.say(f"Corpus {dataset.name!r} has no queries, so an LLM writes them first.")
        with run.locked():
            progress.log_to(run.path / "timings.jsonl", run.path / "progress.json")
            batch_limits.keep_in(run.path / "memory.json")
            write_queries(found)
        return with_queries(dataset, found.out)
    shutil.rmtree(work_folder(run.written_queries), ignore_errors=True)  # A killed process may have left it.
    return found


def own_queries(
    recipe: Recipe, dataset: Dataset, run: RunFolder, progress: Progress, restart_from: StageName | None = None
) -> Dataset | GenerationJob:
    """The dataset with the queries that were written for this run, or the generation that is still to be done.

    Everything that would stop the generation or the run is checked. Nothing is loaded or written. Raises PdadaptError
    on what the user can mend.
    """
    file = run.written_queries
    if file.exists():
        check_written_queries(file, recipe)
        return with_queries(dataset, file)
    if distributed.processes() > 1:
        raise RunError(
            f"Corpus {dataset.name!r} has no queries, and only one process can write them. Start without the launcher, "
            "or write them first with `pdadapt queries`."
        )
    if run.run_file.exists():
        source = (read_settings(run.run_file).get("source") or {}).get("queries")
        which = f"the queries in {source}" if source else "the queries of its corpus"
        gone = ", which is missing" if source and not Path(source).exists() else ""
        raise RunError(f"{run.path} holds a run with {which}{gone}. Give them with --queries, or choose another --out.")
    check(recipe, stand_ins(dataset, ["any"]), run.path, progress, restart_from)
    run.check(recipe, {}, restart_from)
    return prepare(recipe, dataset, file, run.store(recipe), progress)


def stand_ins(dataset: Dataset, texts: Sequence[str]) -> Dataset:
    """The dataset with these texts in place of the queries to be written, each with a relevant document."""
    queries = {f"g{number}": text for number, text in enumerate(texts, 1)}
    first = next(iter(dataset.corpus)).doc_id
    return replace(dataset, queries=queries, read_train_qrels=lambda: {query_id: {first: 1} for query_id in queries})
