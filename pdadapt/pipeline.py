"""The order of the stages. Each leaves a file that is whole or absent; a stage whose file is there is not run again."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import shutil
import statistics
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdadapt import distributed, evaluate, train
from pdadapt.agreement import agreement, held_out, says_enough, score_lists
from pdadapt.answers import answers_of
from pdadapt.batches import limits
from pdadapt.corpus import (
    Corpus,
    Dataset,
    Queries,
    data_hashes,
    fingerprint,
    load_dataset,
    relevant_documents,
    with_queries,
)
from pdadapt.device import dtype_here
from pdadapt.engines.choose import BASELINE, check_model, make_engine
from pdadapt.engines.exact import Exact
from pdadapt.errors import DataError, RunError
from pdadapt.generation.stage import write_queries
from pdadapt.generation.writing import Writing, check_as_asked, prepare, work_of
from pdadapt.label import Labeling, ask_teachers, journal_of, make_lists
from pdadapt.labels import LabelStore
from pdadapt.models import resolve_model
from pdadapt.progress import Progress
from pdadapt.recipe import Recipe, TrainSettings
from pdadapt.report import write_report
from pdadapt.retrieve import (
    fuse_sources,
    index_corpus,
    rank_by_bm25,
    retrieve,
    retrieve_documents,
    sample_queries,
    search,
)
from pdadapt.run import Ranked, RunFile, RunFolder, Stage, read_settings, system, write_atomic, write_run
from pdadapt.students import load_configured, load_student, save_student
from pdadapt.students.colbert import PCA_DOCUMENTS, get_lengths, set_lengths
from pdadapt.summary import GENERAL, GENERAL_DEPTH, summarise
from pdadapt.teachers import Task
from pdadapt.teachers.choose import Teachers, check_teacher, teacher_key
from pdadapt.training_lists import TrainingList, read_lists, write_lists
from pdadapt.verdict import DECISIVE

if TYPE_CHECKING:
    from pdadapt.cluster import Cluster

PAPER_PASSES = 174  # 30,000 steps of 32 queries over FiQA's 5,500
PACKAGES = ("pdadapt", "torch", "transformers", "sentence-transformers")


@dataclass(frozen=True)
class Job:
    """A run whose every part has been found, and found to be right."""

    run: RunFolder
    queries: Queries
    test_queries: Queries
    keys: dict[Task, str]  # of the teachers' labels
    relevant: dict[str, list[str]]  # by query, what people labeled so, where L_CL asks for it
    origin: dict[str, Any]  # what run.json will say


def check(recipe: Recipe, dataset: Dataset, out: Path, restart_from: Stage | None = None) -> Job:
    """Find before any work what would stop it in the middle; nothing is loaded or written.

    Raises PdadaptError on anything the user can mend.
    """
    run = RunFolder(out)
    if restart_from and distributed.processes() > 1:
        raise RunError(
            "--restart-from is for one process, since the others could take old results for new ones: begin without "
            "the launcher, stop it when it trains (Ctrl-C), and go on with the launcher."
        )
    train.queries_at_once(recipe.train)  # or they cannot be shared out among the processes
    queries = sample_queries(dataset.queries, recipe.retrieve.max_queries, recipe.seed)
    test_queries = sample_queries(dataset.test_queries, recipe.evaluate.max_queries, recipe.seed)
    if not queries:
        raise DataError(
            f"Corpus {dataset.name!r} brings no queries to adapt on; give some with --queries FILE (one a line, TSV or "
            "JSONL), or have them written by `pdadapt queries`."
        )
    if not dataset.corpus.varied:
        raise DataError(
            f"Corpus {dataset.name!r} holds no two documents that differ, so there is no order to learn; give more."
        )
    evaluate.parse_measures(recipe.evaluate.measures, answers_of(dataset))
    keys = teacher_keys(recipe)
    if restart_from or not (run.iteration(1) / "lists.jsonl").exists():
        for task in keys:
            check_teacher(recipe.teacher, task, set(queries.values()), run.store(recipe))
    for name in filter(None, (recipe.student.model, recipe.retrieve.model)):
        kind = recipe.student.kind if name == recipe.student.model else "colbert"
        check_model(name, {**starter_settings(recipe), "kind": kind}, recipe.retrieve)
    origin = {
        "corpus": dataset.name,
        "source": dataset.source and dataset.source._asdict(),
        **data_hashes(dataset, queries),
        "test_queries_sha256": fingerprint(test_queries.items()),
        "student": resolve_model(recipe.student.model).identity(),
        "teachers": {task: json.loads(key) for task, key in keys.items()},
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    if recipe.retrieve.model:
        origin["retriever"] = resolve_model(recipe.retrieve.model).identity()
    relevant = labeled_relevant(recipe, dataset, queries)
    if relevant:
        origin["relevant_sha256"] = fingerprint((query_id, " ".join(doc_ids)) for query_id, doc_ids in relevant.items())
    return Job(run, queries, test_queries, keys, relevant, origin)


def with_precision(recipe: Recipe, run: RunFolder) -> Recipe:
    """The recipe with a precision of the teachers instead of `auto`: the run's, else this machine's. Labels of two
    precisions are not mixed.
    """
    if recipe.teacher.dtype != "auto":
        return recipe
    begun = read_settings(run.recipe_file).get("teacher") if run.recipe_file.exists() else None
    dtype = dtype_here(str(begun.get("dtype", "auto")) if isinstance(begun, dict) else "auto")
    return recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"dtype": dtype})})


def teacher_keys(recipe: Recipe) -> dict[Task, str]:
    """The label store's keys of the tasks that a teacher is asked."""
    tasks: list[Task] = ["point", "pair"] if recipe.teacher.pair.asked else ["point"]
    return {task: teacher_key(recipe.teacher, task) for task in tasks}


