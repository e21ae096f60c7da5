"""Suites: systems on many test sets, in one table beside the figures of the paper."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from rich.table import Column, Table

from pdadapt.data.catalog import CQADUPSTACK_FORUMS, LOTTE_DOMAINS, PAPER_QUERY_COUNTS, load_test_queries, token_lengths
from pdadapt.data.corpus import Dataset, Queries, fingerprint
from pdadapt.data.load import load_dataset
from pdadapt.data.passages import split_documents
from pdadapt.data.trec import Qrels
from pdadapt.errors import DataError, RecipeError, RunError
from pdadapt.evaluation.evaluate import evaluate
from pdadapt.evaluation.results import Metrics
from pdadapt.evaluation.systems import Systems
from pdadapt.retrieval.engines.load import check_model, identity
from pdadapt.runs.artefacts import read_json
from pdadapt.runtime.files import write_atomic
from pdadapt.runtime.printing import markdown, printable
from pdadapt.runtime.progress import Progress
from pdadapt.runtime.terminal import WholeTable, plain
from pdadapt.settings.schema import Recipe


class SuiteEntry(NamedTuple):
    """A row of the table: a measure on a corpus, or its mean over several corpora."""

    name: str
    measure: str
    corpora: tuple[str, ...]
    group: str = ""  # rows of one group are averaged; an empty group is in no average


class Row(NamedTuple):
    name: str
    measure: str
    values: list[float | None]  # in per cent: each system, then ColBERTv2 and PairDistill in the paper
    group: str = ""


def _tests(measure: str, *names: str, group: str = "") -> tuple[SuiteEntry, ...]:
    return tuple(SuiteEntry(name, measure, (name,), group) for name in names)


BEIR_11 = _tests(
    "nDCG@10",
    *("trec-covid", "nfcorpus", "fiqa", "arguana", "touche2020", "scidocs", "scifact", "hotpotqa", "dbpedia-entity"),
    *("fever", "climate-fever"),
    group="BEIR",
)
BEIR_13 = (*BEIR_11, *_tests("nDCG@10", "nq", "quora", group="BEIR"))
BEIR_18 = (
    *BEIR_13,
    SuiteEntry("cqadupstack", "nDCG@10", tuple(f"cqadupstack/{forum}" for forum in CQADUPSTACK_FORUMS), "BEIR"),
    *_tests("nDCG@10", "robust04", "signal1m", "trec-news", "bioasq", group="BEIR"),
)
LOTTE = tuple(
    SuiteEntry(name, "Success@5", (name,), "" if domain == "pooled" else f"LoTTE {kind}")
    for kind in ("search", "forum")
    for domain in LOTTE_DOMAINS
    for name in (f"lotte/{domain}/{kind}",)
)
MSMARCO = (
    *(SuiteEntry("msmarco", measure, ("msmarco",)) for measure in ("RR@10", "R@1000")),
    *_tests("nDCG@10", "dl19", "dl20"),
)
OPENQA = _tests("Answer@5", "nq-open", "triviaqa", "squad-open", group="open-domain QA")
SUITES = {
    "beir-11": BEIR_11,  # without the sets that instruction-tuned LLMs were trained on (Dai et al. 2023, Promptagator)
    "beir-13": BEIR_13,  # all sets that can be downloaded, except CQADupStack
    "beir-18": BEIR_18,
    "lotte": LOTTE,
    "msmarco": MSMARCO,
    "openqa": OPENQA,
    "paper": (*MSMARCO, *BEIR_18, *LOTTE, *OPENQA),
}
PUBLISHED = {  # PairDistill's tables 1 and 2: ColBERTv2, PairDistill
    ("msmarco", "RR@10"): (39.7, 40.7),
    ("msmarco", "R@1000"): (98.4, 98.5),
    ("dl19", "nDCG@10"): (74.6, 75.2),
    ("dl20", "nDCG@10"): (75.2, 75.1),
    ("trec-covid", "nDCG@10"): (73.2, 74.2),
    ("nfcorpus", "nDCG@10"): (33.9, 34.5),
    ("fiqa", "nDCG@10"): (35.6, 37.1),
    ("arguana", "nDCG@10"): (45.8, 46.8),
    ("touche2020", "nDCG@10"): (26.5, 26.4),
    ("quora", "nDCG@10"): (85.1, 85.3),
    ("scidocs", "nDCG@10"): (15.5, 16.2),
    ("scifact", "nDCG@10"): (69.1, 71.5),
    ("nq", "nDCG@10"): (56.3, 58.3),
    ("hotpotqa", "nDCG@10"): (67.4, 69.3),
    ("dbpedia-entity", "nDCG@10"): (44.6, 46.0),
    ("fever", "nDCG@10"): (79.0, 80.4),
    ("climate-fever", "nDCG@10"): (18.2, 19.4),
    ("cqadupstack", "nDCG@10"): (36.7, 38.0),
    ("robust04", "nDCG@10"): (46.8, 48.7),
    ("signal1m", "nDCG@10"): (30.7, 31.2),
    ("trec-news", "nDCG@10"): (42.0, 41.9),
    ("bioasq", "nDCG@10"): (52.2, 54.8),
    ("lotte/pooled/search", "Success@5"): (71.4, 73.9),
    ("lotte/pooled/forum", "Success@5"): (63.2, 65.5),
    ("nq-open", "Answer@5"): (68.9, 71.8),
    ("triviaqa", "Answer@5"): (76.7, 77.4),
    ("squad-open", "Answer@5"): (65.0, 66.9),
}
PAPERS = ("ColBERTv2 (paper)", "PairDistill (paper)")
AVERAGED = "average"
LATEX = {letter: f"\\{letter}" for letter in "_&%#${}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def run_suite(
    suite: str,
    data: Path | None,
    out: Path,
    settings: Mapping[str, Any],
    measure: Callable[[Dataset, Sequence[str], Path], Metrics],
    say: Callable[[str], None],
) -> tuple[list[Row], list[str]]:
    """Measure on every available corpus of the suite. Results in `out` for the same data and settings are reused.

    data: a folder of folders in BEIR layout, which are used in place of downloads. settings: everything else that the
    results depend on, as JSON. measure: called with a corpus, the measures and a folder of its own.

    Returns the rows of the table and notes: which corpora were skipped and why, and which results are not on the
    queries of the paper.
    """
    tests = SUITES[suite]
    found: dict[str, Metrics] = {}
    skipped: dict[str, str] = {}
    for name in dict.fromkeys(corpus for test in tests for corpus in test.corpora):
        wanted = list(dict.fromkeys(test.measure for test in tests if name in test.corpora))
        folder = out / name.replace("/", "-")
        asked_file, metrics_file = folder / "asked.json", folder / "metrics.json"
        own = data / name if data and (data / name).exists() else Path(name)
        dataset = None
        try:
            if own.exists():
                dataset = replace(load_dataset(str(own)), lengths=token_lengths(name))
                hashes = {"corpus": dataset.corpus.fingerprint, **_hashes(dataset.test_queries, dataset.qrels)}
                hashes["answers"] = fingerprint((key, json.dumps(right)) for key, right in dataset.answers.items())
            else:  # downloads are checked by their digests
                hashes = _hashes(*(load_test_queries(name) or ({}, {})))
            asked = json.dumps({"measures": wanted, "hashes": hashes, **settings}, sort_keys=True)
            if asked_file.exists() and metrics_file.exists() and asked_file.read_text(encoding="utf-8") == asked:
                with contextlib.suppress(RunError):  # Results of another version are measured again.
                    found[name] = read_json(metrics_file, Metrics.from_json)
                    say(f"{name}: already measured on the same data.")
                    continue
            dataset = dataset or load_dataset(name)
            say(dataset.summary)
            dataset.notices.say(say)
            asked_file.unlink(missing_ok=True)
            found[name] = measure(dataset, wanted, folder)
            write_atomic(asked_file, asked)
        except (DataError, RecipeError) as error:
            skipped[name] = str(error)
    rows = []
    for test in tests:
        if all(name in found for name in test.corpora):
            means = [found[name].measures[test.measure].means for name in test.corpora]
            values = [100 * fmean(system) for system in zip(*means, strict=True)]
            published = PUBLISHED.get((test.name, test.measure), (None, None))
            rows.append(Row(test.name, test.measure, [*values, *published], test.group))
    notes = [
        f"{name}: these are {counted:,} test queries. The paper's figures are on {all_of_them:,}."
        for name, all_of_them in PAPER_QUERY_COUNTS.items()
        if name in found and (counted := found[name].test_queries) != all_of_them
    ]
    return rows + averages(rows), [f"Skipped {name}: {reason}" for name, reason in skipped.items()] + notes


def _hashes(queries: Queries, qrels: Qrels) -> dict[str, str]:
    judged = ((query_id, json.dumps(grades, sort_keys=True)) for query_id, grades in sorted(qrels.items()))
    return {"queries": fingerprint(queries.items()), "qrels": fingerprint(judged)}


def averages(rows: Sequence[Row]) -> list[Row]:
    """The mean of each group of several rows. The paper has a mean only if it has every row of the group."""
    found = []
    for group in dict.fromkeys(row.group for row in rows if row.group):
        of_group = [row for row in rows if row.group == group]
        if len(of_group) > 1:
            values = zip(*(row.values for row in of_group), strict=True)
            columns = [None if None in column else fmean(column) for column in values]
            found.append(Row(f"{AVERAGED} of {len(of_group)}, {group}", of_group[0].measure, columns))
    return found


def cells(row: Row) -> list[str]:
    return ["" if value is None else f"{value:.1f}" for value in row.values]


def rich_table(rows: Sequence[Row], systems: Sequence[str]) -> Table:
    columns = (Column(plain(name), justify="right") for name in (*systems, *PAPERS))
    table = WholeTable("test set", "measure", *columns)
    for row in rows:
        table.add_row(row.name, row.measure, *cells(row), style="bold" if row.name.startswith(AVERAGED) else "")
    return table


def write_tables(rows: Sequence[Row], systems: Sequence[str], folder: Path, notes: Sequence[str] = ()) -> None:
    """Write the table as Markdown, CSV and LaTeX (booktabs): `table.md`, `table.csv`, `table.tex`.

    notes: sentences under the table. CSV has no place for them.
    """
    head = ["test set", "measure", *map(printable, systems), *PAPERS]
    lines = [[row.name, row.measure, *cells(row)] for row in rows]
    align = "|".join(["---", "---"] + ["---:"] * (len(head) - 2))
    first, *others = ["| " + " | ".join(map(markdown, line)) + " |" for line in (head, *lines)]
    paragraphs = "".join(f"\n{markdown(note)}\n" for note in notes)
    write_atomic(folder / "table.md", "\n".join([first, f"|{align}|", *others]) + "\n" + paragraphs)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *lines])
    write_atomic(folder / "table.csv", text.getvalue())
    latex = [" & ".join(map(_latex, line)) + r" \\" for line in (head, *lines)]
    body = [rf"\begin{{tabular}}{{ll{'r' * (len(head) - 2)}}}", r"\toprule", latex[0], r"\midrule", *latex[1:]]
    comments = [f"% {' '.join(note.split())}" for note in notes]
    write_atomic(folder / "table.tex", "\n".join([*body, r"\bottomrule", r"\end{tabular}", *comments]) + "\n")


def _latex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)


def evaluate_suite(
    suite: str,
    data: Path | None,
    out: Path,
    systems: Systems,
    recipe: Recipe,
    student: dict[str, Any],
    passages: str | None,
    indexes: Path | None,
    progress: Progress,
) -> tuple[list[Row], list[str]]:
    """Measure systems on every corpus of a suite, and write the tables to `out`. Returns the rows, and the notes.

    data: as for run_suite. recipe: its retrieve, evaluate and seed count. student, indexes: as for evaluate.
    """

    def measure(dataset: Dataset, measures: Sequence[str], folder: Path) -> Metrics:
        settings = recipe.evaluate.model_copy(update={"measures": tuple(measures)})
        split = split_documents(dataset, passages) if passages else dataset
        options = (student, folder, recipe.seed, recipe.retrieve, progress, systems.compared_pairs, indexes)
        return evaluate(systems.names, split, settings, *options)

    settings = {
        "systems": list(map(identity, systems.names)),
        "names": systems.names,
        "student": student,
        "passages": passages,
        **recipe.model_dump(mode="json", include={"seed", "retrieve"}),
        "evaluate": recipe.evaluate.model_dump(mode="json", exclude={"measures"}),
    }
    for name in systems.names:
        check_model(name, student, recipe.retrieve)
    rows, notes = run_suite(suite, data, out, settings, measure, progress.say)
    if most := recipe.evaluate.max_queries:
        notes.append(
            f"At most {most:,} test queries of each set were used (evaluate.max_queries). The paper's figures are on "
            "all of them."
        )
    write_tables(rows, systems.given, out, notes)
    return rows, notes
