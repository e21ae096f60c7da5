"""The command line: parse, call, print. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import json
import re
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pdadapt import __version__
from pdadapt.errors import DataError, explain
from pdadapt.options import Commands, refuse_repeated, settings_given
from pdadapt.printing import printable
from pdadapt.readers import check_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from pdadapt.progress import Progress
    from pdadapt.teachers import Task

app = Commands(
    help="Adapt a ColBERT retriever to your corpus without relevance judgments: an LLM judges documents one by one and "
    "two by two, and the retriever learns from it (PairDistill).",
    epilog="Try: pdadapt adapt --corpus demo --recipe demo",
    no_args_is_help=True,
    add_completion=False,
)
recipes_app = Commands(help="List, show and copy the shipped recipes.", invoke_without_command=True)
app.add_typer(recipes_app, name="recipes")
labels_app = Commands(help="Export, import and show what teachers said.", no_args_is_help=True)
app.add_typer(labels_app, name="labels")

RUN_ENDINGS = (".run", ".trec", ".res")  # of files that no model is called after
CORPUS = typer.Option(
    "--corpus",
    help="A name of `pdadapt datasets`; `demo`; a BEIR folder; a .jsonl, .tsv, .csv (.gz too) or .parquet file; "
    "a folder of .txt and .md files; hf:NAME[:CONFIG][@SPLIT].",
)
CorpusOption = Annotated[str, CORPUS]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        callback=settings_given,
        help="Change a setting, e.g. train.learning_rate=3e-6; may be repeated.",
    ),
]
PassagesOption = Annotated[
    str | None,
    typer.Option(
        metavar="words=N,overlap=M", help="Split documents into passages; a document ranks by its best passage."
    ),
]
StrictOption = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Refuse what is else left out and said: blank documents and queries, judgments of what is not there.",
    ),
]


class Stage(StrEnum):
    student = "student"
    retrieve = "retrieve"
    label = "label"
    train = "train"
    evaluate = "evaluate"


RestartOption = Annotated[
    Stage | None,
    typer.Option(help="In a run of other settings: make this stage and those after it anew, and keep the others."),
]
PlanOption = Annotated[
    bool, typer.Option("--plan", help="Check everything, time a small sample, say what the run will cost; then stop.")
]
EndpointOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="URL",
        help="A server of the teacher, http://HOST/v1#NAME; may be repeated: questions go to whichever is free.",
    ),
]


def _cluster(address: str | None) -> str | None:
    if address is not None and not re.fullmatch(r"ray(://[^/:]+:[0-9]{1,5})?", address):
        raise typer.BadParameter(f"{address!r} is no cluster: write ray, or ray://HOST:6379.")
    return address


ClusterOption = Annotated[
    str | None,
    typer.Option(
        metavar="ray[://HOST:6379]",
        callback=_cluster,
        help="Encode and label on the Ray cluster that this machine is a node of; of several, that with this head.",
    ),
]
StopOption = Annotated[
    bool,
    typer.Option(
        "--stop-before-labeling", help="End when candidates wait for labels, for `pdadapt label` on other machines."
    ),
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


def _version(show: bool) -> None:
    if show:
        say(f"pdadapt {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


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
    from pdadapt.corpus import load_dataset
    from pdadapt.recipe import load_recipe
    from pdadapt.reranker import train_reranker as run_training

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
    from pdadapt.corpus import load_dataset
    from pdadapt.passages import split_documents
    from pdadapt.recipe import load_recipe

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
    from pdadapt.tables import queries_table

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
    from pdadapt.corpus import load_dataset
    from pdadapt.passages import split_documents
    from pdadapt.recipe import load_recipe

    console = open_console()
    overrides = overrides_of(settings, options)
    resolved = load_recipe(recipe, overrides)
    dataset = load_dataset(corpus, queries, resolved.evaluate.split, strict)
    if passages:
        dataset = split_documents(dataset, passages)
    folder = out or Path("runs") / f"{dataset.name.replace('/', '-')}-{Path(recipe).stem}"

    from pdadapt.pipeline import adapt as run_adapt
    from pdadapt.tables import agreement_summary, comparison_table, label_summary

    progress = new_progress()
    progress.say(dataset.summary)
    dataset.notices.say(progress.say)
    restart: Any = restart_from.value if restart_from else None
    if plan:
        from pdadapt.plan import plan as make_plan
        from pdadapt.tables import plan_table

        found = make_plan(resolved, dataset, folder, progress, restart)
        console.print(plan_table(found) if found else "Nothing is left to do.")
        return
    workers = None
    if cluster:
        from pdadapt.cluster import Cluster

        workers = Cluster(cluster)
        progress.say(f"Ray cluster {workers.address}: room for {workers.slots()} workers, a {workers.kind} each.")
    metrics = run_adapt(resolved, dataset, folder, progress, restart, stop_before_labeling, workers)
    if not metrics:
        if stop_before_labeling:
            quoted = shlex.quote(str(folder))
            console.print(
                f"Candidates wait for labels. Label them on as many machines as share {folder}: pdadapt label "
                f"{quoted} --shard 1/16, ... --shard 16/16; then pdadapt labels merge {quoted}; then this command "
                "without --stop-before-labeling."
            )
        return  # else rank 0 says it
    for number, figures in enumerate(metrics["labels"], 1):
        console.print(f"Labels of iteration {number}: {label_summary(figures)}")
    for number, figures in enumerate(metrics["agreement"], 1):
        text = f"Agreement with the teacher on queries held out, iteration {number}: {agreement_summary(figures)}."
        console.print(text)
    done = len(metrics["labels"])
    if metrics["iteration"] < done:
        kept = f"iteration {done - 1}" if done > 1 else "the student as it was"
        console.print(f"Iteration {done} brought no more agreement, so {kept} is kept for use.")
    if metrics["measures"]:
        systems = ["base"] + [f"iteration {number}" for number in range(1, done + 1)]
        console.print(comparison_table(metrics, ["base", "adapted"] if done == 1 else systems))
    else:
        console.print("No judgments (qrels/test.tsv) came with the corpus, so nothing was measured.")
    ended = "Done" if progress.tasks else "Finished before: nothing was left to do"
    console.print(metrics["verdict"]["sentence"])
    if metrics["verdict"]["outcome"] == "harmed":
        console.print(f"The student as it was is still there: {folder / 'student'}")
    console.print(f"{ended}. Checkpoint: {metrics['checkpoint']}")
    console.print(f"Report: {folder / 'report.html'}")


def teacher_settings(model: str | None, endpoints: list[str] | None) -> dict[str, Any]:
    """The settings that --teacher and --endpoint stand for."""
    if not endpoints:
        return {"teacher.model": model}
    first, *more = endpoints if model is None else [model, *endpoints]
    return {"teacher.model": first, "teacher.endpoints": more}


def overrides_of(settings: list[str] | None, options: dict[str, Any]) -> dict[str, Any]:
    """The settings that a command changes: those of --set, and options (None where not given).

    A teacher that is given stands for those of points and pairs that the recipe may name. Raises BadParameter when
    --set and an option give the same one.
    """
    from pdadapt.recipe import parse_override

    overrides = dict(map(parse_override, settings or []))
    given = {key: value for key, value in options.items() if value is not None}
    refuse_repeated(overrides, given)
    overrides |= given
    if "teacher.model" in overrides:
        overrides = {"teacher.point.model": None, "teacher.pair.model": None} | overrides
    return overrides


class Suite(StrEnum):
    beir_11 = "beir-11"
    beir_13 = "beir-13"
    beir_18 = "beir-18"
    lotte = "lotte"
    msmarco = "msmarco"
    openqa = "openqa"
    paper = "paper"


@app.command(epilog="Example: pdadapt evaluate --corpus demo --model runs/demo --against runs/demo/student")
def evaluate(
    corpus: Annotated[str | None, CORPUS] = None,
    suite: Annotated[
        Suite | None, typer.Option(help="Many test sets in one table, beside the paper's figures.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Of a suite: a folder of corpora in BEIR layout, which go before downloads.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A run folder, a checkpoint folder, a hub id, package:NAME/PATH, or bm25.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Instead of a model: a TREC run file, of any system.")] = None,
    against: Annotated[
        list[str] | None, typer.Option(metavar="MODEL_OR_RUN", help="A baseline to compare with; may be repeated.")
    ] = None,
    qrels: Annotated[
        Path | None, typer.Option(help="Judgments, TREC's or BEIR's columns, instead of the corpus' own.")
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(help="The queries that --qrels judges, if the corpus brings none: as of `adapt`.")
    ] = None,
    measures: Annotated[str | None, typer.Option(help='Sets evaluate.measures, e.g. "AP nDCG@10 R@1000".')] = None,
    split: Annotated[str | None, typer.Option(help="qrels/SPLIT.tsv of the BEIR folder. Default: test.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where run files and metrics go. Default: runs/evaluate-CORPUS.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Also write the metrics to this file.")
    ] = None,
    index: Annotated[
        Path | None, typer.Option(help="Keep indexes in this folder, and use those that are there.")
    ] = None,
    bm25: Annotated[bool, typer.Option(help="Show BM25 beside them, where there is a corpus.")] = True,
    passages: PassagesOption = None,
    settings: SetOption = None,
    strict: StrictOption = False,
    debug: DebugOption = False,
) -> None:
    """Measure a model or a run where there are judgments, as trec_eval does, and compare it with others.

    A model is whatever sentence-transformers loads (multi-vector, dense, sparse), or `bm25`. With --run and --qrels no
    corpus is needed, if what it is compared with are runs too.
    """
    if bool(model) == bool(run):
        raise typer.BadParameter("give either a model or a run.", param_hint="--model / --run")
    if suite and (corpus or run or qrels or queries):
        raise typer.BadParameter("stands for corpora, with a --model.", param_hint="--suite")
    if suite and strict:
        raise typer.BadParameter("is for one corpus, not for suites.", param_hint="--strict")
    for name in [*([str(run)] if run else []), *(against or []), *([model] if model else [])]:
        if name == str(run) or (name.endswith(RUN_ENDINGS) and not Path(name).exists()):
            check_file(Path(name))
    runs_only = run is not None and qrels is not None
    if not (corpus or suite or runs_only):
        raise typer.BadParameter("is needed, unless runs are measured with --qrels.", param_hint="--corpus")
    if not (corpus or suite) and (models := [name for name in against or [] if not Path(name).is_file()]):
        raise DataError(f"{models[0]} is no run file, and a model is measured on a --corpus; give one.")
    from pdadapt import evaluate as evaluation
    from pdadapt.corpus import Dataset, judge, load_dataset, read_judged
    from pdadapt.engines.choose import BASELINE, check_model
    from pdadapt.passages import split_documents
    from pdadapt.recipe import EvaluateSettings, apply_overrides, parse_recipe
    from pdadapt.run import check_place, last_checkpoint, write_atomic

    if json_file:
        check_place(json_file)
    named = measures.replace(",", " ").split() if measures else None
    overrides = overrides_of(settings, {"evaluate.measures": named, "evaluate.split": split})
    tree = apply_overrides({}, overrides)
    resolved = parse_recipe(tree, "--set", overrides)
    split = resolved.evaluate.split
    if suite and split != "test":
        raise typer.BadParameter("is not for suites, which test on what the paper does.", param_hint="--split")
    student = resolved.student.model_dump(include={"dtype", *tree.get("student", {})} - {"model"})
    asked = [*(against or []), str(model or run)]
    shown = [BASELINE, *asked] if bm25 and (corpus or suite) and BASELINE not in asked else asked
    names, last = list(map(last_checkpoint, shown)), len(shown) - 1
    pairs = [(i, last) for i in range(len(shown) - len(asked) if against else 0, last)]
    progress, console = new_progress(), open_console()

    def measure(dataset: Dataset, chosen: EvaluateSettings, folder: Path) -> dict[str, Any]:
        dataset = split_documents(dataset, passages) if passages else dataset
        retrieval = resolved.retrieve
        return evaluation.evaluate(
            names, dataset, chosen, student, folder, resolved.seed, retrieval, progress, pairs, index
        )

    if suite:
        from pdadapt.engines.choose import identity
        from pdadapt.suites import rich_table, run_suite, write_tables

        def of_suite(dataset: Dataset, wanted: Sequence[str], folder: Path) -> dict[str, Any]:
            return measure(dataset, resolved.evaluate.model_copy(update={"measures": tuple(wanted)}), folder)

        folder = out or Path("runs") / f"evaluate-{suite.value}"
        same = {
            "systems": list(map(identity, names)),
            "names": names,
            "student": student,
            "passages": passages,
            **resolved.model_dump(mode="json", include={"seed", "retrieve"}),
            "evaluate": resolved.evaluate.model_dump(mode="json", exclude={"measures"}),
        }
        for name in names:
            check_model(name, student, resolved.retrieve)
        rows, notes = run_suite(suite.value, data, folder, same, of_suite, progress.say)
        if most := resolved.evaluate.max_queries:
            notes.append(f"At most {most:,} test queries of a set were drawn; the paper's figures are on all of them.")
        write_tables(rows, shown, folder, notes)
        console.print(rich_table(rows, shown))
        for note in notes:
            console.print(note)
        console.print(f"table.md, table.csv, table.tex and a folder for each test set: {folder}")
        return

    from pdadapt.tables import changed_queries, comparison_table, short_names

    if corpus is None:
        assert qrels is not None  # else refused above
        dataset = read_judged(qrels, strict)
    else:
        dataset = load_dataset(corpus, queries, split, strict)
        dataset = judge(dataset, qrels) if qrels else dataset
    dataset.notices.say(progress.say)
    folder = out or Path("runs") / f"evaluate-{dataset.name.replace('/', '-')}"
    metrics = measure(dataset, resolved.evaluate, folder)
    few = ["against", "model" if model else "run"][-len(asked) :]
    systems = short_names(shown) if len(asked) > 2 else shown[: -len(asked)] + few
    if json_file:
        write_atomic(json_file, json.dumps(metrics, indent=2) + "\n")
    console.print(comparison_table(metrics, systems))
    if metrics["most_changed"]:
        console.print(changed_queries(metrics, systems))
    console.print(f"Run files, every query's values and metrics.json: {folder}")


@app.command(epilog='Example: pdadapt search runs/demo --corpus demo "squeaking brakes" --compare runs/demo/student')
def search(
    model: Annotated[str, typer.Argument(help="A run folder, a checkpoint folder, a hub id, package:NAME/PATH, bm25.")],
    corpus: CorpusOption,
    query: Annotated[str | None, typer.Argument(help="What to search for.")] = None,
    compare: Annotated[str | None, typer.Option(metavar="MODEL", help="Show another's ranking beside it.")] = None,
    interactive: Annotated[bool, typer.Option("--interactive", help="Ask for queries until an empty one.")] = False,
    k: Annotated[int, typer.Option("--k", min=1, help="Passages shown.")] = 5,
    index: Annotated[Path, typer.Option(help="Where indexes are kept for the next time.")] = Path("runs/search"),
    passages: PassagesOption = None,
    settings: SetOption = None,
    strict: StrictOption = False,
    debug: DebugOption = False,
) -> None:
    """Try a retriever by hand: ranked passages, with the words that MaxSim matched."""
    if (query is None) != interactive or (query is not None and not query.strip()):
        raise typer.BadParameter("give a query, or --interactive.", param_hint="QUERY")
    if re.search("[\ud800-\udfff]", query or ""):
        raise typer.BadParameter("it is no text in this terminal's encoding. Write it in UTF-8.", param_hint="QUERY")
    from pdadapt.corpus import load_dataset
    from pdadapt.passages import split_documents
    from pdadapt.recipe import apply_overrides, parse_recipe

    overrides = overrides_of(settings, {})
    tree = apply_overrides({}, overrides)
    resolved = parse_recipe(tree, "--set", overrides)
    dataset = load_dataset(corpus, strict=strict)
    dataset.notices.say(new_progress().say)
    if passages:
        dataset = split_documents(dataset, passages)

    from pdadapt.engines.choose import check_model
    from pdadapt.run import last_checkpoint
    from pdadapt.search import Searcher, show, side_by_side

    student = resolved.student.model_dump(include={"dtype", *tree.get("student", {})} - {"model"})
    progress, console = new_progress(), open_console()
    searchers = []
    shown = (compare, model) if compare else (model,)
    for name in shown:
        check_model(last_checkpoint(name), student, resolved.retrieve)
    for name in shown:
        searchers.append(Searcher(name, dataset, index, student, resolved.retrieve, progress))
    while text := query or _ask(console):
        base, found = searchers[0](text, k), searchers[-1](text, k)
        console.print(side_by_side(base, found, (compare, model)) if compare else show(found))
        if query:
            break


def _ask(console: Console) -> str:
    """A line that the user types; empty when there are no more."""
    try:
        return console.input("query> ").strip()
    except EOFError:
        return ""


@app.command(epilog="Example: pdadapt label runs/mine --shard 3/16; all sixteen done, pdadapt labels merge runs/mine")
def label(
    run: Annotated[Path, typer.Argument(help="A run folder that `adapt --stop-before-labeling` has left.")],
    shard: Annotated[str, typer.Option(metavar="I/N", help="Which of N parts, 1/N to N/N.")] = "1/1",
    debug: DebugOption = False,
) -> None:
    """Label a part of a run's candidates, into a file of its own: for job arrays. Killed, the same goes on."""
    from pdadapt.shards import label_shard, parse_shard

    try:
        asked = parse_shard(shard)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--shard") from None
    file = label_shard(run, asked, new_progress())
    say(f"Shard {shard} is labeled: {file}. When all are: pdadapt labels merge {shlex.quote(str(run))}")