def adapt(
    recipe: Recipe,
    dataset: Dataset,
    out: Path,
    progress: Progress,
    restart_from: Stage | None = None,
    stop_before_labeling: bool = False,
    cluster: Cluster | None = None,
) -> dict[str, Any]:
    """Adapt the student to the dataset's corpus, `recipe.iterations` times; returns what metrics.json holds.

    Everything the run needs is checked before any work; killed at any moment, the same call goes on from there.
    restart_from: the stage from which a run of other settings may be made anew. stop_before_labeling: return nothing
    when candidates wait for labels, which others make (shards.py). cluster: where documents are encoded and labeled.
    Raises PdadaptError on anything the user can mend.
    """
    any_precision = recipe.teacher.dtype == "auto"
    recipe = with_precision(recipe, RunFolder(out))
    if distributed.rank() > 0:
        return join_training(recipe, dataset, RunFolder(out), progress)
    if stop_before_labeling and distributed.processes() > 1:
        raise RunError(
            "--stop-before-labeling is for one process, since the others wait for labels: begin without the launcher, "
            "and give it the run when the labels are there."
        )
    if not dataset.queries:
        dataset = write_own_queries(recipe, dataset, RunFolder(out), progress, restart_from)
    job = check(recipe, dataset, out, restart_from)
    dataset.notices.say(progress.say)
    if cluster and recipe.retrieve.engine in ("plaid", "colbert"):
        progress.say(f"Engine {recipe.retrieve.engine} encodes the corpus itself, on this machine; the cluster labels.")
    run, queries, test_queries = job.run, job.queries, job.test_queries
    if job.relevant:
        progress.say(
            f"{len(job.relevant):,} of {len(queries):,} queries are labeled: L_CL learns from their judgments."
        )
    kept_out = held_out(queries, recipe.train.held_out, recipe.seed)
    if recipe.train.held_out and not kept_out:
        progress.say("There are too few queries to hold some out: agreement with the teacher will not be measured.")
    if not run.metrics_file.exists() and (said := many_passes(recipe.train, len(queries) - len(kept_out))):
        progress.say(said)
    run.check(recipe, job.origin, restart_from)
    if any_precision:
        say_precision(recipe, job.keys, progress)
    anew = restart_from == "student" or not run.student.exists()
    student = new_student(recipe, dataset.corpus) if anew else None
    with run.locked():
        if said := run.claim(recipe, job.origin, restart_from):
            progress.say(said)
        progress.keep(run.path / "timings.jsonl", run.path / "progress.json")
        limits.remember(run.path / "memory.json")
        if student is not None and not run.student.exists():
            save_student(student, run.student)
        student = None  # its memory is wanted
        depth = evaluate.depth(recipe.evaluate)
        for iteration in range(1, recipe.iterations + 1):
            progress.prefix = f"iteration {iteration}: "
            folder = run.iteration(iteration)
            rank(recipe, dataset.corpus, queries, test_queries, depth, run, iteration - 1, progress, cluster)
            if not (folder / "lists.jsonl").exists():
                if stop_before_labeling:
                    progress.end()
                    return {}
                labeling = Labeling(RunFile(folder / "candidates.run"), dataset.corpus, queries, recipe, job.relevant)
                save_lists(labeling, job.keys, run.store(recipe), folder, progress, cluster)
            if not run.checkpoint(iteration).exists():
                fit(recipe, dataset.corpus, queries, run, iteration, progress)
            shutil.rmtree(folder / "trainer", ignore_errors=True)
            if kept_out and not has_agreement(folder, iteration):
                save_agreement(recipe, dataset.corpus, queries, run, iteration, progress)
            learned = not kept_out or has_learned(folder)
            if not learned:
                break
        progress.prefix = ""
        if test_queries:
            rank(recipe, dataset.corpus, {}, test_queries, depth, run, iteration, progress, cluster)
        best = iteration if learned else iteration - 1
        for number in range(iteration + 1):
            rank_general(recipe, run, number, progress)
        metrics = summarise(recipe, dataset, run, len(queries), test_queries, iteration, best)
        write_atomic(run.metrics_file, json.dumps(metrics, indent=2) + "\n")
        progress.end()
        write_report(run.path)
    return metrics


