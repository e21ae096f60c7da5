"""Time small samples of each stage on this machine."""

from __future__ import annotations

import contextlib
import itertools
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from pdadapt.data.corpus import Corpus, Document, Queries
from pdadapt.generation.filters import clean, fault, languages
from pdadapt.generation.job import GenerationJob
from pdadapt.generation.kinds import quotas
from pdadapt.generation.writers import QueryRequest, load_writer
from pdadapt.labeling.bradley_terry import fit_strengths
from pdadapt.labeling.pairs import Positions, choose_pairs
from pdadapt.labeling.training_list import TrainingList, around_pairs
from pdadapt.planning.costs import Rates
from pdadapt.retrieval.engines.exact import Exact
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import PairSettings, Recipe, TrainSettings
from pdadapt.students.colbert import PROJECTION_SAMPLE
from pdadapt.students.encoding import document_batches
from pdadapt.students.load import load_student, save_student
from pdadapt.teachers.base import Pair, Point, Task, Teacher, score_of, scores_in_order
from pdadapt.teachers.kind import model_of, teacher_kind
from pdadapt.teachers.load import Teachers
from pdadapt.training import smaller_chunks, trainer

SAMPLE_DOCUMENTS, SAMPLE_QUERIES, SAMPLE_STEPS = 256, 64, 3
SAMPLE_WRITTEN_QUERIES = 16
MIN_SAMPLE_PROMPTS, MAX_SAMPLE_PROMPTS = 32, 2_048  # for each task
LABELING_SAMPLE_SECONDS = 20.0  # the time that a task's sample should take


def time_sample(
    recipe: Recipe, corpus: Corpus, queries: Queries, tasks: Sequence[Task], progress: Progress
) -> tuple[Rates, dict[str, int]]:
    """Time a sample of every stage, and keep no files. Returns the rates, and the number of parameters of the models.

    If the teacher is a server, it is asked MIN_SAMPLE_PROMPTS questions per task.
    """
    rates = Rates()
    documents = corpus.sample(SAMPLE_DOCUMENTS)
    chosen = list(queries.values())[:SAMPLE_QUERIES]
    with tempfile.TemporaryDirectory() as scratch:
        with sampled_stage(progress, "plan: student", len(documents), "documents", rates) as advance:
            start = time.monotonic()
            model = load_student(recipe.student.model, recipe.student, corpus.sample(PROJECTION_SAMPLE))
            rates.load_student = time.monotonic() - start
            measure_encoding(model, documents, chosen, recipe, rates, advance)
        parameters = {"student": count_parameters(model[0]), "teacher": 0}
        teachers = Teachers(recipe.teacher, tasks, progress, corpus)
        for task in tasks:
            start = time.monotonic()
            teacher = teachers(task)
            rates.load_teacher += time.monotonic() - start
            parameters["teacher"] = max(parameters["teacher"], count_parameters(getattr(teacher, "model", None)))
            with sampled_stage(progress, f"plan: label {task}s", MAX_SAMPLE_PROMPTS, "prompts", rates) as advance:
                measure_labeling(teacher, task, corpus, queries, recipe, rates, advance)
        teachers.free()
        with sampled_stage(progress, "plan: train", SAMPLE_STEPS, "steps", rates) as advance:
            measure_training(model, corpus, recipe, rates, Path(scratch), advance)
    return rates, parameters


def measure_writing(writing: GenerationJob, rates: Rates, progress: Progress) -> tuple[int, int]:
    """Have an LLM write a few queries. Returns how many pass the filters on their text, and how many were written."""
    kinds = [kind for kind, number in quotas(writing.shares, SAMPLE_WRITTEN_QUERIES).items() for _ in range(number)]
    texts = itertools.cycle(writing.corpus.sample(SAMPLE_WRITTEN_QUERIES))
    numbered = enumerate(zip(kinds, texts, strict=False))
    asked = [QueryRequest(i, kind, Document("", "", text)) for i, (kind, text) in numbered]
    start = time.monotonic()
    writer = load_writer(writing.recipe, progress.say)
    languages()
    rates.load_writer = time.monotonic() - start
    kept, start = 0, time.monotonic()
    with sampled_stage(progress, "plan: write queries", len(asked), "queries", rates) as advance:
        for batch in writer.write(asked):
            kept += sum(fault(clean(text), one.kind, one.document.contents) is None for one, text in batch)
            advance(len(batch))
    rates.written = (time.monotonic() - start) / len(asked)
    return kept, len(asked)


