"""`pdadapt evaluate`, `search`, `rerank`."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pdadapt.cli.app import app
from pdadapt.cli.options import (
    CORPUS,
    CorpusOption,
    DebugOption,
    PassagesOption,
    SetOption,
    StrictOption,
    default_recipe,
    new_progress,
    open_console,
    overrides_of,
)
from pdadapt.data.lines import check_file
from pdadapt.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from pdadapt.teachers.base import Task

RUN_ENDINGS = (".run", ".trec", ".res")  # of files that no model is called after


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
    from pdadapt.data.corpus import Dataset
    from pdadapt.data.judgments import load_qrels_only, with_qrels
    from pdadapt.data.load import load_dataset
    from pdadapt.data.passages import split_documents
    from pdadapt.evaluation import evaluate
    from pdadapt.evaluation.results import Metrics
    from pdadapt.retrieval.engines.load import BASELINE, check_model
    from pdadapt.runs.folder import last_checkpoint
    from pdadapt.runtime.files import check_parent_folder, write_atomic
    from pdadapt.settings.recipes import apply_overrides, parse_recipe
    from pdadapt.settings.schema import EvaluateSettings

    if json_file:
        check_parent_folder(json_file)
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

    def measure(dataset: Dataset, chosen: EvaluateSettings, folder: Path) -> Metrics:
        dataset = split_documents(dataset, passages) if passages else dataset
        retrieval = resolved.retrieve
        return evaluate.evaluate(
            names, dataset, chosen, student, folder, resolved.seed, retrieval, progress, pairs, index
        )

    if suite:
        from pdadapt.evaluation.suites import rich_table, run_suite, write_tables
        from pdadapt.retrieval.engines.load import identity

        def of_suite(dataset: Dataset, wanted: Sequence[str], folder: Path) -> Metrics:
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

    from pdadapt.reporting.tables import changed_queries, comparison_table, short_names

    if corpus is None:
        assert qrels is not None  # else refused above
        dataset = load_qrels_only(qrels, strict)
    else:
        dataset = load_dataset(corpus, queries, split, strict)
        dataset = with_qrels(dataset, qrels) if qrels else dataset
    dataset.notices.say(progress.say)
    folder = out or Path("runs") / f"evaluate-{dataset.name.replace('/', '-')}"
    metrics = measure(dataset, resolved.evaluate, folder)
    few = ["against", "model" if model else "run"][-len(asked) :]
    systems = short_names(shown) if len(asked) > 2 else shown[: -len(asked)] + few
    if json_file:
        write_atomic(json_file, json.dumps(metrics.to_json(), indent=2) + "\n")
    console.print(comparison_table(metrics, systems))
    if metrics.most_changed:
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
    from pdadapt.data.load import load_dataset
    from pdadapt.data.passages import split_documents
    from pdadapt.settings.recipes import apply_overrides, parse_recipe

    overrides = overrides_of(settings, {})
    tree = apply_overrides({}, overrides)
    resolved = parse_recipe(tree, "--set", overrides)
    dataset = load_dataset(corpus, strict=strict)
    dataset.notices.say(new_progress().say)
    if passages:
        dataset = split_documents(dataset, passages)

    from pdadapt.retrieval.engines.load import check_model
    from pdadapt.retrieval.explain import Searcher, show, side_by_side
    from pdadapt.runs.folder import last_checkpoint

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
    from pdadapt.data.answers import answer_matcher
    from pdadapt.data.judgments import with_qrels
    from pdadapt.data.load import load_dataset
    from pdadapt.data.run_file import read_run, write_run
    from pdadapt.evaluation.measures import parse_measures
    from pdadapt.evaluation.significance import compare
    from pdadapt.retrieval.search import without_itself
    from pdadapt.runtime.files import check_parent_folder
    from pdadapt.settings.recipes import load_recipe

    console = open_console()
    target = out or run.with_name(f"{run.stem}-{by.value}.run")
    if target.resolve() == run.resolve():
        raise typer.BadParameter("is the run itself; give another file.", param_hint="--out")
    if aggregate and by is By.points:
        raise typer.BadParameter("is for --by pairs; points are an order already.", param_hint="--aggregate")
    check_parent_folder(target)
    overrides = overrides_of(settings, {"teacher.model": teacher, "evaluate.split": split})
    resolved = load_recipe(recipe or default_recipe(console), overrides)
    dataset = load_dataset(corpus, queries, resolved.evaluate.split, strict)
    dataset = with_qrels(dataset, qrels) if qrels else dataset
    dataset.notices.say(new_progress().say)
    answers = answer_matcher(dataset)
    if dataset.qrels:
        parse_measures(resolved.evaluate.measures, answers)
    known = dataset.test_queries | dataset.queries
    ranking, own = without_itself(dataset.without_blank(read_run(run)), dataset.corpus, known)

    from pdadapt.labeling.check import check_teacher
    from pdadapt.labeling.rerank import rerank as rerank_run
    from pdadapt.reporting.tables import order_summary
    from pdadapt.teachers.kind import model_of
    from pdadapt.teachers.label_key import teacher_key
    from pdadapt.teachers.load import Teachers

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
        from pdadapt.evaluation.results import Metrics
        from pdadapt.reporting.tables import comparison_table

        pair = [{query_id: found[query_id] for query_id in judged} for found in (ranking, reranked)]
        measures = compare(pair, judged, resolved.evaluate, resolved.seed, answers=answers)
        systems = ("run", "reranked")
        metrics = Metrics(dataset.name, len(dataset.corpus), len(judged), systems, measures, most_changed=())
        console.print(comparison_table(metrics, systems))
    else:
        split = resolved.evaluate.split
        missing = f"No judgments of these queries (qrels/{split}.tsv) came with the corpus: nothing was measured."
        console.print(missing)
    if figures["unanswered"]:
        console.print(f"The teacher gave no answer to {figures['unanswered']:,} {by.value}.")
    if said := order_summary(figures.get("flip_rate"), figures.get("position_bias")):
        console.print(f"Of the pairs {said}.")
    console.print(f"Wrote {target}; labels are kept in {store}")