def say_precision(recipe: Recipe, keys: Mapping[Task, str], progress: Progress) -> None:
    """Say it when the run was begun in another precision than this machine would choose."""
    begun, here = recipe.teacher.dtype, dtype_here("auto")
    if begun != here and any("dtype" in json.loads(key) for key in keys.values()):
        progress.say(
            f"The teachers of this run compute in {begun}; on this machine `auto` would be {here}. To label anew in "
            f"that, add --set teacher.dtype={here} --restart-from label."
        )


def many_passes(settings: TrainSettings, queries: int) -> str:
    """A sentence for those whose train.steps are far too many for so few queries; else nothing."""
    steps = train.count_steps(settings, queries)
    passes = steps * settings.batch_size / queries
    if not settings.steps or passes <= 2 * PAPER_PASSES:
        return ""
    return (
        f"Training takes {steps:,} steps, which are {passes:,.0f} passes over {queries:,} queries (over FiQA's 5,500: "
        f"{PAPER_PASSES}). Set train.max_epochs={train.CAP}, as recipe `default` does, to end it sooner."
    )


def write_own_queries(
    recipe: Recipe, dataset: Dataset, run: RunFolder, progress: Progress, restart_from: Stage | None = None
) -> Dataset:
    """The dataset with queries that an LLM writes about it, or has written for this run."""
    found = own_queries(recipe, dataset, run, progress, restart_from)
    if isinstance(found, Writing):
        progress.say(f"Corpus {dataset.name!r} brings no queries, so they are written first.")
        with run.locked():
            progress.keep(run.path / "timings.jsonl", run.path / "progress.json")
            limits.remember(run.path / "memory.json")
            write_queries(found)
        return with_queries(dataset, found.out)
    shutil.rmtree(work_of(run.written_queries), ignore_errors=True)  # which a kill has left
    return found


def own_queries(
    recipe: Recipe, dataset: Dataset, run: RunFolder, progress: Progress, restart_from: Stage | None = None
) -> Dataset | Writing:
    """The dataset with the queries that were written for this run; or the writing that is to be done, when all is
    checked that would stop it or the run. Nothing is loaded or written. Raises PdadaptError on what the user can mend.
    """
    file = run.written_queries
    if file.exists():
        check_as_asked(file, recipe)
        return with_queries(dataset, file)
    if distributed.processes() > 1:
        raise RunError(
            f"Corpus {dataset.name!r} brings no queries, and one process writes them: begin without the launcher, or "
            "write them first with `pdadapt queries`."
        )
    if run.run_file.exists():
        source = (read_settings(run.run_file).get("source") or {}).get("queries")
        which = f"the queries in {source}" if source else "queries that came with its corpus"
        gone = ", which is gone" if source and not Path(source).exists() else ""
        raise RunError(f"{run.path} holds a run of {which}{gone}; give them with --queries, or give another --out.")
    check(recipe, stand_ins(dataset, ["any"]), run.path, restart_from)
    run.check(recipe, {}, restart_from)
    return prepare(recipe, dataset, file, run.store(recipe), progress)


def stand_ins(dataset: Dataset, texts: Sequence[str]) -> Dataset:
    """The dataset with these as the queries that are to be written, each with its label."""
    queries = {f"g{number}": text for number, text in enumerate(texts, 1)}
    first = next(iter(dataset.corpus)).doc_id
    return replace(dataset, queries=queries, read_train_qrels=lambda: {query_id: {first: 1} for query_id in queries})