@app.command(epilog="Example: pdadapt status runs/mine")
def status(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    debug: DebugOption = False,
) -> None:
    """Say how a run stands, also while another process is at it: what it does, labels, losses, measures."""
    from pdadapt.status import show_status

    open_console().print(show_status(run))


@app.command(epilog="Example: pdadapt report runs/mine")
def report(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    debug: DebugOption = False,
) -> None:
    """Make the page of a run anew (RUN/report.html), of one that has not finished with what there is."""
    from pdadapt.report import write_report

    say(str(write_report(run)))


class ExportFormat(StrEnum):
    stanford = "stanford"
    pylate = "pylate"
    sentence_transformers = "sentence-transformers"
    onnx = "onnx"


@app.command(epilog="Example: pdadapt export runs/mine --format stanford --out colbert-mine")
def export(
    model: Annotated[str, typer.Argument(help="A run folder, a checkpoint folder, a hub id, or package:NAME/PATH.")],
    out: Annotated[Path, typer.Option(help="The new folder; with --push-to-hub, one that is there is uploaded.")],
    file_format: Annotated[
        ExportFormat, typer.Option("--format", help="stanford is what colbert-ai opens.")
    ] = ExportFormat.pylate,
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="NAME/REPO", help="Upload it, to a repository that only you can see.")
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Write a student in the form that another tool opens; of a run, with a model card."""
    from pdadapt.export import export_checkpoint, push
    from pdadapt.progress import quiet_libraries

    quiet_libraries()
    if not (push_to_hub and out.exists()):
        export_checkpoint(model, out, file_format.value)
        say(f"Wrote {out}")
    if push_to_hub:
        say(f"Uploaded to {push(out, push_to_hub)}")


@app.command(epilog="Example: pdadapt convert castorini/duot5-3b-msmarco duot5-3b-msmarco")
def convert(
    model: Annotated[str, typer.Argument(help="A hub id or a folder, whose weights are pickles (pytorch_model.bin).")],
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="The new folder, to be given as the model.")],
    debug: DebugOption = False,
) -> None:
    """Write a model's pickled weights as safetensors, which hold no code, beside its configuration and tokenizer."""
    from pdadapt.convert import convert as convert_model

    convert_model(model, out, new_progress())
    say(f"Wrote {out}")


