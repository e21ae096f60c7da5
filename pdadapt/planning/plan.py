"""Estimate the cost of a run before it begins: time a small sample of each stage on this machine, and scale it up."""

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
from pdadapt.planning.costs import (
    PAPER_RUNS,
    Cost,
    Rates,
    Shape,
    cheaper_settings,
    costs,
    count_prompts,
    disk_bytes,
    scale_rates,
    total_seconds,
)
from pdadapt.planning.measure import SAMPLE_QUERIES, measure_writing, time_sample
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
    """The estimated cost of a run on this machine. All times are in seconds, all sizes in bytes."""

    shape: Shape
    costs: list[Cost]
    memory: Mapping[str, int]  # the peak so far, by stage: GPU memory, or main memory without a GPU
    memory_all: int
    disk: Mapping[str, float]
    disk_free: int
    labeled: Mapping[Task, int]  # labels of this teacher in the store
    cheaper: Mapping[str, float]  # total seconds, by the setting that would change them
    paper: Mapping[str, float]  # total seconds of the paper's runs, with the paper's models
    sample_kept: tuple[int, int] = (0, 0)  # of the queries written as a sample: how many passed, of how many


def plan(
    recipe: Recipe, dataset: Dataset, out: Path, progress: Progress, restart_from: StageName | None = None
) -> Plan | None:
    """Check everything that the run needs, time a sample of each stage, and add up the costs. No files are left behind.

    Returns None when nothing is left to do. Raises what `pipeline.adapt` would raise, and RunError when the disk is too
    small or cannot be written to.
    """
    if processes() > 1:
        raise RunError("--plan runs in one process. Run it without the launcher.")
    if not os.access(existing_folder(out), os.W_OK):
        raise RunError(f"{out} cannot be written to. Give another --out.")
    recipe = with_precision(recipe, RunFolder(out))
    source = dataset if dataset.queries else own_queries(recipe, dataset, RunFolder(out), progress, restart_from)
    writing = source if isinstance(source, GenerationJob) else None
    dataset = stand_ins(dataset, texts_like_queries(recipe, dataset)) if isinstance(source, GenerationJob) else source
    context = check(recipe, dataset, out, progress, restart_from)
    _, outdated = context.run.check(recipe, context.origin, restart_from)
    if warning := many_passes(recipe.train, len(context.queries) - len(context.held_out)):
        progress.say(warning)
    sizes = Shape(len(dataset.corpus), len(context.queries), len(context.test_queries))
    shape = shape_of(context.run, recipe, sizes, context.label_keys, outdated)
    any_rates = Rates(
        prompt=dict.fromkeys(context.label_keys, 0.0), prompt_tokens=dict.fromkeys(context.label_keys, 0.0)
    )
    if not costs(recipe, shape, any_rates):
        return None
    start = time.process_time()
    rates, parameters = time_sample(recipe, dataset.corpus, context.queries, list(context.label_keys), progress)
    rates.start = start
    sample_kept = (0, 0)
    if writing:
        sample_kept = measure_writing(writing, rates, progress)
        shape = with_written_queries(shape, writing, *sample_kept)
    needed, free = disk_bytes(recipe, shape, rates), shutil.disk_usage(existing_folder(out)).free
    if sum(needed.values()) > free:
        raise RunError(
            f"{out} would need up to {sum(needed.values()) / 1e9:,.1f} GB, but its disk has {free / 1e9:,.1f} GB free. "
            "Give an --out on a larger disk, or use fewer queries with --set retrieve.max_queries=N."
        )
    labeled: dict[Task, int] = {
        task: count_labels(context.run.store(recipe), f"{task}s", key) for task, key in context.label_keys.items()
    }
    paper = {
        name: total_seconds(costs(theirs, size, scale_rates(theirs, rates, parameters, teachers)))
        for name, (size, recipe_name, teachers) in PAPER_RUNS.items()
        for theirs in [load_recipe(recipe_name)]
        if parameters["teacher"]
    }
    stages = costs(recipe, shape, rates)
    ways = cheaper_settings(recipe, shape, rates)
    return Plan(shape, stages, rates.memory, total_memory(), needed, free, labeled, ways, paper, sample_kept)


def texts_like_queries(recipe: Recipe, dataset: Dataset) -> list[str]:
    """Return stand-ins for the queries to be written, in the same number: the beginnings of documents."""
    texts = [text[:100] or "any" for text in dataset.corpus.sample(SAMPLE_QUERIES)]
    return [texts[number % len(texts)] for number in range(recipe.generate.count)]


def with_written_queries(shape: Shape, writing: GenerationJob, kept: int, tried: int) -> Shape:
    """Add to the shape the queries to write, and the documents to embed for them.

    The sample says how many queries must be written for each one that is kept. If none of the sample was kept, as many
    are counted as are written before a kind is given up.
    """
    kinds, wanted, (usable, _) = len(writing.shares), writing.recipe.generate.count, writing.usable_documents
    written = math.ceil(wanted * tried / kept) if kept else MAX_PER_KEPT * kinds
    written = min(max(FIRST_BATCH, written), len(usable) * kinds)
    return replace(shape, written=written, embedded=len(usable) * (len(usable) > wanted))


def shape_of(run: RunFolder, recipe: Recipe, sizes: Shape, keys: Mapping[Task, str], outdated: Sequence[Path]) -> Shape:
    """Add to these sizes what the run folder and the label store hold already. Outdated files do not count."""

    def done(name: str) -> int:
        return sum(
            not any(path.is_relative_to(old) for old in outdated) for path in run.path.glob(f"iteration-*/{name}")
        )

    labeled = done("lists.jsonl")
    stored: dict[Task, int] = {task: count_labels(run.store(recipe), f"{task}s", key) for task, key in keys.items()}
    known = {task: max(0, number - labeled * count_prompts(recipe, sizes, task)) for task, number in stored.items()}
    return replace(
        sizes,
        retrieved=done("candidates.run"),
        labeled=labeled,
        trained=done("checkpoint"),
        tested=done("test.run"),
        guarded=done("general.run"),
        known={} if recipe.label_store or outdated else known,  # it is not known which of those labels will be used
    )


def total_memory() -> int:
    """Return the bytes of GPU memory, or of main memory without a GPU."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def existing_folder(path: Path) -> Path:
    """Return this folder, or the nearest parent that exists."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())
