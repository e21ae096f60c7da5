"""`pdadapt evaluate`, `search`, `rerank`."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pdadapt.cli.app import app
from pdadapt.cli.dataset import open_dataset
from pdadapt.cli.options import (
    CORPUS,
    CorpusOption,
    DebugOption,
    PassagesOption,
    QrelsOption,
    SetOption,
    StrictOption,
    changed_settings,
    default_recipe,
    new_progress,
    open_console,
    settings_without_recipe,
)
from pdadapt.data.lines import check_file
from pdadapt.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from pdadapt.teachers.base import Task

RUN_ENDINGS = (".run", ".trec", ".res")  # a name that ends so is taken for a run file, unless there is such a folder


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
        Suite | None,
        typer.Option(help="Instead of a corpus: many test sets in one table, with the figures of the paper."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="With --suite: a folder of corpora in BEIR layout, to use instead of downloads.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="What to measure: a run folder, bm25, or a model that sentence-transformers loads (a folder, a hub "
            "id or package:NAME/PATH)."
        ),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Instead of a model: a TREC run file of any system.")] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL_OR_RUN", help="A baseline to compare with. Repeatable."),
    ] = None,
    qrels: QrelsOption = None,
    queries: Annotated[
        Path | None,
        typer.Option(help="The queries of --qrels, if the corpus does not have them. Formats: as for `adapt`."),
    ] = None,
    measures: Annotated[
        str | None, typer.Option(help='For example "AP nDCG@10 R@1000" (sets evaluate.measures).')
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Which judgments to use: qrels/SPLIT.tsv of a BEIR folder (sets evaluate.split)."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder for run files and metrics. Default: runs/evaluate-CORPUS or runs/evaluate-SUITE."
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Also write the metrics to this file.")
    ] = None,
    index: Annotated[Path | None, typer.Option(help="Keep indexes in this folder, and use those in it.")] = None,
    bm25: Annotated[bool, typer.Option(help="Also measure BM25, if there is a corpus.")] = True,
    passages: PassagesOption = None,
    settings: SetOption = None,
    strict: StrictOption = False,
    debug: DebugOption = False,
) -> None:
    """Measure a model or a run on relevance judgments, as trec_eval does, and compare it with baselines.

    Runs can be measured without a corpus: give --run and --qrels, and only run files as --against.
    """
    check_evaluate_options(corpus, suite, model, run, against or [], qrels, queries, strict)
    from pdadapt.evaluation.evaluate import evaluate as run_evaluation
    from pdadapt.evaluation.systems import choose_systems
    from pdadapt.runtime.files import check_parent_folder, write_atomic

    if json_file:
        check_parent_folder(json_file)
    named = measures.replace(",", " ").split() if measures else None
    recipe, student = settings_without_recipe(settings, {"evaluate.measures": named, "evaluate.split": split})
    if suite and recipe.evaluate.split != "test":
        raise typer.BadParameter("a suite uses the test sets of the paper. Leave it out.", param_hint="--split")
    systems = choose_systems(str(model or run), against or [], bm25 and bool(corpus or suite))
    progress, console = new_progress(), open_console()
    if suite:
        from pdadapt.evaluation.suites import evaluate_suite, rich_table

        folder = out or Path("runs") / f"evaluate-{suite.value}"
        rows, notes = evaluate_suite(suite.value, data, folder, systems, recipe, student, passages, index, progress)
        console.print(rich_table(rows, systems.given))
        for note in notes:
            console.print(note)
        console.print(f"table.md, table.csv, table.tex and a folder for each test set are in {folder}")
        return

    from pdadapt.reporting.tables import changed_queries, comparison_table

    dataset = open_dataset(corpus, queries, recipe.evaluate.split, strict, passages, qrels)
    folder = out or Path("runs") / f"evaluate-{dataset.name.replace('/', '-')}"
    options = (student, folder, recipe.seed, recipe.retrieve, progress, systems.compared_pairs, index)
    metrics = run_evaluation(systems.names, dataset, recipe.evaluate, *options)
    if json_file:
        write_atomic(json_file, json.dumps(metrics.to_json(), indent=2) + "\n")
    columns = columns_of(systems.given, len(against or []), "model" if model else "run")
    console.print(comparison_table(metrics, columns))
    if metrics.most_changed:
        console.print(changed_queries(metrics, columns))
    console.print(f"Run files, the values of each query and metrics.json are in {folder}")


def check_evaluate_options(
    corpus: str | None,
    suite: Suite | None,
    model: str | None,
    run: Path | None,
    against: Sequence[str],
    qrels: Path | None,
    queries: Path | None,
    strict: bool,
) -> None:
    """Raises BadParameter when options do not go together, DataError when a run file is missing."""
    if bool(model) == bool(run):
        raise typer.BadParameter("give either a model or a run.", param_hint="--model / --run")
    if suite and (corpus or run or qrels or queries):
        raise typer.BadParameter("takes a --model, and no --corpus, --run, --qrels or --queries.", param_hint="--suite")
    if suite and strict:
        raise typer.BadParameter("works with a corpus, not with a suite. Leave it out.", param_hint="--strict")
    for name in [*([str(run)] if run else []), *against, *([model] if model else [])]:
        if name == str(run) or (name.endswith(RUN_ENDINGS) and not Path(name).exists()):
            check_file(Path(name))
    if corpus or suite:
        return
    if run is None or qrels is None:
        raise typer.BadParameter("give one. Only a --run with --qrels needs none.", param_hint="--corpus")
    for name in against:
        if not Path(name).is_file():
            raise DataError(f"{name} is not a run file, and a model needs a corpus. Give one with --corpus.")


def columns_of(systems: Sequence[str], baselines: int, kind: str) -> list[str]:
    """What the systems are called in a table: the last one, its baselines before it, and perhaps BM25 before these."""
    from pdadapt.reporting.tables import short_names

    if baselines > 1:
        return short_names(systems)
    roles = ["against", kind] if baselines else [kind]
    return [*systems[: len(systems) - len(roles)], *roles]


@app.command(epilog='Example: pdadapt search runs/demo --corpus demo "squeaking brakes" --compare runs/demo/student')
def search(
    model: Annotated[
        str, typer.Argument(help="A run folder, a checkpoint folder, a hub id, package:NAME/PATH, or bm25.")
    ],
    corpus: CorpusOption,
    query: Annotated[str | None, typer.Argument(help="What to search for.")] = None,
    compare: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Show the ranking of this model beside it.")
    ] = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", help="Type queries one after the other. An empty one ends it.")
    ] = False,
    k: Annotated[int, typer.Option("--k", min=1, help="How many documents or passages to show.")] = 5,
    index: Annotated[Path, typer.Option(help="The folder where indexes are kept for the next search.")] = Path(
        "runs/search"
    ),
    passages: PassagesOption = None,
    settings: SetOption = None,
    strict: StrictOption = False,
    debug: DebugOption = False,
) -> None:
    """Search a corpus by hand: the best documents, with the words that MaxSim matched."""
    if (query is None) != interactive or (query is not None and not query.strip()):
        raise typer.BadParameter("give a query, or --interactive.", param_hint="QUERY")
    if re.search("[\ud800-\udfff]", query or ""):
        raise typer.BadParameter("it is not text in the encoding of this terminal. Use UTF-8.", param_hint="QUERY")
    recipe, student = settings_without_recipe(settings, {})
    dataset = open_dataset(corpus, strict=strict, passages=passages)

    from pdadapt.retrieval.engines.load import check_model
    from pdadapt.retrieval.explain import Searcher, show_hits, side_by_side
    from pdadapt.runs.folder import last_checkpoint

    progress, console = new_progress(), open_console()
    models = (compare, model) if compare else (model,)
    for name in models:
        check_model(last_checkpoint(name), student, recipe.retrieve)
    searchers = [Searcher(name, dataset, index, student, recipe.retrieve, progress) for name in models]
    for text in [query] if query else typed_queries(console):
        base, found = searchers[0](text, k), searchers[-1](text, k)
        console.print(side_by_side(base, found, (compare, model)) if compare else show_hits(found))


def typed_queries(console: Console) -> Iterator[str]:
    """What the user types, line by line, until an empty line or the end of the input."""
    try:
        while text := console.input("query> ").strip():
            yield text
    except EOFError:
        return


class By(StrEnum):
    points = "points"
    pairs = "pairs"


@app.command(epilog="Example: pdadapt rerank --corpus demo --run runs/demo/iteration-0/test.run --by points --top 20")
def rerank(
    corpus: CorpusOption,
    run: Annotated[Path, typer.Option(help="A TREC run file, such as `pdadapt evaluate` writes.")],
    by: Annotated[By, typer.Option(help="Judge single documents (points), or all pairs of them (pairs).")] = By.points,
    top: Annotated[
        int, typer.Option(min=2, help="How many documents per query to rerank. N documents have N x (N - 1) pairs.")
    ] = 20,
    queries: Annotated[
        Path | None, typer.Option(help="The queries of the run, if they are not those of the corpus.")
    ] = None,
    qrels: QrelsOption = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Which judgments to measure with: qrels/SPLIT.tsv of a BEIR folder (sets evaluate.split). Default: "
            "that of the recipe."
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="The recipe with the teacher and its prompts. Default: as for `adapt`.")
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="The model that judges documents (sets teacher.model).")] = None,
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, help="The new run file. Default: RUN-BY.run beside RUN.")
    ] = None,
    settings: SetOption = None,
    strict: StrictOption = False,
    debug: DebugOption = False,
) -> None:
    """Rerank a run with a teacher, and measure the result if there are judgments. If it stops, repeat the command."""
    from pdadapt.runtime.files import check_parent_folder
    from pdadapt.settings.recipes import load_recipe

    console = open_console()
    target = out or run.with_name(f"{run.stem}-{by.value}.run")
    if target.resolve() == run.resolve():
        raise typer.BadParameter("this is the run itself. Give another file.", param_hint="--out")
    check_parent_folder(target)
    changes = changed_settings(settings, {"teacher.model": teacher, "evaluate.split": split})
    resolved = load_recipe(recipe or default_recipe(console), changes)
    dataset = open_dataset(corpus, queries, resolved.evaluate.split, strict, qrels=qrels)

    from pdadapt.evaluation.reranking import rerank_file
    from pdadapt.reporting.tables import comparison_table, order_summary

    task: Task = "point" if by is By.points else "pair"
    result = rerank_file(run, target, dataset, resolved, task, top, new_progress())
    if result.metrics:
        console.print(comparison_table(result.metrics, result.metrics.models))
    else:
        qrels_file = f"qrels/{resolved.evaluate.split}.tsv"
        console.print(f"The corpus has no judgments of these queries ({qrels_file}), so no measures were computed.")
    if result.figures["unanswered"]:
        console.print(f"The teacher gave no answer to {result.figures['unanswered']:,} {by.value}.")
    if summary := order_summary(result.figures.get("flip_rate"), result.figures.get("position_bias")):
        console.print(f"Pairs: {summary}.")
    console.print(f"Wrote {target}. The labels are in {result.label_store}")