def join_training(recipe: Recipe, dataset: Dataset, run: RunFolder, progress: Progress) -> dict[str, Any]:
    """What the ranks other than 0 do: their part of each training, as soon as rank 0 has left its lists."""
    distributed.take_device()
    distributed.wait_until(run.recipe_file.exists, run.path)
    if not dataset.queries:
        dataset = with_queries(dataset, run.written_queries)
    limits.remember(run.path / "memory.json")
    queries = sample_queries(dataset.queries, recipe.retrieve.max_queries, recipe.seed)
    kept_out = held_out(queries, recipe.train.held_out, recipe.seed)
    for iteration in range(1, recipe.iterations + 1):
        if not run.checkpoint(iteration).exists():
            distributed.wait_until((run.iteration(iteration) / "lists.jsonl").exists, run.path)
            fit(recipe, dataset.corpus, queries, run, iteration, progress)
        if kept_out:
            distributed.wait_until((run.iteration(iteration) / "agreement.json").exists, run.path)
            if not has_learned(run.iteration(iteration)):
                break
    return {}


def fit(recipe: Recipe, corpus: Corpus, queries: Queries, run: RunFolder, iteration: int, progress: Progress) -> None:
    """Train the student of the iteration before on this iteration's lists, but those held out.

    When memory runs out, the training goes on from its last state with smaller chunks.
    """
    folder = run.iteration(iteration)
    kept_out = held_out(queries, recipe.train.held_out, recipe.seed)
    lists = read_lists(folder / "lists.jsonl", lambda query_id: query_id not in kept_out)
    choosing = kept_out - judging(kept_out, recipe)
    chosen_by = read_lists(folder / "lists.jsonl", choosing.__contains__) if choosing else ()
    held = by_teacher_alone(recipe, corpus, queries, run, chosen_by)
    judges = [entry for entry in held if says_enough(entry, recipe.train.temperature)]
    if recipe.train.checked and not judges:
        why = "The teacher tells no documents of the queries held out apart" if held else "No queries are held out"
        progress.say(f"{why}, so the last state of the training is kept, not the best.")

    def measure(student: Any) -> float:
        scores = score_lists(student, judges, corpus, queries, recipe.retrieve.batch_tokens)
        found = agreement(judges, scores, recipe.train.temperature)
        return statistics.fmean(found[DECISIVE].values()) if found[DECISIVE] else 0.0

    def attempt(settings: TrainSettings) -> None:
        model = load_configured(str(run.checkpoint(iteration - 1)), recipe.student)
        seed, chosen = recipe.seed + iteration, measure if judges else None
        train.train(model, lists, corpus, queries, settings, seed, folder, progress, chosen)

    train.until_it_fits(recipe.train, attempt, progress.say)


def judging(kept_out: set[str], recipe: Recipe) -> set[str]:
    """Those of the queries held out by which a training is judged: half, where the others chose its best state."""
    return set(sorted(kept_out)[::2]) if recipe.train.checked else kept_out


def save_agreement(
    recipe: Recipe, corpus: Corpus, queries: Queries, run: RunFolder, iteration: int, progress: Progress
) -> None:
    """How far the student agrees with the teacher on the lists held out: the base, before this iteration's training
    (if that is another), and after. Leaves agreement.json, and held-out.jsonl: what each student made of each list.
    """
    folder = run.iteration(iteration)
    judges = judging(held_out(queries, recipe.train.held_out, recipe.seed), recipe)
    every = read_lists(folder / "lists.jsonl", judges.__contains__)
    lists = by_teacher_alone(recipe, corpus, queries, run, every)
    numbers = compared_students(iteration)
    values = []
    rows: list[dict[str, Any]] = [
        {"query_id": each.query_id, "doc_ids": each.doc_ids, "points": each.points, "students": {}} for each in lists
    ]
    with progress.task("agreement", len(numbers) * len(lists), "lists") as advance:
        for number in numbers:
            model = load_configured(str(run.checkpoint(number)), recipe.student)
            scores = score_lists(model, lists, corpus, queries, recipe.retrieve.batch_tokens, advance)
            values.append(agreement(lists, scores, recipe.train.temperature))
            for row, scored in zip(rows, scores, strict=True):
                agreed = {name: each.get(row["query_id"]) for name, each in values[-1].items()}
                row["students"][system(number)] = {"scores": scored, "agreement": agreed}
    write_atomic(folder / "held-out.jsonl", (json.dumps(row) + "\n" for row in rows))
    pair = (0, len(numbers) - 1)
    found = evaluate.compare_values(values, recipe.evaluate, recipe.seed, [pair]) if values[0][DECISIVE] else {}
    write_atomic(folder / "agreement.json", json.dumps(found, indent=2) + "\n")


