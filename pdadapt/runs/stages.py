"""What each stage of a run reads and writes: the one place that says so.

Three things follow from it: what a restart removes (RunFolder.outputs), which stage a changed setting invalidates
(stage_that_reads), and the reference page of the run folder (docs/generate.py).
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
    """What `--restart-from` can name. Its artefacts are whole or absent. It does not run again while they are there."""

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
        writes=(Artefact("student/", "The student before training."),),
    ),
    Stage(
        "retrieve",
        "Rank the candidates of each training query.",
        reads=("retrieve", "retriever", "queries_sha256"),
        free=("retrieve.batch_tokens",),
        writes=(
            Artefact("iteration-0/bm25.run", "BM25's candidates, for all iterations, if BM25 is a source."),
            Artefact("iteration-N/candidates.run", "TREC run: the documents that the teacher judges."),
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
            Artefact("labels.sqlite", "Every answer of the teacher: tables `teachers`, `points` and `pairs`."),
            Artefact(
                "iteration-N/asked.jsonl", "Journal of the questions, to resume. Removed at the end of the stage."
            ),
            Artefact("iteration-N/shards/", "The label store and journal of each shard of `pdadapt label`."),
            Artefact(
                "iteration-N/labels.json",
                "Counts of points and pairs, held and asked; flip rate, position bias, disagreement with points.",
            ),
            Artefact(
                "iteration-N/lists.jsonl",
                "Training lists: `query_id`, `doc_ids` in the teacher's order, `points`, `pairs` (two positions "
                "and the log-odds), `relevant` (documents labeled relevant).",
            ),
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
            Artefact(
                "iteration-N/temperature.json", "The fit of `train.student_temperature=auto`: `temperature`, `kd`, ..."
            ),
            Artefact("iteration-N/trainer/", "Resumable training states. Removed at the end."),
            Artefact(
                "iteration-N/train.jsonl", "The loss curve by term: `step`, `loss`, `kd`, `pair`, `learning_rate`, ..."
            ),
            Artefact("iteration-N/tensorboard/", "The loss curve for TensorBoard, if train.report_to asks for it."),
            Artefact(
                "iteration-N/checks.jsonl", "The agreement with the teacher before training (step 0) and at each check."
            ),
            Artefact("iteration-N/checkpoint/", "The adapted student, for sentence-transformers 6 and PyLate."),
            # Written after the last iteration, but kept with the checkpoint: a restart of `evaluate` keeps it.
            Artefact("iteration-N/general.run", "TREC run on the general set; of iteration 0 that of the base."),
        ),
    ),
    Stage(
        "evaluate",
        "Measure the students, and say whether retrieval improved.",
        reads=("evaluate", "test_queries_sha256"),
        free=(),
        writes=(
            Artefact("iteration-N/test.run", "TREC run on the test queries; of iteration 0 that of the base."),
            Artefact("iteration-N/agreement.json", "Student against teacher on held-out queries, before and after."),
            Artefact("iteration-N/held-out.jsonl", "The same query by query, with the scores of its documents."),
            Artefact(
                "metrics.json",
                "The results: `checkpoint` (the one to use), `labels`, `agreement`, `general`, `measures`, "
                "`most_changed`, `verdict` (`outcome` and `sentence`).",
            ),
            Artefact("queries.tsv", "The value of every test query, measure and student."),
            Artefact("report.html", "The results as a page that needs no network."),
        ),
    ),
)
OTHER_COMMANDS = ("reranker",)  # settings that no stage of `adapt` reads
GENERATION = ("generate",)  # settings of queries.jsonl, whose own report compares them
RUN_FILES = (
    Artefact("lock", "Names the process that uses the folder, and keeps others out."),
    Artefact("recipe.yaml", "The resolved settings, every one of them."),
    Artefact("run.json", "What the run was made from: hashes of corpus, queries, models and prompts; versions."),
    Artefact("queries.jsonl", "Queries that the LLM wrote, if the corpus has none: `_id`, `text`, `doc_id`."),
    Artefact("queries.jsonl.report.json", "How many queries were written, kept and dropped, with the reasons."),
    Artefact("queries.jsonl.work/", "Unfinished writing, from which a stopped run resumes. Removed at the end."),
    Artefact("timings.jsonl", "What each task took: `task`, `units`, `unit`, `seconds`."),
    Artefact("progress.json", "The task at work, for `pdadapt status`. Removed when the task ends."),
    Artefact("memory.json", "The batch sizes that fitted, after memory ran out."),
    Artefact("iteration-N/index/", "The index of the student. Removed when its rankings are written."),
)
"""What a run writes whatever its stages do."""
MAY_COME_FIRST = (*(file.path for file in RUN_FILES if "/" not in file.path), "labels.sqlite", "report.html")
"""What a run that was killed as it began may have left."""
RERANKER_FILES = ("model", "trainer", "candidates.run", "index")
"""What a run of `train-reranker` writes besides."""


def stage_that_reads(key: str) -> StageName:
    """The stage that reads this setting or part of run.json; the first stage if no stage names the key."""
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
