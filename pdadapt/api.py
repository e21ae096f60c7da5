"""The commands as functions: what `from pdadapt import adapt, evaluate, rerank` gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from pdadapt.data.corpus import Dataset
from pdadapt.data.load import load_dataset
from pdadapt.errors import RunError
from pdadapt.evaluation import evaluate as evaluation
from pdadapt.evaluation.reranking import Reranked, rerank_file
from pdadapt.evaluation.results import Metrics, RunMetrics
from pdadapt.evaluation.systems import choose_systems
from pdadapt.pipeline import adapt as run_adapt
from pdadapt.runs.stages import StageName
from pdadapt.runtime.progress import Progress, quiet_libraries
from pdadapt.runtime.terminal import console
from pdadapt.settings.recipes import load_recipe
from pdadapt.settings.schema import Recipe
from pdadapt.teachers.base import Task
from pdadapt.training.distributed import processes

Corpora = Dataset | str | Path  # a dataset, or what `--corpus` takes
Recipes = Recipe | str | None  # a recipe, the name of one, or None for the default of this machine


def adapt(
    dataset: Corpora,
    recipe: Recipes = None,
    out: str | Path = "runs/adapted",
    *,
    restart_from: StageName | None = None,
    quiet: bool = False,
) -> RunMetrics:
    """Adapt a retriever to a corpus, as `pdadapt adapt` does, and return what metrics.json holds.

    If the run was stopped, the same call resumes it. If it is finished, the same call returns its result.

    Args:
        dataset: a Dataset of `load_dataset`, or a name or path that `--corpus` takes.
        recipe: a Recipe of `load_recipe`, or its name. None is `default` on a machine with a GPU, else `small`.
        out: the run folder. The adapted student is `checkpoint` of the result.
        restart_from: redo this stage and all later ones after settings changed.
        quiet: print no progress.

    Raises:
        PdadaptError: on anything the user can mend. Most of it is found before any work.
    """
    if processes() > 1:
        raise RunError("adapt() works in one process. Use the command `pdadapt adapt` with a launcher.")
    resolved, progress = _recipe(recipe), _progress(quiet)
    metrics = run_adapt(resolved, _dataset(dataset, resolved), Path(out), progress, restart_from)
    assert metrics is not None  # None only under a launcher, or if the run stops before labeling
    return metrics


def evaluate(
    dataset: Corpora,
    model: str | Path,
    against: Sequence[str | Path] = (),
    out: str | Path | None = None,
    *,
    recipe: Recipes = None,
    bm25: bool = False,
    quiet: bool = False,
) -> Metrics:
    """Measure a model or a run on relevance judgments, and compare it with baselines, as `pdadapt evaluate` does.

    Args:
        dataset: a Dataset with judgments, or a name or path that `--corpus` takes.
        model: a run folder, a checkpoint folder, a hub id, `package:NAME/PATH`, `bm25`, or a TREC run file.
        against: baselines of the same kinds. The result compares the model with each of them.
        out: the folder for run files and metrics.json. None is runs/evaluate-CORPUS.
        recipe: gives the measures, the depth, the seed and the engine.
        bm25: measure BM25 too, and compare with it if there are no other baselines.
        quiet: print no progress.

    Raises:
        DataError: the corpus has no judgments.
        ModelError: a model does not load.
    """
    resolved, progress = _recipe(recipe), _progress(quiet)
    dataset = _dataset(dataset, resolved)
    dataset.notices.say(progress.say)
    systems = choose_systems(str(model), list(map(str, against)), bm25)
    folder = Path(out) if out else Path("runs") / f"evaluate-{dataset.name.replace('/', '-')}"
    return evaluation.evaluate(
        systems.names,
        dataset,
        resolved.evaluate,
        resolved.student.model_dump(include={"dtype"}),
        folder,
        resolved.seed,
        resolved.retrieve,
        progress,
        systems.compared_pairs,
    )


def rerank(
    dataset: Corpora,
    run: str | Path,
    out: str | Path,
    recipe: Recipes = None,
    *,
    by: Task = "point",
    top: int = 20,
    quiet: bool = False,
) -> Reranked:
    """Rerank a TREC run file with the teacher of a recipe, as `pdadapt rerank` does.

    Args:
        dataset: the dataset of the run, or a name or path that `--corpus` takes.
        run: the run file.
        out: the new run file.
        recipe: gives the teacher and its prompts.
        by: `point` judges single documents, `pair` judges all pairs of them (the command says `points` and `pairs`).
        top: how many documents of each query are reranked.
        quiet: print no progress.

    Raises:
        DataError: the run does not belong to the dataset.
        ModelError: the teacher gives no answer.
    """
    resolved, progress = _recipe(recipe), _progress(quiet)
    dataset = _dataset(dataset, resolved)
    dataset.notices.say(progress.say)
    return rerank_file(Path(run), Path(out), dataset, resolved, by, top, progress)


def _dataset(dataset: Corpora, recipe: Recipe) -> Dataset:
    return dataset if isinstance(dataset, Dataset) else load_dataset(str(dataset), split=recipe.evaluate.split)


def _recipe(recipe: Recipes) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    return load_recipe(recipe or ("default" if torch.cuda.is_available() else "small"))


def _progress(quiet: bool) -> Progress:
    quiet_libraries()
    return Progress(console(quiet=True) if quiet else None)
