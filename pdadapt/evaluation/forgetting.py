"""The forgetting check: rank a general set that is not the corpus adapted to."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pdadapt.data.load import load_dataset
from pdadapt.data.run_file import write_run
from pdadapt.retrieval.engines.exact import Exact
from pdadapt.retrieval.search import index_corpus, retrieve
from pdadapt.runs.folder import RunFolder
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import Recipe
from pdadapt.students.load import load_configured


def rank_general(recipe: Recipe, run: RunFolder, iteration: int, progress: Progress) -> None:
    """The forgetting guard: rank the general set, which is none of the corpus adapted to, with this student."""
    file = run.iteration(iteration) / "general.run"
    if not recipe.evaluate.general or file.exists():
        return
    general = load_dataset(GENERAL)
    engine = Exact(load_configured(str(run.checkpoint(iteration)), recipe.student), recipe.retrieve.batch_tokens)
    progress.prefix = "general set: "
    with tempfile.TemporaryDirectory() as index:
        index_corpus(engine, general.corpus, Path(index), progress)
        ranking = retrieve(engine, general.corpus, general.test_queries, Path(index), GENERAL_DEPTH, progress)
    progress.prefix = ""
    write_run(file, ranking.items(), f"iteration-{iteration}")


GENERAL = "general"  # the set of the forgetting guard, by its name as a corpus
GENERAL_MEASURE, GENERAL_DEPTH = "nDCG@10", 10
