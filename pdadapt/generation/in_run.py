"""Queries that a run writes for a corpus that brings none."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pdadapt.data.corpus import Dataset
from pdadapt.data.load import with_queries
from pdadapt.errors import RunError
from pdadapt.generation.stage import write_queries
from pdadapt.generation.writing import Writing, check_as_asked, prepare, work_of
from pdadapt.models.memory import batch_limits
from pdadapt.preflight import check
from pdadapt.runs.changes import Stage
from pdadapt.runs.folder import RunFolder
from pdadapt.runtime.files import read_settings
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import Recipe
from pdadapt.training import distributed


def write_own_queries(
    recipe: Recipe, dataset: Dataset, run: RunFolder, progress: Progress, restart_from: Stage | None = None
) -> Dataset:
    """The dataset with queries that an LLM writes about it, or has written for this run."""
    found = own_queries(recipe, dataset, run, progress, restart_from)
    if isinstance(found, Writing):
        progress.say(f"Corpus {dataset.name!r} brings no queries, so they are written first.")
        with run.locked():
            progress.log_to(run.path / "timings.jsonl", run.path / "progress.json")
            batch_limits.remember(run.path / "memory.json")
            write_queries(found)
        return with_queries(dataset, found.out)
    shutil.rmtree(work_of(run.written_queries), ignore_errors=True)  # which a kill has left
    return found


def own_queries(
    recipe: Recipe, dataset: Dataset, run: RunFolder, progress: Progress, restart_from: Stage | None = None
) -> Dataset | Writing:
    """The dataset with the queries that were written for this run; or the writing that is to be done, when all is
    checked that would stop it or the run. Nothing is loaded or written. Raises PdadaptError on what the user can mend.
    """
    file = run.written_queries
    if file.exists():
        check_as_asked(file, recipe)
        return with_queries(dataset, file)
    if distributed.processes() > 1:
        raise RunError(
            f"Corpus {dataset.name!r} brings no queries, and one process writes them: begin without the launcher, or "
            "write them first with `pdadapt queries`."
        )
    if run.run_file.exists():
        source = (read_settings(run.run_file).get("source") or {}).get("queries")
        which = f"the queries in {source}" if source else "queries that came with its corpus"
        gone = ", which is gone" if source and not Path(source).exists() else ""
        raise RunError(f"{run.path} holds a run of {which}{gone}; give them with --queries, or give another --out.")
    check(recipe, stand_ins(dataset, ["any"]), run.path, restart_from)
    run.check(recipe, {}, restart_from)
    return prepare(recipe, dataset, file, run.store(recipe), progress)


def stand_ins(dataset: Dataset, texts: Sequence[str]) -> Dataset:
    """The dataset with these as the queries that are to be written, each with its label."""
    queries = {f"g{number}": text for number, text in enumerate(texts, 1)}
    first = next(iter(dataset.corpus)).doc_id
    return replace(dataset, queries=queries, read_train_qrels=lambda: {query_id: {first: 1} for query_id in queries})
