"""Stage `retrieve`: rank the candidates of the training queries, and the test queries."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdadapt.data.corpus import Corpus, Queries
from pdadapt.data.run_file import Ranked, TrecRunFile, write_run
from pdadapt.errors import DataError
from pdadapt.retrieval.engines.load import (
    BASELINE,
    identity,
    load_engine,
    make_engine,
)
from pdadapt.retrieval.fusion import fuse_sources
from pdadapt.retrieval.search import index_corpus, retrieve_documents, search
from pdadapt.runs.folder import RunFolder
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import Recipe, RetrieveSettings
from pdadapt.students.load import load_student

if TYPE_CHECKING:
    from pdadapt.runtime.ray_cluster import RayCluster


def rank(
    recipe: Recipe,
    corpus: Corpus,
    queries: Queries,
    test_queries: Queries,
    depth: int,
    run: RunFolder,
    iteration: int,
    progress: Progress,
    cluster: RayCluster | None = None,
) -> None:
    """Rank test queries to this depth, and training queries for the next iteration, with the student of `iteration`.

    The first candidates may come from another model (retrieve.model), and all from BM25 too, or from it alone
    (retrieve.sources). One index serves all rankings of a model, and is removed when they are on disk.
    """
    test_file = run.iteration(iteration) / "test.run"
    candidates_file = run.iteration(iteration + 1) / "candidates.run"
    student = str(run.checkpoint(iteration))
    starter = student if iteration or not recipe.retrieve.model else recipe.retrieve.model
    index = run.iteration(iteration) / "index"
    wanted = bool(queries) and not candidates_file.exists()
    bm25 = None
    if wanted and BASELINE in recipe.retrieve.sources:
        bm25 = rank_by_bm25(corpus, queries, run.iteration(0) / "bm25.run", recipe.retrieve.k, progress)
        if "student" not in recipe.retrieve.sources:
            check_found(bm25, queries, progress)
            write_run(candidates_file, fuse_sources(((name, []) for name in bm25), bm25, recipe.retrieve), BASELINE)
            wanted = False
    for name in dict.fromkeys([student, starter]):
        asked = []
        if test_queries and name == student and not test_file.exists():
            asked.append((test_file, test_queries, depth))
        if wanted and name == starter:
            asked.append((candidates_file, queries, recipe.retrieve.k))
        if asked:
            settings = recipe.student.model_dump(exclude={"model"}) if name == student else starter_settings(recipe)
            encode = None
            if cluster:
                from pdadapt.retrieval.engines.remote import encode_on

                encode = functools.partial(encode_on, cluster, name, settings, recipe.retrieve.batch_tokens)
            engine = make_engine(load_student(name, **settings), recipe.retrieve, encode)
            index_corpus(engine, corpus, index, progress, {"model": name})
            for file, texts, k in asked:
                found: Iterable[tuple[str, Ranked]]
                if file == test_file:
                    found = retrieve_documents(engine, corpus, texts, index, k, progress).items()
                else:
                    found = (each[:2] for each in search(engine, corpus, texts, index, k, progress))
                    found = found if bm25 is None else fuse_sources(found, bm25, recipe.retrieve)
                write_run(file, found, f"iteration-{iteration}")
    shutil.rmtree(index, ignore_errors=True)


def check_found(bm25: TrecRunFile, queries: Queries, progress: Progress) -> None:
    """Say how many queries are left out, since BM25, the one source, found nothing. Raises DataError when all are."""
    if not bm25:
        raise DataError(
            "BM25 finds no document for any query, so there are no candidates; begin anew with --set "
            "retrieve.sources=[student] --restart-from retrieve."
        )
    if len(bm25) < len(queries):
        progress.say(f"BM25 finds nothing for {len(queries) - len(bm25):,} of {len(queries):,} queries: left out.")


def starter_settings(recipe: Recipe) -> dict[str, Any]:
    """Of the retriever of the first candidates, a ColBERT, when it is not the student."""
    return recipe.student.model_dump(include={"query_length", "document_length", "dtype"})


def rank_by_bm25(corpus: Corpus, queries: Queries, file: Path, k: int, progress: Progress) -> TrecRunFile:
    """BM25's k best of each query: what `file` holds, or made now; its index goes when that is on disk."""
    index = file.with_suffix(".index")
    if not file.exists():
        stage = progress.prefix
        progress.prefix = f"{stage}BM25: "
        engine = load_engine(BASELINE, {}, (), RetrieveSettings())
        index_corpus(engine, corpus, index, progress, {"model": identity(BASELINE)})
        write_run(file, (each[:2] for each in search(engine, corpus, queries, index, k, progress)), BASELINE)
        progress.prefix = stage
    shutil.rmtree(index, ignore_errors=True)
    return TrecRunFile(file)
