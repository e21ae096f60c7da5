"""The cost of a run: arithmetic on the size of the run and the measured rates of this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pdadapt.evaluation.held_out import count_held_out
from pdadapt.labeling.pairs import count_pairs
from pdadapt.settings.schema import BM25_TEACHER, Recipe
from pdadapt.teachers.base import Task
from pdadapt.training import trainer
from pdadapt.training.early_stopping import measured_steps

BYTES_PER_LABEL = 110  # a row of the label store with its index
GENERAL_DOCUMENTS, GENERAL_QUERIES = 240, 120  # size of the general set
GENERAL_DOCUMENT_TOKENS = 90  # approximate length of its documents
INSTRUCTION_TOKENS = 40  # instruction and query of a prompt
# Parameters that each token passes through:
T5_XL_PARAMETERS = 1.2e9  # encoder of T5-XL
MINILM_PARAMETERS = 10.6e6  # MiniLM-L6
COLBERT_PARAMETERS = 85e6  # ColBERTv2


@dataclass(frozen=True)
class Shape:
    """The size of a run, and how much of it is finished."""

    documents: int
    queries: int
    test_queries: int
    retrieved: int = 0  # iterations whose retrieval is finished
    labeled: int = 0  # iterations whose labeling is finished
    trained: int = 0  # iterations whose training is finished
    tested: int = 0  # students that have ranked the test queries
    guarded: int = 0  # students that have ranked the general set
    written: int = 0  # queries that an LLM writes first, whether they are kept or not
    embedded: int = 0  # documents to embed, to spread those queries over the corpus
    known: Mapping[Task, int] = field(default_factory=dict)  # stored labels that later iterations need not ask for


PAPER_RUNS: dict[str, tuple[Shape, str, dict[Task, float]]] = {  # size, recipe, parameters of the teachers
    "FiQA": (Shape(57_638, 5_500, 648), "paper", {"point": T5_XL_PARAMETERS, "pair": T5_XL_PARAMETERS}),
    "MS MARCO": (Shape(8_841_823, 808_731, 6_980), "msmarco", {"point": MINILM_PARAMETERS, "pair": T5_XL_PARAMETERS}),
}


@dataclass
class Rates:
    """Measured rates of this machine, in seconds for one unit unless stated otherwise."""

    start: float = 0.0  # starting the program, reading and checking the data
    load_student: float = 0.0
    load_teacher: float = 0.0
    document: float = 0.0
    document_tokens: float = 0.0
    document_bytes: float = 0.0  # its embeddings in an index
    document_text_bytes: float = 0.0
    query: float = 0.0
    score: float = 0.0  # MaxSim of one query with one document
    load_writer: float = 0.0
    written: float = 0.0  # one query that an LLM writes
    prompt: dict[Task, float] = field(default_factory=dict)
    prompt_tokens: dict[Task, float] = field(default_factory=dict)
    stored_bytes: float = 0.0  # a document's token embeddings in a training of the projection
    begin_training: float = 0.0
    step: float = 0.0
    save: float = 0.0  # one resumable state, or the checkpoint
    student_bytes: float = 0.0
    memory: dict[str, int] = field(default_factory=dict)  # peak bytes, by stage


@dataclass(frozen=True)
class Cost:
    """The cost of one stage."""

    stage: str
    units: int
    unit: str
    seconds: float
    tokens: int = 0


def count_prompts(recipe: Recipe, shape: Shape, task: Task) -> int:
    """Return how many prompts one iteration needs if the store holds no labels."""
    listed = min(recipe.retrieve.k, shape.documents)
    if task == "point":
        return shape.queries * listed
    pair = recipe.teacher.pair
    if not pair.asks_teacher:
        return 0
    pairs = count_pairs(pair, recipe.train.paired_candidates(listed))
    return shape.queries * pairs * (2 if pair.order == "both" else 1)


def costs(recipe: Recipe, shape: Shape, rates: Rates) -> list[Cost]:
    """Return the cost of every stage over all iterations, at the measured rates.

    Later iterations are counted like the first, which is an upper bound. BM25 is left out: its cost is small beside
    that of the student and the teacher.
    """
    rounds = recipe.iterations
    settings = recipe.train
    retrievals, labelings, trainings = rounds - shape.retrieved, rounds - shape.labeled, rounds - shape.trained
    tests = (rounds + 1 - shape.tested) * bool(shape.test_queries)
    searches = retrievals * ("student" in recipe.retrieve.sources)
    # One index serves retrieval and tests, unless another model than the student retrieves:
    indexes = max(searches, tests) + bool(recipe.retrieve.model and tests)
    encoded = shape.documents * indexes
    searched = shape.queries * searches + shape.test_queries * tests
    scores = searched * shape.documents
    held = count_held_out(shape.queries, settings.held_out)
    steps = trainer.count_steps(settings, shape.queries - held)
    points = measured_steps(settings, steps) if held else set()
    saves = len({*range(settings.save_steps, steps + 1, settings.save_steps), *points}) + 1
    listed = held * min(settings.n_way, recipe.retrieve.k, shape.documents)
    compared = sum(len({0, number - 1, number}) for number in range(1 + shape.trained, rounds + 1))
    checked = trainings * (len(points) + bool(points))  # once before training
    guards = (rounds + 1 - shape.guarded) * recipe.evaluate.general
    general = GENERAL_DOCUMENTS * guards
    passage = GENERAL_DOCUMENT_TOKENS * rates.document / max(1.0, rates.document_tokens) + GENERAL_QUERIES * rates.score
    written = rates.load_writer + shape.written * rates.written + shape.embedded * rates.document
    stages = [
        Cost("write queries", shape.written, "queries", written),
        Cost("index", encoded, "documents", encoded * rates.document, round(encoded * rates.document_tokens)),
        Cost("search", scores, "scores", scores * rates.score + searched * rates.query),
    ]
    for task, each in rates.prompt.items():
        asked = max(0, count_prompts(recipe, shape, task) * labelings - shape.known.get(task, 0))
        stages.append(Cost(f"label {task}s", asked, "prompts", asked * each, round(asked * rates.prompt_tokens[task])))
    training = trainings * (rates.begin_training + steps * rates.step + saves * rates.save)
    kept = trainings * stored_documents(recipe, shape)
    stages.append(Cost("encode lists", kept, "documents", kept * rates.document))
    stages.append(Cost("train", trainings * steps, "steps", training))
    agreed = (compared + checked) * listed
    stages.append(Cost("agreement", agreed, "documents", agreed * rates.document))
    stages.append(Cost("general set", general, "documents", general * passage))
    loads = (not shape.retrieved) + indexes + trainings + compared * bool(held) + guards
    seconds = loads * rates.load_student + labelings * rates.load_teacher
    stages.append(Cost("load models", loads + labelings, "loads", seconds))
    stages = [cost for cost in stages if cost.units]
    return [Cost("start", 1, "start", rates.start), *stages] if stages else []


def stored_documents(recipe: Recipe, shape: Shape) -> int:
    """Return how many documents a training encodes before its first step: those of its lists, if train.layers is 0."""
    if recipe.train.layers != 0:
        return 0
    taught = shape.queries - count_held_out(shape.queries, recipe.train.held_out)
    taught = min(taught, trainer.count_steps(recipe.train, taught) * recipe.train.batch_size)
    return min(shape.documents, taught * min(recipe.train.n_way, recipe.retrieve.k, shape.documents))


def total_seconds(stages: Sequence[Cost]) -> float:
    """Return the total time in seconds."""
    return sum(cost.seconds for cost in stages)


def disk_bytes(recipe: Recipe, shape: Shape, rates: Rates) -> dict[str, float]:
    """Return the bytes on disk by purpose. The index and the training states are removed when their stage ends."""
    labels = sum(count_prompts(recipe, shape, task) for task in rates.prompt) * recipe.iterations
    texts = min(shape.documents, shape.queries * recipe.retrieve.k) * rates.document_text_bytes
    indexed = shape.test_queries or "student" in recipe.retrieve.sources
    return {
        "index": shape.documents * rates.document_bytes * bool(indexed),
        "labels": labels * BYTES_PER_LABEL + texts,
        "checkpoints": rates.student_bytes * (1 + recipe.iterations),
        # Three states of the weights and their two moments, and the best student:
        "training states": rates.student_bytes * (3 * 3 + recipe.train.keeps_best)
        + rates.stored_bytes * stored_documents(recipe, shape),
    }


def cheaper_settings(recipe: Recipe, shape: Shape, rates: Rates) -> dict[str, float]:
    """Return the total seconds with one change to the run, by the setting that changes it."""
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
    capped = changed("train.max_epochs", trainer.DEFAULT_MAX_EPOCHS)
    if trainer.count_steps(capped.train, taught) < trainer.count_steps(recipe.train, taught):
        changes[f"--set train.max_epochs={trainer.DEFAULT_MAX_EPOCHS}"] = capped, shape, rates
    if BM25_TEACHER not in (recipe.teacher.model, recipe.teacher.point.model):  # which has no parameters
        halved = {task: each / 2 for task, each in rates.prompt.items()}
        smaller = replace(rates, prompt=halved, written=rates.written / 2)
        changes["a teacher of half the parameters (--teacher)"] = recipe, shape, smaller
    return {name: total_seconds(costs(*changed)) for name, changed in changes.items()}


def scale_rates(recipe: Recipe, rates: Rates, measured: Mapping[str, int], teachers: Mapping[Task, float]) -> Rates:
    """Return these rates for the models of the paper, assuming the arithmetic per second that was measured here.

    recipe: the recipe whose lengths count. measured: parameters of the student and the teacher here. teachers:
    parameters of the paper's teachers.
    """
    per_token = rates.document / max(1.0, rates.document_tokens) * COLBERT_PARAMETERS / max(1, measured["student"])
    tokens = min(rates.document_tokens, recipe.train.document_length)
    trained = recipe.train.batch_size * recipe.train.n_way * tokens
    task = max(rates.prompt_tokens, key=lambda task: rates.prompt_tokens[task])
    per_parameter = rates.prompt[task] / max(1.0, rates.prompt_tokens[task]) / max(1, measured["teacher"])
    asked: dict[Task, float] = {"point": INSTRUCTION_TOKENS + tokens, "pair": INSTRUCTION_TOKENS + 2 * tokens}
    return replace(
        rates,
        document=per_token * rates.document_tokens,
        prompt={task: per_parameter * teachers[task] * min(recipe.teacher.max_length, asked[task]) for task in asked},
        prompt_tokens=asked,
        step=3 * trained * per_token,  # the gradient costs twice as much as the embeddings
    )