def by_teacher_alone(
    recipe: Recipe, corpus: Corpus, queries: Queries, run: RunFolder, lists: Iterable[TrainingList]
) -> list[TrainingList]:
    """The lists with what the teacher alone said: with point.student_weight the labels hold the student's own scores
    too, and with those the student as it was agrees more than any other.
    """
    if not recipe.teacher.point.student_weight:
        return list(lists)
    derived = recipe.teacher.pair.scoring == "derived"
    with LabelStore(run.store(recipe), "points", teacher_key(recipe.teacher, "point")) as store:
        return [
            entry._replace(
                points=[store.get((queries[entry.query_id], corpus[doc_id].contents)) for doc_id in entry.doc_ids],
                pairs=[] if derived else entry.pairs,  # else derived again, from these points
            )
            for entry in lists
        ]


def compared_students(iteration: int) -> list[int]:
    """Whose agreement is measured in an iteration: of the base, of the student before its training, and after."""
    return list(dict.fromkeys([0, iteration - 1, iteration]))


def has_agreement(folder: Path, iteration: int) -> bool:
    """Whether the agreement is there, with all students (an earlier version left the base out)."""
    file = folder / "agreement.json"
    found = read_settings(file) if file.exists() else None
    return found is not None and all(
        len(values["means"]) == len(compared_students(iteration)) for values in found.values()
    )


def has_learned(folder: Path) -> bool:
    """Whether the agreement rose in this iteration; without queries that could tell, it is taken to have."""
    found = read_settings(folder / "agreement.json")
    return not found or found[DECISIVE]["means"][-1] > found[DECISIVE]["means"][-2]


def labeled_relevant(recipe: Recipe, dataset: Dataset, queries: Queries) -> dict[str, list[str]]:
    """What people labeled relevant to these queries, when L_CL asks for it. Raises DataError when there is nothing."""
    if not recipe.train.lambda_cl:
        return {}
    relevant = relevant_documents(dataset, queries)
    if not relevant:
        raise DataError(
            f"train.lambda_cl needs labeled queries, and corpus {dataset.name!r} brings none: give qrels/train.tsv of "
            "a BEIR folder (qrels.train.tsv in MS MARCO's layout), or queries with a `doc_id`, or set it to 0."
        )
    return relevant


def new_student(recipe: Recipe, corpus: Corpus) -> Any:
    """The student before training, with its projection."""
    model = load_configured(recipe.student.model, recipe.student, corpus.sample(PCA_DOCUMENTS))
    lengths = get_lengths(model)
    set_lengths(model, recipe.train.query_length, recipe.train.document_length)  # found too long now, not later
    set_lengths(model, *lengths)
    make_engine(model, recipe.retrieve)  # which cannot search it, or is not there, too
    return model


def save_lists(
    labeling: Labeling,
    keys: Mapping[Task, str],
    store: Path,
    folder: Path,
    progress: Progress,
    cluster: Cluster | None = None,
) -> None:
    """Label the candidates; a teacher is loaded only if it must be asked, and is gone before training."""
    settings = labeling.recipe.teacher
    if cluster:
        from pdadapt.cluster import ClusterTeachers
    teachers = ClusterTeachers(cluster, settings, list(keys)) if cluster else Teachers(settings, list(keys), progress)
    with LabelStore(store, "points", keys["point"]) as known:
        journal = journal_of(folder / "asked.jsonl", keys, known)
        if not journal.done("texts", 0):
            labeling.remember(known, labeling.ranking)
            journal.end("texts", 0)
    figures = ask_teachers(labeling, store, keys, teachers, progress, journal)
    teachers.free()

    def lists() -> Iterator[TrainingList]:
        with progress.task("training lists", len(labeling.ranking), "queries") as advance:
            for entry in make_lists(labeling, store, keys, figures):
                advance(1)
                yield entry
        lost = figures["points_unanswered"] + figures.get("pairs_unanswered", 0)
        if lost and not journal.unanswered:
            journal.forget()
            raise RunError(
                f"{store} lacks {lost:,.0f} labels that it held before. Give the same command again to ask for them."
            )
        write_atomic(folder / "labels.json", json.dumps(figures, indent=2) + "\n")  # before the lists have their name

    write_lists(folder / "lists.jsonl", lists())
    (folder / "asked.jsonl").unlink(missing_ok=True)


