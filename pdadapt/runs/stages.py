"""What each stage of a run reads and writes: the one place that says so.

What a restart keeps, which changed setting invalidates which stage, and the reference page of the run folder follow
from it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

StageName = Literal["student", "retrieve", "label", "train", "evaluate"]
STAGE_NAMES: tuple[StageName, ...] = get_args(StageName)


class Artefact(NamedTuple):
    """A file or folder of the run folder. `iteration-N` stands for every iteration; iteration-0 is the base student."""

    path: str
    meaning: str


class Stage(NamedTuple):
    """A step of the loop. Its artefacts are whole or absent; it does not run again while they are there."""

    name: StageName
    purpose: str
    reads: tuple[str, ...]
    """Settings, and parts of run.json, that change its artefacts; `train` stands for all settings below it, except
    those that another stage names. A stage also depends on what all stages before it read."""
    free: tuple[str, ...]
    """Settings of speed and memory. They change no finished artefact, so they may differ when a run is resumed."""
    writes: tuple[Artefact, ...]


STAGES = (
    Stage(
        "student",
        "Save the student before training.",
        reads=("seed", "student", "corpus", "corpus_sha256"),
        free=(),
        writes=(Artefact("student/", "The student before training, with its projection."),),
    ),
    Stage(
        "retrieve",
        "Rank the candidates of each training query.",
        reads=("retrieve", "retriever", "queries_sha256"),
        free=("retrieve.batch_tokens",),
        writes=(
            Artefact("iteration-0/bm25.run", "The candidates of BM25, if it is a source, for all iterations."),
            Artefact("iteration-N/candidates.run", "The candidates of the training queries."),
        ),
    ),
    Stage(
        "label",
        "Ask the teachers about the candidates, and make the training lists.",
        reads=(
            "teacher",
            "teachers",
            "label_store",
            "relevant_sha256",
            "train.n_way",
            "train.list",
            "train.temperature",
            "train.prior_precision",
        ),
        free=(
            "teacher.batch_tokens",
            "teacher.concurrency",
            "teacher.endpoints",
            "teacher.compile",
            "teacher.device_map",
        ),
        writes=(
            Artefact("labels.sqlite", "The label store: every answer of a teacher. A restart keeps it."),
            Artefact("iteration-N/asked.jsonl", "The journal of the labeling, while it runs."),
            Artefact("iteration-N/shards/", "The label stores and journals of shards (`pdadapt label`)."),
            Artefact("iteration-N/labels.json", "Counts of the labels, position bias, disagreement."),
            Artefact("iteration-N/lists.jsonl", "The training lists: one query, its documents and labels a line."),
        ),
    ),
    Stage(
        "train",
        "Train the student on the lists.",
        reads=("train", "iterations"),
        free=(
            "train.chunk_tokens",
            "train.gradient_cache",
            "train.gradient_checkpointing",
            "train.save_steps",
            "train.report_to",
            "evaluate.general",
        ),
        writes=(
            Artefact("iteration-N/trainer/", "Resumable states, while the training runs."),
            Artefact("iteration-N/train.jsonl", "The loss and its terms, step by step."),
            Artefact("iteration-N/checks.jsonl", "The agreement with the teacher at each check during training."),
            Artefact("iteration-N/checkpoint/", "The adapted student, in a form that PyLate and pdadapt load."),
            Artefact("iteration-N/general.run", "The ranking of the general set by this student (forgetting check)."),
        ),
    ),
    Stage(
        "evaluate",
        "Measure the students, and say whether retrieval improved.",
        reads=("evaluate", "test_queries_sha256"),
        free=(),
        writes=(
            Artefact("iteration-N/test.run", "The ranking of the test queries by this student."),
            Artefact("iteration-N/agreement.json", "The agreement with the teacher on held-out queries."),
            Artefact("iteration-N/held-out.jsonl", "Each held-out list with the scores of every student."),
            Artefact("metrics.json", "All results of the run."),
            Artefact("queries.tsv", "The value of each test query, measure and student."),
            Artefact("report.html", "The report as a page."),
        ),
    ),
)
OTHER_COMMANDS = ("reranker",)  # settings that no stage of `adapt` reads
GENERATION = ("generate",)  # settings of queries.jsonl, whose own report compares them
RUN_FILES = (
    Artefact("lock", "Locked while a process works on the run."),
    Artefact("recipe.yaml", "Every setting of the run."),
    Artefact("run.json", "What the run is made from: hashes of corpus and queries, keys of the labels, versions."),
    Artefact("queries.jsonl", "The queries that an LLM wrote, if the corpus has none."),
    Artefact("queries.jsonl.report.json", "What became of the queries that it wrote."),
    Artefact("timings.jsonl", "The time that each task took."),
    Artefact("progress.json", "The task that runs now."),
    Artefact("memory.json", "The batch sizes that fit into memory."),
    Artefact("iteration-N/index/", "The index of the corpus, while it is searched."),
)
"""What a run writes whatever its stages do."""
MAY_COME_FIRST = (*(file.path for file in RUN_FILES if "/" not in file.path), "labels.sqlite", "report.html")
"""What a run may have left that was killed as it began."""
RERANKER_FILES = ("model", "trainer", "candidates.run", "index")
"""What a run of `train-reranker` writes besides."""


def stage_that_reads(key: str) -> StageName:
    """The stage that reads this setting, or this part of run.json; of a key that no stage names, the first."""
    readers = {read: stage.name for stage in STAGES for read in stage.reads}
    while key not in readers and "." in key:
        key = key.rpartition(".")[0]
    return readers.get(key, STAGE_NAMES[0])


def is_free(key: str, staged: bool = True) -> bool:
    """Whether a setting may differ when a run is resumed, since it changes no artefact.

    staged: the run is one of `adapt`, which reads no setting of another command.
    """
    section = key.split(".")[0]
    if section in GENERATION or (staged and section in OTHER_COMMANDS):
        return True
    return any(key in stage.free for stage in STAGES)


def artefacts_before(name: StageName) -> set[str]:
    """The names, within the folder of an iteration, of what the stages before this one write."""
    earlier = STAGES[: STAGE_NAMES.index(name)]
    paths = (artefact.path for stage in earlier for artefact in stage.writes)
    return {path.removeprefix("iteration-N/").rstrip("/") for path in paths if path.startswith("iteration-N/")}
