"""What a run will cost, before it is begun: a small sample of each stage is timed on this machine and scaled up."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from pdadapt.data.corpus import Dataset
from pdadapt.errors import RunError
from pdadapt.generation.in_run import own_queries, stand_ins
from pdadapt.generation.job import GenerationJob
from pdadapt.generation.kinds import FIRST_BATCH, MAX_PER_KEPT
from pdadapt.labeling.store import count_labels
from pdadapt.planning.costs import PAPER, Cost, Rates, Shape, cheaper, costs, disk, prompts, scale, total
from pdadapt.planning.measure import SAMPLE_QUERIES, measure, measure_writing
from pdadapt.preflight import check, many_passes, with_precision
from pdadapt.runs.folder import RunFolder
from pdadapt.runs.stages import StageName
from pdadapt.runtime.progress import Progress
from pdadapt.settings.recipes import load_recipe
from pdadapt.settings.schema import Recipe
from pdadapt.teachers.base import Task
from pdadapt.training.distributed import processes


@dataclass(frozen=True)
class Plan:
    """What a run will cost here; all times in seconds, all sizes in bytes."""

    shape: Shape
    costs: list[Cost]
    memory: Mapping[str, int]  # the highest so far, stage by stage: of the GPU, else of this machine
    memory_all: int
    disk: Mapping[str, float]
    disk_free: int
    labeled: Mapping[Task, int]  # what the store holds of this teacher
    cheaper: Mapping[str, float]  # the total with this setting
    paper: Mapping[str, float]  # the total of a run of the paper, with the paper's models
    fit: tuple[int, int] = (0, 0)  # of the queries that were written to try: so many could be kept, of so many


def plan(
    recipe: Recipe, dataset: Dataset, out: Path, progress: Progress, restart_from: StageName | None = None
) -> Plan | None:
    """Check everything that the run needs, time a sample of each stage, and add up. Nothing is left behind; None when
    nothing is left to do.

    Raises what `pipeline.adapt` would, and RunError when the disk is too small or cannot be written to.
    """
    if processes() > 1:
        raise RunError("--plan is for one process: give it without the launcher.")
    if not os.access(existing(out), os.W_OK):
        raise RunError(f"{out} cannot be written to; give another --out.")
    recipe = with_precision(recipe, RunFolder(out))
    there = dataset if dataset.queries else own_queries(recipe, dataset, RunFolder(out), progress, restart_from)
    writing = there if isinstance(there, GenerationJob) else None
    dataset = stand_ins(dataset, texts_like_queries(recipe, dataset)) if isinstance(there, GenerationJob) else there
    context = check(recipe, dataset, out, progress, restart_from)
    _, outdated = context.run.check(recipe, context.origin, restart_from)
    if said := many_passes(recipe.train, len(context.queries) - len(context.held_out)):
        progress.say(said)
    sizes = Shape(len(dataset.corpus), len(context.queries), len(context.test_queries))
    shape = shape_of(context.run, recipe, sizes, context.label_keys, outdated)
    any_rates = Rates(
        prompt=dict.fromkeys(context.label_keys, 0.0), prompt_tokens=dict.fromkeys(context.label_keys, 0.0)
    )
    if not costs(recipe, shape, any_rates):
        return None
    start = time.process_time()
    rates, parameters = measure(recipe, dataset.corpus, context.queries, list(context.label_keys), progress)
    rates.start = start
    fit_to_keep = (0, 0)
    if writing:
        fit_to_keep = measure_writing(writing, rates, progress)
        shape = written_first(shape, writing, *fit_to_keep)
    needed, free = disk(recipe, shape, rates), shutil.disk_usage(existing(out)).free
    if sum(needed.values()) > free:
        raise RunError(
            f"{out} would hold up to {sum(needed.values()) / 1e9:,.1f} GB, and its disk has {free / 1e9:,.1f} GB free: "
            "give an --out on a larger one, or fewer queries with --set retrieve.max_queries=N."
        )
    labeled: dict[Task, int] = {
        task: count_labels(context.run.store(recipe), f"{task}s", key) for task, key in context.label_keys.items()
    }
    paper = {
        name: total(costs(theirs, size, scale(theirs, rates, parameters, teachers)))
        for name, (size, recipe_name, teachers) in PAPER.items()
        for theirs in [load_recipe(recipe_name)]
        if parameters["teacher"]
    }
    found = costs(recipe, shape, rates)
    ways = cheaper(recipe, shape, rates)
    return Plan(shape, found, rates.memory, all_memory(), needed, free, labeled, ways, paper, fit_to_keep)


def texts_like_queries(recipe: Recipe, dataset: Dataset) -> list[str]:
    """As many as queries are to be written: the beginnings of documents."""
    texts = [text[:100] or "any" for text in dataset.corpus.sample(SAMPLE_QUERIES)]
    return [texts[number % len(texts)] for number in range(recipe.generate.count)]


def written_first(shape: Shape, writing: GenerationJob, kept: int, tried: int) -> Shape:
    """With the queries to write for those that are wanted, if as many as of those that were tried are fit by their
    text (of none, so many as are written before it is given up), and the documents to embed.
    """
    kinds, wanted, (fit, _) = len(writing.shares), writing.recipe.generate.count, writing.usable_documents
    written = math.ceil(wanted * tried / kept) if kept else MAX_PER_KEPT * kinds
    written = min(max(FIRST_BATCH, written), len(fit) * kinds)
    return replace(shape, written=written, embedded=len(fit) * (len(fit) > wanted))


def shape_of(run: RunFolder, recipe: Recipe, sizes: Shape, keys: Mapping[Task, str], outdated: Sequence[Path]) -> Shape:
    """These sizes, with what the run folder, without what is outdated there, and the label store hold already."""

    def done(name: str) -> int:
        return sum(
            not any(path.is_relative_to(old) for old in outdated) for path in run.path.glob(f"iteration-*/{name}")
        )

    labeled = done("lists.jsonl")
    stored: dict[Task, int] = {task: count_labels(run.store(recipe), f"{task}s", key) for task, key in keys.items()}
    known = {task: max(0, number - labeled * prompts(recipe, sizes, task)) for task, number in stored.items()}
    return replace(
        sizes,
        retrieved=done("candidates.run"),
        labeled=labeled,
        trained=done("checkpoint"),
        tested=done("test.run"),
        guarded=done("general.run"),
        known={} if recipe.label_store or outdated else known,  # nobody knows yet which of those labels will serve
    )


def all_memory() -> int:
    """Bytes of the GPU, or of this machine where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def existing(path: Path) -> Path:
    """The folder, or the one in which it will be."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())
