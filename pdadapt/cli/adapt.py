"""`pdadapt adapt`, `train-msmarco`, `train-reranker`, `queries`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from pdadapt.cli.app import app
from pdadapt.cli.options import (
    ClusterOption,
    CorpusOption,
    DebugOption,
    EndpointOption,
    PassagesOption,
    PlanOption,
    RestartOption,
    SetOption,
    Stage,
    StopOption,
    StrictOption,
    default_recipe,
    new_progress,
    open_console,
    overrides_of,
    say,
    teacher_settings,
)


@app.command(epilog="Example: pdadapt adapt --corpus my/docs.jsonl --queries my/queries.txt --out runs/mine")
def adapt(
    corpus: CorpusOption,
    queries: Annotated[
        Path | None,
        typer.Option(
            help="Unlabeled queries: .txt (one a line), .tsv (id, text), .jsonl or .csv. Where a corpus brings none "
            "either, an LLM writes them first, as by `pdadapt queries`."
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A recipe's name or file. Default: `default` where there is a GPU, else `small`.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder. Default: runs/CORPUS-RECIPE.")] = None,
    student: Annotated[str | None, typer.Option(help="Sets student.model.")] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Sets teacher.model, of points and pairs: a hub id, a folder, package:NAME/PATH, http://HOST/v1#NAME."
        ),
    ] = None,
    endpoint: EndpointOption = None,
    point_teacher: Annotated[str | None, typer.Option(help="Sets teacher.point.model: another one for points.")] = None,
    pair_teacher: Annotated[str | None, typer.Option(help="Sets teacher.pair.model: another one for pairs.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Rounds of retrieve, label, train.")] = None,
    passages: PassagesOption = None,
    settings: SetOption = None,
    restart_from: RestartOption = None,
    plan: PlanOption = False,
    cluster: ClusterOption = None,
    stop_before_labeling: StopOption = False,
    strict: StrictOption = False,
    debug: DebugOption = False,
) -> None:
    """Adapt a retriever to a corpus. The same command again continues a run that was stopped."""
    models = {
        "student.model": student,
        **teacher_settings(teacher, endpoint),
        "teacher.point.model": point_teacher,
        "teacher.pair.model": pair_teacher,
        "iterations": iterations,
    }
    chosen = recipe or default_recipe(open_console())
    _run(
        corpus,
        queries,
        chosen,
        out,
        settings,
        models,
        passages,
        restart_from,
        plan,
        stop_before_labeling,
        cluster,
        strict,
    )


@app.command(epilog="Example: pdadapt train-msmarco --out runs/msmarco")
def train_msmarco(
    corpus: Annotated[
        str,
        typer.Option(
            "--corpus",
            help="`msmarco` or another name with labeled training queries; a folder with MS MARCO's files "
            "(collection.tsv, queries.train.tsv, qrels.train.tsv), or in BEIR layout with qrels/train.tsv.",
        ),
    ] = "msmarco",
    recipe: Annotated[str, typer.Option(help="A recipe's name or file.")] = "msmarco",
    out: Annotated[Path | None, typer.Option(help="The run folder. Default: runs/CORPUS-RECIPE.")] = None,
    student: Annotated[str | None, typer.Option(help="Sets student.model.")] = None,
    teacher: Annotated[str | None, typer.Option(help="Sets teacher.model, of points and pairs.")] = None,
    endpoint: EndpointOption = None,
    point_teacher: Annotated[str | None, typer.Option(help="Sets teacher.point.model.")] = None,
    pair_teacher: Annotated[str | None, typer.Option(help="Sets teacher.pair.model.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Rounds of retrieve, label, train.")] = None,
    settings: SetOption = None,
    restart_from: RestartOption = None,
    plan: PlanOption = False,
    cluster: ClusterOption = None,
    stop_before_labeling: StopOption = False,
    strict: StrictOption = False,
    debug: DebugOption = False,
) -> None:
    """Train a retriever where some queries are labeled: L_CL on those, distillation on all."""
    models = {
        "student.model": student,
        **teacher_settings(teacher, endpoint),
        "teacher.point.model": point_teacher,
        "teacher.pair.model": pair_teacher,
        "iterations": iterations,
    }
    _run(corpus, None, recipe, out, settings, models, None, restart_from, plan, stop_before_labeling, cluster, strict)


@app.command(epilog="Example: pdadapt train-reranker --corpus squad/ --out rerankers/squad")
def train_reranker(
    corpus: Annotated[
        str,
        typer.Option(
            "--corpus", help="A name, a BEIR folder with qrels/train.tsv, or one with MS MARCO's files: with labels."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The run folder; the classifier will be its `model`.")],
    recipe: Annotated[str | None, typer.Option(help="Whose student finds negatives. Default as of `adapt`.")] = None,
    model: Annotated[str | None, typer.Option(help="Sets reranker.model: the encoder to start from.")] = None,
    settings: SetOption = None,
    strict: StrictOption = False,
    debug: DebugOption = False,
) -> None:
    """Fit a classifier teacher to labels: of pairs, or of points (--set reranker.task=point)."""
    from pdadapt.data.load import load_dataset
    from pdadapt.settings.recipes import load_recipe
    from pdadapt.training.reranker import train_reranker as run_training

    overrides = overrides_of(settings, {"reranker.model": model})
    resolved = load_recipe(recipe or default_recipe(open_console()), overrides)
    folder = run_training(resolved, load_dataset(corpus, strict=strict), out, new_progress())
    task = resolved.reranker.task
    teacher = shlex.quote(str(folder))
    say(f"Done. Use it with --{task}-teacher {teacher}")
    say(f"How well does it rank? pdadapt rerank --corpus CORPUS --run FILE --by {task}s --teacher {teacher}")


@app.command(epilog="Example: pdadapt queries my/docs.jsonl --out my/queries.jsonl --count 2000 --examples real.txt")
def queries(
    corpus: Annotated[str, typer.Argument(help="What --corpus of `adapt` takes.")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="The new .jsonl file, for --queries of `adapt`.")],
    count: Annotated[int | None, typer.Option(min=1, help="Sets generate.count: queries wanted.")] = None,
    examples: Annotated[
        Path | None, typer.Option(help="Sets generate.examples: a file of real queries, whose mix of kinds is learned.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Whose teacher writes, and whose student spreads. Default as of `adapt`.")
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="Sets teacher.model: the LLM that writes.")] = None,
    endpoint: EndpointOption = None,
    student: Annotated[str | None, typer.Option(help="Sets student.model.")] = None,
    passages: PassagesOption = None,
    settings: SetOption = None,
    strict: StrictOption = False,
    debug: DebugOption = False,
) -> None:
    """Have an LLM write queries about a corpus that brings none, and keep the good ones. Stopped, the same goes on."""
    from pdadapt.data.load import load_dataset
    from pdadapt.data.passages import split_documents
    from pdadapt.settings.recipes import load_recipe

    options = {
        "generate.count": count,
        "generate.examples": examples and str(examples),
        "student.model": student,
        **teacher_settings(teacher, endpoint),
    }
    console = open_console()
    resolved = load_recipe(recipe or default_recipe(console), overrides_of(settings, options))
    dataset = load_dataset(corpus, strict=strict)
    dataset.notices.say(new_progress().say)
    if passages:
        dataset = split_documents(dataset, passages)

    from pdadapt.generation.stage import write_queries
    from pdadapt.generation.writing import prepare
    from pdadapt.reporting.tables import queries_table

    store = Path(resolved.label_store) if resolved.label_store else out.with_suffix(".labels.sqlite")
    report = write_queries(prepare(resolved, dataset, out, store, new_progress()))
    console.print(queries_table(report))
    same = ["--passages", passages] if passages else []
    say(f"Use them with {shlex.join(['pdadapt', 'adapt', '--corpus', corpus, '--queries', str(out), *same])}")


def _run(
    corpus: str,
    queries: Path | None,
    recipe: str,
    out: Path | None,
    settings: list[str] | None,
    options: dict[str, Any],
    passages: str | None = None,
    restart_from: Stage | None = None,
    plan: bool = False,
    stop_before_labeling: bool = False,
    cluster: str | None = None,
    strict: bool = False,
) -> None:
    """Resolve the recipe, run or plan the stages, print what came out. options: keys of settings, None if not given."""
    from pdadapt.data.load import load_dataset
    from pdadapt.data.passages import split_documents
    from pdadapt.settings.recipes import load_recipe

    console = open_console()
    overrides = overrides_of(settings, options)
    resolved = load_recipe(recipe, overrides)
    dataset = load_dataset(corpus, queries, resolved.evaluate.split, strict)
    if passages:
        dataset = split_documents(dataset, passages)
    folder = out or Path("runs") / f"{dataset.name.replace('/', '-')}-{Path(recipe).stem}"

    from pdadapt.pipeline import adapt as run_adapt
    from pdadapt.reporting.tables import agreement_summary, comparison_table, label_summary

    progress = new_progress()
    progress.say(dataset.summary)
    dataset.notices.say(progress.say)
    restart: Any = restart_from.value if restart_from else None
    if plan:
        from pdadapt.planning.plan import plan as make_plan
        from pdadapt.planning.table import plan_table

        found = make_plan(resolved, dataset, folder, progress, restart)
        console.print(plan_table(found) if found else "Nothing is left to do.")
        return
    workers = None
    if cluster:
        from pdadapt.runtime.ray_cluster import RayCluster

        workers = RayCluster(cluster)
        progress.say(f"Ray cluster {workers.address}: room for {workers.slots()} workers, a {workers.kind} each.")
    metrics = run_adapt(resolved, dataset, folder, progress, restart, stop_before_labeling, workers)
    if metrics is None:
        if stop_before_labeling:
            quoted = shlex.quote(str(folder))
            console.print(
                f"Candidates wait for labels. Label them on as many machines as share {folder}: pdadapt label "
                f"{quoted} --shard 1/16, ... --shard 16/16; then pdadapt labels merge {quoted}; then this command "
                "without --stop-before-labeling."
            )
        return  # else rank 0 says it
    for number, labels in enumerate(metrics.labels, 1):
        console.print(f"Labels of iteration {number}: {label_summary(labels)}")
    for number, agreed in enumerate(metrics.agreement, 1):
        text = f"Agreement with the teacher on queries held out, iteration {number}: {agreement_summary(agreed)}."
        console.print(text)
    done = len(metrics.labels)
    if metrics.iteration < done:
        kept = f"iteration {done - 1}" if done > 1 else "the student as it was"
        console.print(f"Iteration {done} brought no more agreement, so {kept} is kept for use.")
    if metrics.measures:
        systems = ["base"] + [f"iteration {number}" for number in range(1, done + 1)]
        console.print(comparison_table(metrics, ["base", "adapted"] if done == 1 else systems))
    else:
        console.print("No judgments (qrels/test.tsv) came with the corpus, so nothing was measured.")
    ended = "Done" if progress.tasks else "Finished before: nothing was left to do"
    console.print(metrics.verdict.sentence)
    if metrics.verdict.outcome == "harmed":
        console.print(f"The student as it was is still there: {folder / 'student'}")
    console.print(f"{ended}. Checkpoint: {metrics.checkpoint}")
    console.print(f"Report: {folder / 'report.html'}")