@contextlib.contextmanager
def sampled_stage(progress: Progress, name: str, units: int, unit: str, rates: Rates) -> Iterator[Callable[..., None]]:
    """Show the progress of a sample, and record its peak memory."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    with progress.task(name, units, unit) as advance:
        yield advance
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    rates.memory[name.removeprefix("plan: ")] = peak


def measure_encoding(
    model: Any,
    documents: Sequence[str],
    queries: Sequence[str],
    recipe: Recipe,
    rates: Rates,
    advance: Callable[..., None],
) -> None:
    """Time the encoding of documents and queries, and the search, with the student."""
    size = recipe.retrieve.batch_tokens
    list(document_batches(model, documents[:8], size))  # warm up
    start = time.monotonic()
    matrices = []
    for rows, embeddings in document_batches(model, documents, size):
        matrices += [matrix.to("cpu", torch.float16) for matrix in embeddings]
        advance(len(rows))
    rates.document = (time.monotonic() - start) / len(documents)
    lengths = model.preprocess(list(documents), prompt=model.prompts.get("document"), task="document")
    rates.document_tokens = float(lengths["attention_mask"].sum()) / len(documents)
    rates.document_bytes = sum(matrix.numel() for matrix in matrices) * 2 / len(documents)
    rates.document_text_bytes = sum(len(text.encode()) for text in documents) / len(documents)
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
    teacher: Teacher,
    task: Task,
    corpus: Corpus,
    queries: Queries,
    recipe: Recipe,
    rates: Rates,
    advance: Callable[..., None],
) -> None:
    """Time the teacher on one task. The sample grows until its time is long enough to measure.

    A document recurs as often as it does on average in a run, because a teacher may encode it once for several
    questions.
    """
    listed = min(recipe.retrieve.k, len(corpus))
    recurring = max(1, len(queries) * listed // len(corpus))
    both = recipe.teacher.pair.order == "both"

    def sample_questions(size: int) -> list[Any]:
        documents = corpus.sample(max(listed, size // recurring))
        questions: list[Any] = []
        for number, query in enumerate(queries.values()):
            texts = [documents[(number * listed + position) % len(documents)] for position in range(listed)]
            if task == "point":
                questions += [Point(query, text) for text in texts]
            else:
                pairs = sample_pairs(recipe.teacher.pair, listed, query)
                orders = [order for i, j in pairs for order in [(i, j), (j, i)][: 1 + both]]
                questions += [Pair(query, texts[a], texts[b]) for a, b in orders]
            if len(questions) >= size:
                break
        return questions[:size]

    limit = MIN_SAMPLE_PROMPTS if teacher_kind(model_of(recipe.teacher, task)) == "endpoint" else MAX_SAMPLE_PROMPTS
    size = min(limit, MIN_SAMPLE_PROMPTS)
    while True:
        asked = sample_questions(size)
        start = time.monotonic()
        scores_in_order(score_of(teacher, task), asked)
        advance(len(asked))
        seconds = time.monotonic() - start
        if seconds > LABELING_SAMPLE_SECONDS / 2 or size >= limit or len(asked) < size:
            break
        size = min(limit, max(2 * size, int(size * LABELING_SAMPLE_SECONDS / max(seconds, 1e-3))))
    if not asked:  # a single document makes no pair
        rates.prompt[task] = rates.prompt_tokens[task] = 0.0
        return
    rates.prompt[task] = seconds / len(asked)
    task_prompt: Any = getattr(teacher, task, None)
    if hasattr(task_prompt, "encode"):
        fields = [question._asdict() for question in asked]
        lengths = [len(ids) for ids in task_prompt.encode(fields)]
        rates.prompt_tokens[task] = sum(lengths) / len(lengths)
    else:
        rates.prompt_tokens[task] = sum(len(text) for question in asked for text in question) / 4 / len(asked)


def sample_pairs(settings: PairSettings, size: int, seed: str) -> Positions:
    """Return pairs as a run would choose them, for a list whose labels are not known."""
    points = [-float(position) for position in range(size)]
    chosen = choose_pairs(settings, points, points, seed, lambda asked: fit_strengths(points, [], 1.0, 1.0))
    return list(itertools.chain.from_iterable(chosen))


def measure_training(
    model: Any, corpus: Corpus, recipe: Recipe, rates: Rates, scratch: Path, advance: Callable[..., None]
) -> None:
    """Time a few real training steps on meaningless labels. When memory runs out, the steps are repeated with smaller
    chunks, as in a run.
    """
    settings = recipe.train
    if settings.layers == 0:  # a run trains a checkpoint, which always has a projection
        save_student(model, scratch / "student")
        model = load_student(str(scratch / "student"), recipe.student)
    size = settings.paired_candidates(min(recipe.retrieve.k, len(corpus)))
    pairs = [(i, j, 1.0) for i, j in sample_pairs(recipe.teacher.pair, size, "")]
    points: list[float | None] = [-float(position) for position in range(size)]
    shape = around_pairs(TrainingList("", [""] * size, points, pairs), settings.n_way, "")
    width = len(shape.doc_ids)
    sample = as_corpus(corpus.sample(settings.batch_size * width))
    lists, texts = [], {}
    for number in range(settings.batch_size):
        ids = [f"d{(number * width + position) % len(sample)}" for position in range(width)]
        relevant = ids[:1] if settings.lambda_cl else ()
        lists.append(shape._replace(query_id=f"q{number}", doc_ids=ids, relevant=relevant))
        texts[f"q{number}"] = sample[ids[0]].text[:100]
    clock = Clock(advance)
    update: dict[str, Any] = {
        "steps": SAMPLE_STEPS,
        "max_epochs": None,
        "save_steps": SAMPLE_STEPS,
        "report_to": (),
        "compile": False,
        "student_temperature": 1.0,  # the labels have no meaning to fit it to
    }
    start = 0.0

    def attempt(chosen: TrainSettings) -> None:
        nonlocal start
        clock.clear()
        shutil.rmtree(scratch / "trainer", ignore_errors=True)
        start = time.monotonic()
        trainer.train(model, lists, sample, texts, chosen.model_copy(update=update), recipe.seed, scratch, clock)

    smaller_chunks.until_it_fits(settings, attempt, clock.say)
    end = time.monotonic()
    first, *_, last = clock.steps
    rates.step = (last - first) / (SAMPLE_STEPS - 1)
    rates.begin_training = max(0.0, first - start - clock.encoding - rates.step)
    rates.save = end - last
    stored = scratch / "trainer" / trainer.STORED_TOKENS
    rates.stored_bytes = stored.stat().st_size / len(sample) if stored.exists() else 0.0


class Clock(Progress):
    """Records when each training step ended."""

    def __init__(self, advance: Callable[..., None]) -> None:
        """advance: is called for each step too."""
        super().__init__()
        self.advance = advance
        self.clear()

    def clear(self) -> None:
        self.steps: list[float] = []
        self.encoding = 0.0  # seconds, which other rates tell for a whole training

    @contextlib.contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[Callable[..., None]]:
        def advance(units: int, note: str = "", earlier: bool = False) -> None:
            if name == "train":
                self.steps += [time.monotonic()] * units
                self.advance(units)

        start = time.monotonic()
        yield advance
        self.encoding += (time.monotonic() - start) * (name != "train")


def count_parameters(model: object) -> int:
    """Return the number of parameters that every token passes through: all except the embeddings."""
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
    """Return the texts as a corpus."""
    return Corpus([Document(f"d{number}", "", text) for number, text in enumerate(texts)])
