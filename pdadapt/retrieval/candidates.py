"""Stage `retrieve`: rank the candidates of the training queries, and the test queries."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterable
from pathlib import Path

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
from pdadapt.runs.context import RunContext
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import Recipe, RetrieveSettings, StudentSettings
from pdadapt.students.load import load_student


def retrieve_candidates(context: RunContext, iteration: int, candidates: bool = True) -> None:
    """Rank documents with the student after `iteration` iterations: for the test queries, and for the next training.

    The test queries' ranking goes into `test.run` of this iteration, the candidates of the training queries into
    `candidates.run` of the next one. retrieve.model replaces the student for the first candidates, and retrieve.sources
    may add BM25's candidates or take only those. All rankings of a model use one index, which is removed once they are
    on disk.

    candidates: False after the last iteration.
    """
    recipe, run, progress, cluster = context.recipe, context.run, context.progress, context.cluster
    corpus, queries, test_queries = context.corpus, context.queries, context.test_queries
    test_file = run.iteration(iteration) / "test.run"
    candidates_file = run.iteration(iteration + 1) / "candidates.run"
    student = str(run.checkpoint(iteration))
    starter = student if iteration or not recipe.retrieve.model else recipe.retrieve.model
    index = run.iteration(iteration) / "index"
    needs_candidates = candidates and not candidates_file.exists()
    bm25 = None
    if needs_candidates and BASELINE in recipe.retrieve.sources:
        bm25 = rank_by_bm25(corpus, queries, run.iteration(0) / "bm25.run", recipe.retrieve.k, progress)
        if "student" not in recipe.retrieve.sources:
            check_bm25_rankings(bm25, queries, progress)
            write_run(candidates_file, fuse_sources(((name, []) for name in bm25), bm25, recipe.retrieve), BASELINE)
            needs_candidates = False
    for name in dict.fromkeys([student, starter]):
        rankings = []
        if test_queries and name == student and not test_file.exists():
            rankings.append((test_file, test_queries, recipe.evaluate.depth))
        if needs_candidates and name == starter:
            rankings.append((candidates_file, queries, recipe.retrieve.k))
        if rankings:
            settings = recipe.student if name == student else starter_settings(recipe)
            encode = None
            if cluster:
                from pdadapt.retrieval.engines.remote import encode_on

                encode = functools.partial(encode_on, cluster, name, settings, recipe.retrieve.batch_tokens)
            engine = make_engine(load_student(name, settings), recipe.retrieve, encode)
            index_corpus(engine, corpus, index, progress, {"model": name})
            for file, texts, k in rankings:
                ranking: Iterable[tuple[str, Ranked]]
                if file == test_file:
                    ranking = retrieve_documents(engine, corpus, texts, index, k, progress).items()
                else:
                    ranking = (each[:2] for each in search(engine, corpus, texts, index, k, progress))
                    ranking = ranking if bm25 is None else fuse_sources(ranking, bm25, recipe.retrieve)
                write_run(file, ranking, f"iteration-{iteration}")
    shutil.rmtree(index, ignore_errors=True)


def check_bm25_rankings(bm25: TrecRunFile, queries: Queries, progress: Progress) -> None:
    """Say how many queries have no candidates if BM25 is the only source. Raises DataError if no query has any."""
    if not bm25:
        raise DataError(
            "BM25 finds no document for any query, so there are no candidates. Start again with --set "
            "retrieve.sources=[student] --restart-from retrieve."
        )
    if len(bm25) < len(queries):
        progress.say(
            f"BM25 finds no document for {len(queries) - len(bm25):,} of {len(queries):,} queries. They are left out."
        )


def starter_settings(recipe: Recipe) -> StudentSettings:
    """Return the settings of retrieve.model, a ColBERT that retrieves the first candidates instead of the student."""
    shared = recipe.student.model_dump(include={"query_length", "document_length", "dtype"})
    return StudentSettings(**shared)


def rank_by_bm25(corpus: Corpus, queries: Queries, file: Path, k: int, progress: Progress) -> TrecRunFile:
    """Return BM25's k best documents of each query. They are read from `file`, or ranked now and written there.

    The index is removed once the file is complete.
    """
    index = file.with_suffix(".index")
    if not file.exists():
        with progress.within("BM25: "):
            engine = load_engine(BASELINE, {}, (), RetrieveSettings())
            index_corpus(engine, corpus, index, progress, {"model": identity(BASELINE)})
            write_run(file, (each[:2] for each in search(engine, corpus, queries, index, k, progress)), BASELINE)
    shutil.rmtree(index, ignore_errors=True)
    return TrecRunFile(file)