def rank(
    recipe: Recipe,
    corpus: Corpus,
    queries: Queries,
    test_queries: Queries,
    depth: int,
    run: RunFolder,
    iteration: int,
    progress: Progress,
    cluster: Cluster | None = None,
) -> None:
    """Rank test queries to this depth, and training queries for the next iteration, with the student of `iteration`.

    The first candidates may come from another model (retrieve.model), and all from BM25 too, or from it alone
    (retrieve.sources). One index serves all rankings of a model, and is removed when they are on disk.
    """
    test_file = run.iteration(iteration) / "test.run"
    candidates_file = run.iteration(iteration + 1) / "candidates.run"
    student = str(run.checkpoint(iteration))
    starter = student if iteration or not recipe.retrieve.model else recipe.retrieve.model
    index = run.iteration(iteration) / "index"
    wanted = bool(queries) and not candidates_file.exists()
    bm25 = None
    if wanted and BASELINE in recipe.retrieve.sources:
        bm25 = rank_by_bm25(corpus, queries, run.iteration(0) / "bm25.run", recipe.retrieve.k, progress)
        if "student" not in recipe.retrieve.sources:
            check_found(bm25, queries, progress)
            write_run(candidates_file, fuse_sources(((name, []) for name in bm25), bm25, recipe.retrieve), BASELINE)
            wanted = False
    for name in dict.fromkeys([student, starter]):
        asked = []
        if test_queries and name == student and not test_file.exists():
            asked.append((test_file, test_queries, depth))
        if wanted and name == starter:
            asked.append((candidates_file, queries, recipe.retrieve.k))
        if asked:
            settings = recipe.student.model_dump(exclude={"model"}) if name == student else starter_settings(recipe)
            encode = None
            if cluster:
                from pdadapt.cluster import encode_on

                encode = functools.partial(encode_on, cluster, name, settings, recipe.retrieve.batch_tokens)
            engine = make_engine(load_student(name, **settings), recipe.retrieve, encode)
            index_corpus(engine, corpus, index, progress, {"model": name})
            for file, texts, k in asked:
                found: Iterable[tuple[str, Ranked]]
                if file == test_file:
                    found = retrieve_documents(engine, corpus, texts, index, k, progress).items()
                else:
                    found = (each[:2] for each in search(engine, corpus, texts, index, k, progress))
                    found = found if bm25 is None else fuse_sources(found, bm25, recipe.retrieve)
                write_run(file, found, f"iteration-{iteration}")
    shutil.rmtree(index, ignore_errors=True)


def check_found(bm25: RunFile, queries: Queries, progress: Progress) -> None:
    """Say how many queries are left out, since BM25, the one source, found nothing. Raises DataError when all are."""
    if not bm25:
        raise DataError(
            "BM25 finds no document for any query, so there are no candidates; begin anew with --set "
            "retrieve.sources=[student] --restart-from retrieve."
        )
    if len(bm25) < len(queries):
        progress.say(f"BM25 finds nothing for {len(queries) - len(bm25):,} of {len(queries):,} queries: left out.")


def starter_settings(recipe: Recipe) -> dict[str, Any]:
    """Of the retriever of the first candidates, a ColBERT, when it is not the student."""
    return recipe.student.model_dump(include={"query_length", "document_length", "dtype"})


def rank_general(recipe: Recipe, run: RunFolder, iteration: int, progress: Progress) -> None:
    """The forgetting guard: rank the general set, which is none of the corpus adapted to, with this student."""
    file = run.iteration(iteration) / "general.run"
    if not recipe.evaluate.general or file.exists():
        return
    general = load_dataset(GENERAL)
    engine = Exact(load_configured(str(run.checkpoint(iteration)), recipe.student), recipe.retrieve.batch_tokens)
    progress.prefix = "general set: "
    with tempfile.TemporaryDirectory() as index:
        index_corpus(engine, general.corpus, Path(index), progress)
        ranking = retrieve(engine, general.corpus, general.test_queries, Path(index), GENERAL_DEPTH, progress)
    progress.prefix = ""
    write_run(file, ranking.items(), f"iteration-{iteration}")
