"""What a run will cost, before it is begun: a small sample of each stage is timed on this machine and scaled up."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pdadapt import train
from pdadapt.agreement import count_held_out
from pdadapt.bradley_terry import fit
from pdadapt.corpus import Corpus, Dataset, Document, Queries
from pdadapt.costs import PAPER, Cost, Rates, Shape, cheaper, costs, disk, prompts, scale, total
from pdadapt.distributed import processes
from pdadapt.engines.exact import Exact
from pdadapt.errors import RunError
from pdadapt.generation.filters import clean, fault, languages
from pdadapt.generation.mix import FEWEST, HOPELESS, quotas
from pdadapt.generation.writers import Asked, load_writer
from pdadapt.generation.writing import Writing
from pdadapt.labels import count_labels
from pdadapt.pairs import Positions, choose_pairs
from pdadapt.pipeline import check, many_passes, own_queries, stand_ins, with_precision
from pdadapt.progress import Progress
from pdadapt.recipe import PairSettings, Recipe, TrainSettings, load_recipe
from pdadapt.run import RunFolder, Stage
from pdadapt.students import load_configured
from pdadapt.students.colbert import PCA_DOCUMENTS
from pdadapt.students.encoding import document_batches
from pdadapt.teachers import Pair, Point, Task, answers, score_of
from pdadapt.teachers.choose import Teachers, model_of, teacher_kind
from pdadapt.training_lists import TrainingList, around_pairs

SAMPLE_DOCUMENTS, SAMPLE_QUERIES, SAMPLE_STEPS = 256, 64, 3
SAMPLE_WRITTEN = 16
FEWEST_PROMPTS, MOST_PROMPTS, LABEL_SECONDS = 32, 2_048, 20.0  # of a task's sample


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
    recipe: Recipe, dataset: Dataset, out: Path, progress: Progress, restart_from: Stage | None = None
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
    writing = there if isinstance(there, Writing) else None
    dataset = stand_ins(dataset, texts_like_queries(recipe, dataset)) if isinstance(there, Writing) else there
    job = check(recipe, dataset, out, restart_from)
    _, outdated = job.run.check(recipe, job.origin, restart_from)
    held = count_held_out(len(job.queries), recipe.train.held_out)
    if said := many_passes(recipe.train, len(job.queries) - held):
        progress.say(said)
    sizes = Shape(len(dataset.corpus), len(job.queries), len(job.test_queries))
    shape = shape_of(job.run, recipe, sizes, job.keys, outdated)
    any_rates = Rates(prompt=dict.fromkeys(job.keys, 0.0), prompt_tokens=dict.fromkeys(job.keys, 0.0))
    if not costs(recipe, shape, any_rates):
        return None
    start = time.process_time()
    rates, parameters = measure(recipe, dataset.corpus, job.queries, list(job.keys), progress)
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
        task: count_labels(job.run.store(recipe), f"{task}s", key) for task, key in job.keys.items()
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


def written_first(shape: Shape, writing: Writing, kept: int, tried: int) -> Shape:
    """With the queries to write for those that are wanted, if as many as of those that were tried are fit by their
    text (of none, so many as are written before it is given up), and the documents to embed.
    """
    kinds, wanted, (fit, _) = len(writing.shares), writing.recipe.generate.count, writing.fit
    written = math.ceil(wanted * tried / kept) if kept else HOPELESS * kinds
    return replace(shape, written=min(max(FEWEST, written), len(fit) * kinds), embedded=len(fit) * (len(fit) > wanted))


def measure(
    recipe: Recipe, corpus: Corpus, queries: Queries, tasks: Sequence[Task], progress: Progress
) -> tuple[Rates, dict[str, int]]:
    """Time a sample of every stage; nothing is kept. Returns the rates, and how many parameters the models have.

    A server that is the teacher is asked FEWEST_PROMPTS questions a task.
    """
    rates = Rates()
    documents = corpus.sample(SAMPLE_DOCUMENTS)
    chosen = list(queries.values())[:SAMPLE_QUERIES]
    with tempfile.TemporaryDirectory() as scratch:
        with stage(progress, "plan: student", len(documents), "documents", rates) as advance:
            start = time.monotonic()
            model = load_configured(recipe.student.model, recipe.student, corpus.sample(PCA_DOCUMENTS))
            rates.load_student = time.monotonic() - start
            measure_encoding(model, documents, chosen, recipe, rates, advance)
        parameters = {"student": count(model[0]), "teacher": 0}
        teachers = Teachers(recipe.teacher, tasks, progress)
        for task in tasks:
            start = time.monotonic()
            teacher = teachers(task)
            rates.load_teacher += time.monotonic() - start
            parameters["teacher"] = max(parameters["teacher"], count(getattr(teacher, "model", None)))
            with stage(progress, f"plan: label {task}s", MOST_PROMPTS, "prompts", rates) as advance:
                measure_labeling(teacher, task, corpus, queries, recipe, rates, advance)
        teachers.free()
        with stage(progress, "plan: train", SAMPLE_STEPS, "steps", rates) as advance:
            measure_training(model, corpus, recipe, rates, Path(scratch), advance)
    return rates, parameters


def measure_writing(writing: Writing, rates: Rates, progress: Progress) -> tuple[int, int]:
    """Have a few queries written. Returns how many are fit to be kept by their text, of how many."""
    kinds = [kind for kind, number in quotas(writing.shares, SAMPLE_WRITTEN).items() for _ in range(number)]
    texts = itertools.cycle(writing.corpus.sample(SAMPLE_WRITTEN))
    asked = [Asked(i, kind, Document("", "", text)) for i, (kind, text) in enumerate(zip(kinds, texts, strict=False))]
    start = time.monotonic()
    writer = load_writer(writing.recipe, progress.say)
    languages()
    rates.load_writer = time.monotonic() - start
    kept, start = 0, time.monotonic()
    with stage(progress, "plan: write queries", len(asked), "queries", rates) as advance:
        for batch in writer.write(asked):
            kept += sum(fault(clean(text), one.kind, one.document.contents) is None for one, text in batch)
            advance(len(batch))
    rates.written = (time.monotonic() - start) / len(asked)
    return kept, len(asked)


@contextlib.contextmanager
def stage(progress: Progress, name: str, units: int, unit: str, rates: Rates) -> Iterator[Callable[..., None]]:
    """A sample under way; its peak of memory is noted."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    with progress.task(name, units, unit) as advance:
        yield advance
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    rates.memory[name.removeprefix("plan: ")] = peak