class By(StrEnum):
    points = "points"
    pairs = "pairs"


class Aggregation(StrEnum):
    wins = "wins"
    bradley_terry = "bradley-terry"


@app.command(epilog="Example: pdadapt rerank --corpus demo --run runs/demo/iteration-0/test.run --by points --top 20")
def rerank(
    corpus: CorpusOption,
    run: Annotated[Path, typer.Option(help="A TREC run file, such as `pdadapt evaluate` writes.")],
    by: Annotated[By, typer.Option(help="Judge documents one by one, or all pairs of them.")] = By.points,
    aggregate: Annotated[
        Aggregation | None, typer.Option(help="Of pairs: mean win probability (default), or Bradley-Terry strengths.")
    ] = None,
    top: Annotated[int, typer.Option(min=2, help="Documents re-ordered per query; pairs grow with its square.")] = 20,
    queries: Annotated[Path | None, typer.Option(help="The run's queries, if they are not the corpus' own.")] = None,
    qrels: Annotated[
        Path | None, typer.Option(help="Judgments, TREC's or BEIR's columns, instead of the corpus' own.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="qrels/SPLIT.tsv of the BEIR folder, to measure with. Default: as the recipe has."),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Whose teacher and prompts. Default as of `adapt`.")] = None,
    teacher: Annotated[str | None, typer.Option(help="Sets teacher.model.")] = None,
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, help="The new run file. Default: RUN-BY.run beside RUN.")
    ] = None,
    settings: SetOption = None,
    strict: StrictOption = False,
    debug: DebugOption = False,
) -> None:
    """Re-order a run with a teacher, and measure it where there are judgments. Stopped, it goes on from its labels."""
    from pdadapt.answers import answers_of
    from pdadapt.corpus import judge, load_dataset
    from pdadapt.evaluate import compare, parse_measures
    from pdadapt.recipe import load_recipe
    from pdadapt.retrieve import without_itself
    from pdadapt.run import check_place, read_run, write_run

    console = open_console()
    target = out or run.with_name(f"{run.stem}-{by.value}.run")
    if target.resolve() == run.resolve():
        raise typer.BadParameter("is the run itself; give another file.", param_hint="--out")
    if aggregate and by is By.points:
        raise typer.BadParameter("is for --by pairs; points are an order already.", param_hint="--aggregate")
    check_place(target)
    overrides = overrides_of(settings, {"teacher.model": teacher, "evaluate.split": split})
    resolved = load_recipe(recipe or default_recipe(console), overrides)
    dataset = load_dataset(corpus, queries, resolved.evaluate.split, strict)
    dataset = judge(dataset, qrels) if qrels else dataset
    dataset.notices.say(new_progress().say)
    answers = answers_of(dataset)
    if dataset.qrels:
        parse_measures(resolved.evaluate.measures, answers)
    known = dataset.test_queries | dataset.queries
    ranking, own = without_itself(dataset.without_blank(read_run(run)), dataset.corpus, known)

    from pdadapt.rerank import rerank as rerank_run
    from pdadapt.tables import order_summary
    from pdadapt.teachers.choose import Teachers, check_teacher, model_of, teacher_key

    task: Task = "point" if by is By.points else "pair"
    key = teacher_key(resolved.teacher, task)
    store = Path(resolved.label_store) if resolved.label_store else run.with_suffix(".labels.sqlite")
    check_teacher(resolved.teacher, task, {known[query_id] for query_id in ranking if query_id in known}, store)
    progress = new_progress()
    if own:
        progress.say(f"{run} ranks the query itself for {own:,} of {len(ranking):,} queries: left out.")
    reranked, figures = rerank_run(
        ranking,
        dataset.corpus,
        known,
        task,
        (aggregate or Aggregation.wins).value,
        top,
        store,
        key,
        Teachers(resolved.teacher, [task], progress),
        progress,
        model_of(resolved.teacher, task).model,
    )
    write_run(target, reranked.items(), f"reranked-{by.value}")
    judged = {query_id: dataset.qrels[query_id] for query_id in ranking if query_id in dataset.qrels}
    if judged:
        from pdadapt.tables import comparison_table

        pair = [{query_id: found[query_id] for query_id in judged} for found in (ranking, reranked)]
        measures = compare(pair, judged, resolved.evaluate, resolved.seed, answers=answers)
        counts = {"corpus": dataset.name, "documents": len(dataset.corpus), "test_queries": len(judged)}
        console.print(comparison_table({**counts, "measures": measures}, ["run", "reranked"]))
    else:
        split = resolved.evaluate.split
        missing = f"No judgments of these queries (qrels/{split}.tsv) came with the corpus: nothing was measured."
        console.print(missing)
    if figures["unanswered"]:
        console.print(f"The teacher gave no answer to {figures['unanswered']:,} {by.value}.")
    if said := order_summary(figures).removeprefix("; "):
        console.print(f"Of the pairs {said}.")
    console.print(f"Wrote {target}; labels are kept in {store}")


