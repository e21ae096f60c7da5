"""`pdadapt adapt`, `train-msmarco`, `train-reranker`, `queries`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pdadapt.cli.app import app
from pdadapt.cli.commands import same_options
from pdadapt.cli.dataset import open_dataset
from pdadapt.cli.options import (
    ClusterOption,
    CorpusOption,
    DebugOption,
    EndpointOption,
    PassagesOption,
    PlanOption,
    RecipeOption,
    RestartOption,
    SetOption,
    StopOption,
    StrictOption,
    StudentOption,
    TeacherOption,
    changed_settings,
    default_recipe,
    new_progress,
    open_console,
    say,
    teacher_settings,
)

if TYPE_CHECKING:
    from rich.console import Console

    from pdadapt.evaluation.results import RunMetrics
    from pdadapt.runtime.progress import Progress
    from pdadapt.runtime.ray_cluster import RayCluster


@app.command(epilog="Example: pdadapt adapt --corpus my/docs.jsonl --queries my/queries.txt --out runs/mine")
def adapt(
    corpus: CorpusOption,
    queries: Annotated[
        Path | None,
        typer.Option(
            help="Unlabeled queries: .txt (one per line), .tsv (id, text), .jsonl or .csv. If there are none here and "
            "none in the corpus, an LLM writes some first, as `pdadapt queries` does."
        ),
    ] = None,
    recipe: RecipeOption = None,
    out: Annotated[Path | None, typer.Option(help="The run folder. Default: runs/CORPUS-RECIPE.")] = None,
    student: StudentOption = None,
    teacher: TeacherOption = None,
    endpoint: EndpointOption = None,
    point_teacher: Annotated[
        str | None, typer.Option(help="Another teacher for single documents (sets teacher.point.model).")
    ] = None,
    pair_teacher: Annotated[
        str | None, typer.Option(help="Another teacher for pairs of documents (sets teacher.pair.model).")
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Rounds of retrieving, labeling and training (sets iterations).")
    ] = None,
    passages: PassagesOption = None,
    settings: SetOption = None,
    restart_from: RestartOption = None,
    plan: PlanOption = False,
    cluster: ClusterOption = None,
    stop_before_labeling: StopOption = False,
    strict: StrictOption = False,
    debug: DebugOption = False,
) -> None:
    """Adapt a retriever to a corpus. If the run stops, repeat the command: it resumes."""
    from pdadapt.settings.recipes import load_recipe

    console = open_console()
    options = {
        "student.model": student,
        **teacher_settings(teacher, endpoint),
        "teacher.point.model": point_teacher,
        "teacher.pair.model": pair_teacher,
        "iterations": iterations,
    }
    chosen = recipe or default_recipe(console)
    resolved = load_recipe(chosen, changed_settings(settings, options))
    dataset = open_dataset(corpus, queries, resolved.evaluate.split, strict, passages, summary=True)
    folder = out or Path("runs") / f"{dataset.name.replace('/', '-')}-{Path(chosen).stem}"
    progress = new_progress()
    if plan:
        from pdadapt.planning.plan import plan as make_plan
        from pdadapt.planning.table import plan_table

        estimate = make_plan(resolved, dataset, folder, progress, restart_from)
        console.print(plan_table(estimate) if estimate else "Nothing is left to do.")
        return

    from pdadapt.pipeline import adapt as run_adapt

    workers = open_cluster(cluster, progress) if cluster else None
    metrics = run_adapt(resolved, dataset, folder, progress, restart_from, stop_before_labeling, workers)
    if metrics is not None:
        print_result(console, metrics, folder, resumed=not progress.tasks)
    elif stop_before_labeling:
        console.print(how_to_label(folder))  # otherwise this process is not the first, which prints the result


@app.command(epilog="Example: pdadapt train-msmarco --out runs/msmarco")
@same_options(adapt, corpus="msmarco", recipe="msmarco")
def train_msmarco(**options: Any) -> None:
    """Train a retriever on a corpus with labeled queries: `adapt` with the corpus and the recipe `msmarco`.

    The loss has a contrastive term for the labeled queries. A folder needs qrels/train.tsv (BEIR) or
    collection.tsv, queries.train.tsv and qrels.train.tsv (MS MARCO).
    """
    adapt(**options)


@app.command(epilog="Example: pdadapt train-reranker --corpus squad/ --out rerankers/squad")
def train_reranker(
    corpus: Annotated[
        str,
        typer.Option(
            "--corpus",
            help="A corpus with labeled queries: a name, a BEIR folder with qrels/train.tsv, or a folder with the "
            "files of MS MARCO.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The run folder. The reranker is its subfolder `model`.")],
    recipe: Annotated[
        str | None, typer.Option(help="The recipe whose student finds negatives. Default: as for `adapt`.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The encoder to start from (sets reranker.model).")] = None,
    settings: SetOption = None,
    strict: StrictOption = False,
    debug: DebugOption = False,
) -> None:
    """Train a cross-encoder teacher on relevance labels.

    It judges pairs of documents, or with --set reranker.task=point single documents.
    """
    from pdadapt.settings.recipes import load_recipe
    from pdadapt.training.reranker import train_reranker as run_training

    changes = changed_settings(settings, {"reranker.model": model})
    resolved = load_recipe(recipe or default_recipe(open_console()), changes)
    dataset = open_dataset(corpus, strict=strict)
    folder = run_training(resolved, dataset, out, new_progress())
    task, teacher = resolved.reranker.task, shlex.quote(str(folder))
    say(f"Done. Use it with --{task}-teacher {teacher}")
    say(f"To measure it: pdadapt rerank --corpus CORPUS --run FILE --by {task}s --teacher {teacher}")


@app.command(epilog="Example: pdadapt queries my/docs.jsonl --out my/queries.jsonl --count 2000 --examples real.txt")
def queries(
    corpus: Annotated[str, typer.Argument(help="The corpus, as for `adapt --corpus`.")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="The new .jsonl file, for `adapt --queries`.")],
    count: Annotated[int | None, typer.Option(min=1, help="How many queries to write (sets generate.count).")] = None,
    examples: Annotated[
        Path | None,
        typer.Option(
            help="A file of real queries. The new ones have the same mix of kinds: questions, keywords, claims, "
            "titles (sets generate.examples)."
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="The recipe with the LLM that writes and the student that picks varied documents. Default: as for "
            "`adapt`."
        ),
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="The LLM that writes (sets teacher.model).")] = None,
    endpoint: EndpointOption = None,
    student: Annotated[
        str | None, typer.Option(help="The retriever that picks varied documents (sets student.model).")
    ] = None,
    passages: PassagesOption = None,
    settings: SetOption = None,
    strict: StrictOption = False,
    debug: DebugOption = False,
) -> None:
    """Write queries about a corpus with an LLM, and keep the good ones. If it stops, repeat the command: it resumes."""
    from pdadapt.settings.recipes import load_recipe

    options = {
        "generate.count": count,
        "generate.examples": examples and str(examples),
        "student.model": student,
        **teacher_settings(teacher, endpoint),
    }
    console = open_console()
    resolved = load_recipe(recipe or default_recipe(console), changed_settings(settings, options))
    dataset = open_dataset(corpus, strict=strict, passages=passages)

    from pdadapt.generation.job import prepare
    from pdadapt.generation.write import write_queries
    from pdadapt.reporting.tables import queries_table

    store = Path(resolved.label_store) if resolved.label_store else out.with_suffix(".labels.sqlite")
    report = write_queries(prepare(resolved, dataset, out, store, new_progress()))
    console.print(queries_table(report))
    split = ["--passages", passages] if passages else []
    say(f"Use them with {shlex.join(['pdadapt', 'adapt', '--corpus', corpus, '--queries', str(out), *split])}")


def open_cluster(address: str, progress: Progress) -> RayCluster:
    from pdadapt.runtime.ray_cluster import RayCluster

    cluster = RayCluster(address)
    progress.say(f"Ray cluster {cluster.address}: {cluster.slots()} workers, one per {cluster.kind}.")
    return cluster


def how_to_label(folder: Path) -> str:
    """What to do after --stop-before-labeling."""
    run = shlex.quote(str(folder))
    return (
        f"The candidates are ready to be labeled. On each machine that shares {folder}, label a part: "
        f"pdadapt label {run} --shard 1/16, and so on to --shard 16/16. Then merge the labels: pdadapt labels merge "
        f"{run}. Then repeat this command without --stop-before-labeling."
    )


def print_result(console: Console, metrics: RunMetrics, folder: Path, resumed: bool) -> None:
    """Print what came of a run. resumed: the run was finished before."""
    from pdadapt.reporting.tables import agreement_summary, comparison_table, label_summary

    for number, labels in enumerate(metrics.labels, 1):
        console.print(f"Labels of iteration {number}: {label_summary(labels)}")
    for number, agreement in enumerate(metrics.agreement, 1):
        summary = agreement_summary(agreement)
        console.print(f"Agreement with the teacher on held-out queries, iteration {number}: {summary}.")
    done = len(metrics.labels)
    if metrics.iteration < done:
        kept = f"iteration {done - 1}" if done > 1 else "the base student"
        console.print(f"Iteration {done} did not increase the agreement, so {kept} is the result.")
    if metrics.measures:
        systems = ["base"] + [f"iteration {number}" for number in range(1, done + 1)]
        console.print(comparison_table(metrics, ["base", "adapted"] if done == 1 else systems))
    else:
        console.print("The corpus has no judgments (qrels/test.tsv), so no measures were computed.")
    console.print(metrics.verdict.sentence)
    if metrics.verdict.outcome == "harmed":
        console.print(f"The base student is still in {folder / 'student'}")
    finished = "This run was already finished." if resumed else "Done."
    console.print(f"{finished} Checkpoint: {metrics.checkpoint}")
    console.print(f"Report: {folder / 'report.html'}")