def measure_encoding(
    model: Any, documents: Sequence[str], queries: Sequence[str], recipe: Recipe, rates: Rates, advance: Any
) -> None:
    size = recipe.retrieve.batch_tokens
    list(document_batches(model, documents[:8], size))  # warm
    start = time.monotonic()
    matrices = []
    for rows, found in document_batches(model, documents, size):
        matrices += [matrix.to("cpu", torch.float16) for matrix in found]
        advance(len(rows))
    rates.document = (time.monotonic() - start) / len(documents)
    lengths = model.preprocess(list(documents), prompt=model.prompts.get("document"), task="document")
    rates.document_tokens = float(lengths["attention_mask"].sum()) / len(documents)
    rates.document_bytes = sum(matrix.numel() for matrix in matrices) * 2 / len(documents)
    rates.document_letters = sum(len(text.encode()) for text in documents) / len(documents)
    start = time.monotonic()
    model.encode_query(list(queries), batch_size=32, show_progress_bar=False)
    rates.query = (time.monotonic() - start) / len(queries)
    with tempfile.TemporaryDirectory() as folder:
        engine = Exact(model, size)
        sample = as_corpus(documents)
        engine.index(sample.documents, Path(folder))
        start = time.monotonic()
        list(engine.search(list(queries), Path(folder), len(sample), 10))
        searching = time.monotonic() - start - len(queries) * rates.query
    rates.score = max(searching, 1e-4) / (len(queries) * len(documents))
    rates.student_bytes = sum(weight.numel() for weight in model.parameters()) * 4


