"""What a run costs, by its size and by what this machine takes for one document, prompt and step: arithmetic alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pdadapt.evaluation.held_out import count_held_out
from pdadapt.labeling.pairs import count_pairs
from pdadapt.settings.schema import Recipe
from pdadapt.teachers.base import Task
from pdadapt.training import trainer
from pdadapt.training.early_stopping import check_points

LABEL_BYTES = 110  # of a row of the label store, its index included
GENERAL_DOCUMENTS, GENERAL_QUERIES, GENERAL_TOKENS = 240, 120, 90  # of each of its passages, about
PROMPT_TOKENS = 40  # of instruction and query
XL, MINILM, COLBERT = 1.2e9, 10.6e6, 85e6  # parameters that a token meets: of T5-XL's encoder, MiniLM-L6, ColBERTv2


@dataclass(frozen=True)
class Shape:
    """How large a run is."""

    documents: int
    queries: int
    test_queries: int
    retrieved: int = 0  # iterations in which this is done already
    labeled: int = 0
    trained: int = 0
    tested: int = 0
    guarded: int = 0  # students that have ranked the general set
    written: int = 0  # queries that an LLM writes first, fit to be kept or not
    embedded: int = 0  # documents, to spread those queries over the corpus
    known: Mapping[Task, int] = field(default_factory=dict)  # labels of iterations to come that need not be asked


PAPER: dict[str, tuple[Shape, str, dict[Task, float]]] = {  # the paper's runs: recipes, parameters of their teachers
    "FiQA": (Shape(57_638, 5_500, 648), "paper", {"point": XL, "pair": XL}),
    "MS MARCO": (Shape(8_841_823, 808_731, 6_980), "msmarco", {"point": MINILM, "pair": XL}),
}


@dataclass
class Rates:
    """What this machine was measured to take: seconds, unless said otherwise."""

    start: float = 0.0  # of the program, with reading and checking
    load_student: float = 0.0
    load_teacher: float = 0.0
    document: float = 0.0
    document_tokens: float = 0.0
    document_bytes: float = 0.0  # of its embeddings in an index
    document_letters: float = 0.0
    query: float = 0.0
    score: float = 0.0  # MaxSim of one query with one document
    load_writer: float = 0.0
    written: float = 0.0  # a query that an LLM writes
    prompt: dict[Task, float] = field(default_factory=dict)
    prompt_tokens: dict[Task, float] = field(default_factory=dict)
    begin_training: float = 0.0
    step: float = 0.0
    save: float = 0.0  # a resumable state and the checkpoint
    student_bytes: float = 0.0
    memory: dict[str, int] = field(default_factory=dict)  # bytes at the peak, by stage


@dataclass(frozen=True)
class Cost:
    stage: str
    units: int
    unit: str
    seconds: float
    tokens: int = 0


def prompts(recipe: Recipe, shape: Shape, task: Task) -> int:
    """How many the teacher is asked in one iteration, if it knows nothing yet."""
    listed = min(recipe.retrieve.k, shape.documents)
    if task == "point":
        return shape.queries * listed
    pair = recipe.teacher.pair
    if not pair.asks_teacher:
        return 0
    drawn = count_pairs(pair, recipe.train.paired_candidates(listed))
    return shape.queries * drawn * (2 if pair.order == "both" else 1)


def costs(recipe: Recipe, shape: Shape, rates: Rates) -> list[Cost]:
    """Every stage of all iterations, as measured rates have it; later iterations ask about as much as the first, at
    most. BM25's share, small beside the student's and the teacher's, is left out.
    """
    rounds = recipe.iterations
    settings = recipe.train
    retrievals, labelings, trainings = rounds - shape.retrieved, rounds - shape.labeled, rounds - shape.trained
    tests = (rounds + 1 - shape.tested) * bool(shape.test_queries)
    searches = retrievals * ("student" in recipe.retrieve.sources)
    indexes = max(searches, tests) + bool(recipe.retrieve.model and tests)  # else one serves both
    encoded = shape.documents * indexes
    searched = shape.queries * searches + shape.test_queries * tests
    scores = searched * shape.documents
    held = count_held_out(shape.queries, settings.held_out)
    steps = trainer.count_steps(settings, shape.queries - held)
    points = check_points(settings, steps) if held else set()
    saves = len({*range(settings.save_steps, steps + 1, settings.save_steps), *points}) + 1
    listed = held * min(settings.n_way, recipe.retrieve.k, shape.documents)
    compared = sum(len({0, number - 1, number}) for number in range(1 + shape.trained, rounds + 1))
    checked = trainings * len(points)
    guards = (rounds + 1 - shape.guarded) * recipe.evaluate.general
    general = GENERAL_DOCUMENTS * guards
    passage = GENERAL_TOKENS * rates.document / max(1.0, rates.document_tokens) + GENERAL_QUERIES * rates.score
    written = rates.load_writer + shape.written * rates.written + shape.embedded * rates.document
    found = [
        Cost("write queries", shape.written, "queries", written),
        Cost("index", encoded, "documents", encoded * rates.document, round(encoded * rates.document_tokens)),
        Cost("search", scores, "scores", scores * rates.score + searched * rates.query),
    ]
    for task, each in rates.prompt.items():
        asked = max(0, prompts(recipe, shape, task) * labelings - shape.known.get(task, 0))
        found.append(Cost(f"label {task}s", asked, "prompts", asked * each, round(asked * rates.prompt_tokens[task])))
    training = trainings * (rates.begin_training + steps * rates.step + saves * rates.save)
    found.append(Cost("train", trainings * steps, "steps", training))
    agreed = (compared + checked) * listed
    found.append(Cost("agreement", agreed, "documents", agreed * rates.document))
    found.append(Cost("general set", general, "documents", general * passage))
    loads = (not shape.retrieved) + indexes + trainings + compared * bool(held) + guards
    seconds = loads * rates.load_student + labelings * rates.load_teacher
    found.append(Cost("load models", loads + labelings, "loads", seconds))
    found = [cost for cost in found if cost.units]
    return [Cost("start", 1, "start", rates.start), *found] if found else []


def total(found: Sequence[Cost]) -> float:
    """Seconds."""
    return sum(cost.seconds for cost in found)


def disk(recipe: Recipe, shape: Shape, rates: Rates) -> dict[str, float]:
    """Bytes, by what they are for; the index and the training states go when their stage is done."""
    labels = sum(prompts(recipe, shape, task) for task in rates.prompt) * recipe.iterations
    texts = min(shape.documents, shape.queries * recipe.retrieve.k) * rates.document_letters
    indexed = shape.test_queries or "student" in recipe.retrieve.sources
    return {
        "index": shape.documents * rates.document_bytes * bool(indexed),
        "labels": labels * LABEL_BYTES + texts,
        "checkpoints": rates.student_bytes * (1 + recipe.iterations),
        "training states": rates.student_bytes * (3 * 3 + recipe.train.keeps_best),  # weights, moments; three
    }


def cheaper(recipe: Recipe, shape: Shape, rates: Rates) -> dict[str, float]:
    """The total in seconds with one thing changed, by the setting that changes it."""
    pair, retrieval = recipe.teacher.pair, recipe.retrieve
    changes: dict[str, tuple[Recipe, Shape, Rates]] = {}

    def changed(key: str, value: Any) -> Recipe:
        *branches, leaf = key.split(".")
        copy = recipe.model_copy(deep=True)
        node: Any = copy
        for branch in branches:
            node = getattr(node, branch)
        setattr(node, leaf, value)
        return copy

    if pair.asks_teacher and pair.per_query > 1:
        key, half = "teacher.pair.per_query", pair.per_query // 2
        changes[f"--set {key}={half}"] = changed(key, half), shape, rates
    if pair.asks_teacher and pair.order == "both":
        changes["--set teacher.pair.order=random"] = changed("teacher.pair.order", "random"), shape, rates
    if retrieval.k > recipe.train.n_way:
        key = "retrieve.k"
        changes[f"--set {key}={recipe.train.n_way}"] = changed(key, recipe.train.n_way), shape, rates
    if shape.queries > 1:
        fewer = replace(shape, queries=shape.queries // 2, written=shape.written // 2)
        key = "generate.count" if shape.written else "retrieve.max_queries"
        changes[f"--set {key}={fewer.queries}"] = recipe, fewer, rates
    taught = shape.queries - count_held_out(shape.queries, recipe.train.held_out)
    capped = changed("train.max_epochs", trainer.CAP)
    if trainer.count_steps(capped.train, taught) < trainer.count_steps(recipe.train, taught):
        changes[f"--set train.max_epochs={trainer.CAP}"] = capped, shape, rates
    halved = {task: each / 2 for task, each in rates.prompt.items()}
    smaller = replace(rates, prompt=halved, written=rates.written / 2)
    changes["a teacher of half the parameters (--teacher)"] = recipe, shape, smaller
    return {name: total(costs(*changed)) for name, changed in changes.items()}


def scale(recipe: Recipe, rates: Rates, measured: Mapping[str, int], teachers: Mapping[Task, float]) -> Rates:
    """These rates for the paper's models: as much arithmetic a second as was measured here, and theirs to do.

    recipe: whose lengths count. measured: parameters of the student and the teacher here; teachers: of the paper's.
    """
    per_token = rates.document / max(1.0, rates.document_tokens) * COLBERT / max(1, measured["student"])
    tokens = min(rates.document_tokens, recipe.train.document_length)
    trained = recipe.train.batch_size * recipe.train.n_way * tokens
    task = max(rates.prompt_tokens, key=lambda task: rates.prompt_tokens[task])
    per_parameter = rates.prompt[task] / max(1.0, rates.prompt_tokens[task]) / max(1, measured["teacher"])
    asked: dict[Task, float] = {"point": PROMPT_TOKENS + tokens, "pair": PROMPT_TOKENS + 2 * tokens}
    return replace(
        rates,
        document=per_token * rates.document_tokens,
        prompt={task: per_parameter * teachers[task] * min(recipe.teacher.max_length, asked[task]) for task in asked},
        prompt_tokens=asked,
        step=3 * trained * per_token,  # the gradient costs twice what the embeddings do
    )
