"""The forgetting check: rank a general set that has nothing to do with the corpus."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pdadapt.data.load import load_dataset
from pdadapt.data.run_file import write_run
from pdadapt.retrieval.engines.exact import Exact
from pdadapt.retrieval.search import index_corpus, retrieve
from pdadapt.runs.context import RunContext
from pdadapt.students.load import load_student

GENERAL_CORPUS = "general"  # name of the general set, which ships with the package
GENERAL_MEASURE, GENERAL_DEPTH = "nDCG@10", 10


def rank_general(context: RunContext, iteration: int) -> None:
    """Rank the general set with the student of an iteration. Leaves general.run; does nothing if it is there."""
    recipe, run, progress = context.recipe, context.run, context.progress
    file = run.iteration(iteration) / "general.run"
    if not recipe.evaluate.general or file.exists():
        return
    general = load_dataset(GENERAL_CORPUS)
    engine = Exact(load_student(str(run.checkpoint(iteration)), recipe.student), recipe.retrieve.batch_tokens)
    with progress.within("general set: "), tempfile.TemporaryDirectory() as index:
        index_corpus(engine, general.corpus, Path(index), progress)
        ranking = retrieve(engine, general.corpus, general.test_queries, Path(index), GENERAL_DEPTH, progress)
    write_run(file, ranking.items(), f"iteration-{iteration}")