def measure_labeling(
    teacher: Any, task: Task, corpus: Corpus, queries: Queries, recipe: Recipe, rates: Rates, advance: Any
) -> None:
    """Ask more and more, until it takes long enough to tell. Documents recur as often as they will, on the average."""
    listed = min(recipe.retrieve.k, len(corpus))
    recurring = max(1, len(queries) * listed // len(corpus))
    both = recipe.teacher.pair.order == "both"

    def questions(wanted: int) -> list[Any]:
        documents = corpus.sample(max(listed, wanted // recurring))
        found: list[Any] = []
        for number, query in enumerate(queries.values()):
            texts = [documents[(number * listed + place) % len(documents)] for place in range(listed)]
            if task == "point":
                found += [Point(query, text) for text in texts]
            else:
                drawn = pairs_of(recipe.teacher.pair, listed, query)
                found += [Pair(query, texts[a], texts[b]) for i, j in drawn for a, b in ([(i, j), (j, i)][: 1 + both])]
            if len(found) >= wanted:
                break
        return found[:wanted]

    most = FEWEST_PROMPTS if teacher_kind(model_of(recipe.teacher, task)) == "endpoint" else MOST_PROMPTS
    wanted = min(most, FEWEST_PROMPTS)
    while True:
        asked = questions(wanted)
        start = time.monotonic()
        answers(score_of(teacher, task), asked)
        advance(len(asked))
        seconds = time.monotonic() - start
        if seconds > LABEL_SECONDS / 2 or wanted >= most or len(asked) < wanted:
            break
        wanted = min(most, max(2 * wanted, int(wanted * LABEL_SECONDS / max(seconds, 1e-3))))
    if not asked:  # of a single document there are no pairs
        rates.prompt[task] = rates.prompt_tokens[task] = 0.0
        return
    rates.prompt[task] = seconds / len(asked)
    own: Any = getattr(teacher, task, None)
    if hasattr(own, "encode"):
        fields = [question._asdict() for question in asked]
        lengths = [len(ids) for ids in own.encode(fields)]
        rates.prompt_tokens[task] = sum(lengths) / len(lengths)
    else:
        rates.prompt_tokens[task] = sum(len(text) for question in asked for text in question) / 4 / len(asked)


def pairs_of(settings: PairSettings, size: int, seed: str) -> Positions:
    """Pairs such as a run asks about, of a list whose labels are not known."""
    points = [-float(place) for place in range(size)]
    chosen = choose_pairs(settings, points, points, seed, lambda asked: fit(points, [], 1.0, 1.0))
    return list(itertools.chain.from_iterable(chosen))


def measure_training(model: Any, corpus: Corpus, recipe: Recipe, rates: Rates, scratch: Path, advance: Any) -> None:
    """A few real steps, on labels that mean nothing. When memory runs out, with less at once, as the run would."""
    settings = recipe.train
    size = settings.paired(min(recipe.retrieve.k, len(corpus)))
    pairs = [(i, j, 1.0) for i, j in pairs_of(recipe.teacher.pair, size, "")]
    points: list[float | None] = [-float(place) for place in range(size)]
    shape = around_pairs(TrainingList("", [""] * size, points, pairs), settings.n_way, "")
    width = len(shape.doc_ids)
    sample = as_corpus(corpus.sample(settings.batch_size * width))
    lists, texts = [], {}
    for number in range(settings.batch_size):
        ids = [f"d{(number * width + place) % len(sample)}" for place in range(width)]
        relevant = ids[:1] if settings.lambda_cl else ()
        lists.append(shape._replace(query_id=f"q{number}", doc_ids=ids, relevant=relevant))
        texts[f"q{number}"] = sample[ids[0]].text[:100]
    clock = Clock(advance)
    update = {"steps": SAMPLE_STEPS, "max_epochs": None, "save_steps": SAMPLE_STEPS, "report_to": (), "compile": False}
    start = 0.0

    def attempt(chosen: TrainSettings) -> None:
        nonlocal start
        clock.steps.clear()
        shutil.rmtree(scratch / "trainer", ignore_errors=True)
        start = time.monotonic()
        train.train(model, lists, sample, texts, chosen.model_copy(update=update), recipe.seed, scratch, clock)

    train.until_it_fits(settings, attempt, clock.say)
    ended = time.monotonic()
    first, *_, last = clock.steps
    rates.step = (last - first) / (SAMPLE_STEPS - 1)
    rates.begin_training = max(0.0, first - start - rates.step)
    rates.save = ended - last


class Clock(Progress):
    """When each step ended."""

    def __init__(self, ended: Callable[..., None]) -> None:
        """ended: told too."""
        super().__init__()
        self.ended = ended
        self.steps: list[float] = []

    @contextlib.contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[Callable[..., None]]:
        def advance(units: int, note: str = "", earlier: bool = False) -> None:
            self.steps += [time.monotonic()] * units
            self.ended(units)

        yield advance


def count(model: Any) -> int:
    """Parameters that every token meets: all but the embeddings."""
    if not isinstance(model, torch.nn.Module):
        return 0
    embeddings = {
        id(weight)
        for module in model.modules()
        if isinstance(module, torch.nn.Embedding)
        for weight in module.parameters()
    }
    return sum(weight.numel() for weight in model.parameters() if id(weight) not in embeddings)


def as_corpus(texts: Sequence[str]) -> Corpus:
    return Corpus([Document(f"d{number}", "", text) for number, text in enumerate(texts)])


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