class LabelFormat(StrEnum):
    jsonl = "jsonl"
    parquet = "parquet"


@labels_app.command("export")
def labels_export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    file_format: Annotated[LabelFormat, typer.Option("--format")] = LabelFormat.jsonl,
    out: Annotated[Path | None, typer.Option(help="Default: RUN/labels.jsonl or RUN/labels.parquet.")] = None,
    debug: DebugOption = False,
) -> None:
    """Write a run's labels with their texts, for other trainers."""
    from pdadapt.label_files import export_labels
    from pdadapt.run import label_store

    target = out or run / f"labels.{file_format.value}"
    store = label_store(run)
    count = export_labels(store, target, file_format.value)
    say(f"Wrote {count:,} labels, all that {store} holds, to {target}")


@labels_app.command("import")
def labels_import(
    file: Annotated[Path, typer.Argument(help="JSONL or Parquet rows: query, document[, document_b], score.")],
    store: Annotated[Path, typer.Option(help="The label store to fill (--set label_store=STORE uses it).")],
    name: Annotated[
        str | None,
        typer.Option(help="Use them with --teacher imported:NAME. Default: they stay those of the teacher they name."),
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Take labels that were made elsewhere into a label store: all of the file, or none of it."""
    from pdadapt.label_files import import_labels

    count = import_labels(file, store, name)
    teacher = f"--teacher {shlex.quote(f'imported:{name}')}" if name else "the teacher that gave them"
    quoted = shlex.quote(f"label_store={store}")
    say(f"Took {count:,} labels into {store}; use them with {teacher} --set {quoted}")


@labels_app.command("merge")
def labels_merge(
    run: Annotated[Path, typer.Argument(help="The run folder whose shards `pdadapt label` has labeled.")],
    files: Annotated[
        list[Path] | None, typer.Argument(help="Shards from elsewhere. Default: all that the run folder holds.")
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Take the labels of shards into the run's label store: in any order, as often as you like."""
    from pdadapt.shards import merge_shards

    for file in files or []:
        check_file(file)
    from pdadapt.shard_states import shard_summary

    count, store = merge_shards(run, files or [])
    said = " ".join(filter(None, [f"{store} took in {count:,} labels.", shard_summary(run)]))
    say(f"{said} The same `pdadapt adapt` goes on with them, and asks itself what is missing.")


@labels_app.command("show")
def labels_show(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    query: Annotated[str, typer.Option(help="The id of a query.")],
    debug: DebugOption = False,
) -> None:
    """Show what the teachers said about one query: documents, pairs, and where they contradict each other."""
    from pdadapt.label_files import label_tables

    open_console().print(label_tables(run, query))


@app.command(epilog="Example: pdadapt datasets")
def datasets(debug: DebugOption = False) -> None:
    """List the corpora that --corpus takes by name, with how many queries there are to adapt and to test on."""
    from pdadapt.catalog import PAPER_QUERIES, listings
    from pdadapt.recipe import recipe_names
    from pdadapt.terminal import WholeTable

    table = WholeTable("name", "documents", "to adapt on", "to test on", "recipe", box=None, padding=(0, 2, 0, 0))
    recipes = set(recipe_names())
    for found in listings():
        documents = "licensed" if found.licensed else f"{found.documents:,}"
        tests = ", ".join(f"{split} {number:,}" if number else split for split, number in found.tests.items())
        recipe = found.name if found.name in recipes else ""
        table.add_row(found.name, documents, f"{found.queries:,}" if found.queries else "", tests, recipe)
    open_console().print(table)
    for name, number in PAPER_QUERIES.items():
        say(f"{name}: published figures are on {number:,} test queries, of which ir_datasets has fewer.")
    say(
        "They are downloaded when first used, but for licensed ones: --corpus NAME says how to get those. Other ids of "
        "ir_datasets do too (https://ir-datasets.com), as well as your own files."
    )


@app.command(epilog="Example: pdadapt setup-plaid, then --set retrieve.engine=plaid")
def setup_plaid(debug: DebugOption = False) -> None:
    """Build the environment in which fast-plaid runs, with the torch that it wants (several GB)."""
    _set_up("plaid")


@app.command(epilog="Example: pdadapt setup-colbert, then --set retrieve.engine=colbert")
def setup_colbert(debug: DebugOption = False) -> None:
    """Build the environment in which colbert-ai, the paper's own engine, runs."""
    _set_up("colbert")


def _set_up(engine: str) -> None:
    from pdadapt.engines.environment import set_up

    say(f"Ready in {set_up(engine)}: --set retrieve.engine={engine}")


@recipes_app.callback()
def recipes(context: typer.Context) -> None:
    """List the shipped recipes."""
    from pdadapt.recipe import recipe_names, recipe_path

    if context.invoked_subcommand is None:
        for name in recipe_names():
            first = recipe_path(name).read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
            say(f"{name:24} {first}")


@recipes_app.command("settings")
def recipes_settings(debug: DebugOption = False) -> None:
    """List every setting: its key, its default and what it means."""
    from pdadapt.recipe import all_settings
    from pdadapt.terminal import Name, WholeTable

    table = WholeTable(Name("setting"), "default", Name("meaning"))
    for key, default, meaning in all_settings():
        value = "null" if default is None else list(default) if isinstance(default, tuple) else default
        table.add_row(key, str(value), meaning)
    open_console().print(table)


@recipes_app.command("show")
def recipes_show(name: str, debug: DebugOption = False) -> None:
    """Print a recipe."""
    from pdadapt.recipe import read_utf8, recipe_path

    typer.echo(printable(read_utf8(recipe_path(name))), nl=False)


@recipes_app.command("copy")
def recipes_copy(name: str, file: Path, debug: DebugOption = False) -> None:
    """Copy a recipe to a file of yours."""
    from pdadapt.errors import RecipeError
    from pdadapt.recipe import read_utf8, recipe_path

    text = read_utf8(recipe_path(name))
    try:
        with open(file, "x", encoding="utf-8") as target:
            target.write(text)
    except FileExistsError:
        raise RecipeError(f"{file} exists already; give another name.") from None
    except OSError as error:
        raise RecipeError(f"{file} cannot be written ({error.strerror}); give another name.") from None
    say(f"Wrote {file}; use it with --recipe {shlex.quote(str(file))}")


def open_console() -> Console:
    from pdadapt.terminal import console

    return console()


def say(text: str) -> None:
    typer.echo(printable(text))


def new_progress() -> Progress:
    from pdadapt.distributed import rank
    from pdadapt.progress import Progress, quiet_libraries
    from pdadapt.terminal import console

    quiet_libraries()
    return Progress(console(quiet=True) if rank() > 0 else None)


def default_recipe(console: Console) -> str:
    import torch

    if torch.cuda.is_available():
        return "default"
    console.print("No GPU: using recipe `small` (embedded models). Recipe `default` needs one GPU and the hub.")
    return "small"


def run() -> None:
    """Do what the command line says. Errors of ours are one line and exit code 1; --debug shows the traceback."""
    try:
        app()
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        typer.secho(f"Error: {printable(explain(error))}", fg="red", err=True)
        sys.exit(1)
