"""How few pairs will do? Every strategy, at 5 to 100 % of the calls that 50 window pairs a query take.

    python benchmarks/pairs.py labels --sets squad scifact --data FOLDER --point-teacher models/all-mpnet-base-v2 \
        --pair-teacher MODEL --work FOLDER
    python benchmarks/pairs.py sources ...
    python benchmarks/pairs.py students ... --configs window:100 window:10 active:10

labels: the teachers judge the best --listed of each query, and all pairs of them, once. What a strategy would have
been told is then read from the label store: the lists that its strengths order are judged by the train qrels, which
neither teacher nor student ever reads here. sources: so are the lists that points order, of the student's candidates,
of BM25's and of both fused. students: the loop is run to its end for each configuration, with those labels, and the
student is judged on the test queries. A configuration is STRATEGY:SHARE, and what it may end in: :strengths or :both
(L_KD learns strengths, alone or beside L_pair), :pairs (train.list, with --set train.n_way below --listed). FOLDER of
the data holds sets in BEIR layout with qrels/train.tsv. Leaves PART.tsv and labels.svg under --work; what is there is
not made again.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import matplotlib
from seeds import against, mean_and_sd

matplotlib.use("svg")
import matplotlib.pyplot as plt

from pdadapt.data.corpus import Dataset
from pdadapt.data.load import load_dataset
from pdadapt.data.run_file import TrecRunFile, read_run
from pdadapt.data.trec import Qrels
from pdadapt.evaluation.measures import PerQuery, per_query
from pdadapt.evaluation.significance import compare_two
from pdadapt.labeling.bradley_terry import fit_strengths
from pdadapt.labeling.pairs import standardise
from pdadapt.labeling.questions import Labeling
from pdadapt.labeling.stage import ListBuilder, ask_teachers
from pdadapt.labeling.store import LabelStore, is_labeled
from pdadapt.labeling.training_list import TrainingList
from pdadapt.pipeline import adapt
from pdadapt.retrieval.search import sample_queries
from pdadapt.runs.folder import RunFolder
from pdadapt.runtime.progress import Progress
from pdadapt.settings.recipes import load_recipe, parse_override
from pdadapt.settings.schema import Recipe
from pdadapt.teachers.base import Task
from pdadapt.teachers.label_key import teacher_key, teacher_keys
from pdadapt.teachers.load import Teachers

RECIPE = str(Path(__file__).parent / "proof.yaml")
DIFFERENCES = "imported:differences"
TESTED = 300  # queries, at most
PAPER, EVERY = 50, 10_000  # pairs a query of the paper; more than there are
STRATEGIES = ("window", "random", "adjacent", "cycles", "uncertain", "active")
SHARES = (5, 10, 25, 50, 100)  # per cent of the paper's pairs
MEASURE = "nDCG@10"
COLOURS = dict(zip(STRATEGIES, ("#222222", "#777777", "#2b6cb0", "#2a7f3f", "#c05621", "#b3362b"), strict=True))


def recipe_of(options: argparse.Namespace, seed: int, strategy: str, pairs: int, **changes: object) -> Recipe:
    return load_recipe(
        RECIPE,
        {
            "seed": seed,
            "retrieve.k": options.listed,
            "retrieve.max_queries": options.queries,
            "evaluate.max_queries": TESTED,
            "teacher.point.model": options.point_teacher,
            "teacher.point.student_weight": options.student_weight,
            "teacher.kind": "auto",
            "teacher.point.kind": options.point_kind,
            "teacher.pair.model": DIFFERENCES if options.pair_scores else options.pair_teacher,
            "teacher.pair.scoring": "labels",
            "teacher.pair.strategy": strategy,
            "teacher.pair.per_query": pairs,
            "teacher.max_length": 320,
            "train.n_way": options.listed,
            "train.temperature": options.temperature,
            "train.prior_precision": options.prior_precision,
        }
        | dict(map(parse_override, options.set))
        | {key.replace("__", "."): value for key, value in changes.items()},
    )


def judge_all(name: str, options: argparse.Namespace) -> tuple[Dataset, Path]:
    """Candidates of a set's train queries, the labels of them and of all their pairs; returns the run folder."""
    dataset = load_dataset(str(options.data / name))
    queries = sample_queries(dataset.queries, options.queries, 42)  # the same for all seeds
    dataset = replace(dataset, queries=queries, test_queries=sample_queries(dataset.test_queries, TESTED, 42))
    recipe, out = recipe_of(options, 42, "random", EVERY), options.work / name
    if options.pair_scores:
        adapt(recipe_of(options, 42, "random", 0), dataset, out, Progress(), stop_before_labeling=True)
        import_differences(recipe, dataset, out, options)
    judge(recipe, dataset, out)
    return dataset, out


def import_differences(recipe: Recipe, dataset: Dataset, out: Path, options: argparse.Namespace) -> None:
    """Label all pairs by a judge of single documents: log-odds are the differences of its scores, in deviations of a
    query's candidates. It contradicts itself never, and costs no more for more pairs.
    """
    store, key = RunFolder(out).store(recipe), teacher_key(recipe.teacher, "pair")
    if is_labeled(store, key):
        return
    scorer = {"teacher.point.model": options.pair_teacher, "teacher.point.kind": options.pair_scores}
    scores_file = out / "pair-teacher.sqlite"
    alone = recipe_of(options, 42, "window", 0, label_store=str(scores_file), **scorer)
    labeling, progress = labeling_of(alone, dataset, out), Progress()
    keys: dict[Task, str] = {"point": teacher_key(alone.teacher, "point", dataset.corpus)}
    ask_teachers(labeling, scores_file, keys, Teachers(alone.teacher, ["point"], progress, dataset.corpus), progress)

    def differences(scores: LabelStore) -> Iterator[tuple[tuple[str, str, str], float]]:
        for query_id in labeling.ranking:
            query, texts = labeling.queries[query_id], [labeling.text(one) for one, _ in labeling.candidates(query_id)]
            own = dict(zip(texts, standardise([scores.get((query, text)) for text in texts]), strict=True))
            yield from (((query, a, b), (own[a] or 0.0) - (own[b] or 0.0)) for a, b in permutations(own, 2))

    with LabelStore(scores_file, "points", keys["point"]) as scores, LabelStore(store, "pairs", key) as pairs:
        pairs.add(differences(scores))


def judge(recipe: Recipe, dataset: Dataset, out: Path) -> None:
    """Retrieve candidates, and ask what is not in the label store yet."""
    progress = Progress()
    adapt(recipe, dataset, out, progress, stop_before_labeling=True)
    keys, store = teacher_keys(recipe, dataset.corpus), RunFolder(out).store(recipe)
    teachers = Teachers(recipe.teacher, list(keys), progress, dataset.corpus)
    ask_teachers(labeling_of(recipe, dataset, out), store, keys, teachers, progress)


def labeling_of(recipe: Recipe, dataset: Dataset, out: Path) -> Labeling:
    return Labeling(TrecRunFile(out / "iteration-1" / "candidates.run"), dataset.corpus, dataset.queries, recipe)


def order(entry: TrainingList, recipe: Recipe) -> list[tuple[str, float]]:
    """The list by the strengths that its points and pairs give."""
    strengths = fit_strengths(
        entry.points, entry.pairs, recipe.train.temperature, recipe.train.prior_precision
    ).strengths
    return sorted(zip(entry.doc_ids, map(float, strengths), strict=True), key=lambda one: -one[1])


def worth(
    recipe: Recipe, dataset: Dataset, out: Path, qrels: Qrels, measures: Sequence[str] = (MEASURE,)
) -> tuple[float, dict[str, PerQuery]]:
    """Pair prompts a query, and what the lists in that order are worth, by measure, of the queries that are judged."""
    keys, store = teacher_keys(recipe, dataset.corpus), RunFolder(out).store(recipe)
    builder = ListBuilder(labeling_of(recipe, dataset, out), store, keys)
    lists, figures = list(builder), builder.figures()
    judged = {entry.query_id: qrels[entry.query_id] for entry in lists if entry.query_id in qrels}
    rankings = {entry.query_id: order(entry, recipe) for entry in lists if entry.query_id in judged}
    return 2 * figures.get("pairs", 0) / len(lists), per_query(rankings, judged, measures)


def label_rows(name: str, options: argparse.Namespace) -> Iterator[list[object]]:
    """Of each strategy and share: calls a query, and what the ordered lists are worth by the train qrels."""
    dataset, out = judge_all(name, options)
    qrels = dataset.read_train_qrels()

    def by_labels(strategy: str, pairs: int) -> tuple[float, list[PerQuery]]:
        runs = [worth(recipe_of(options, 1 + i, strategy, pairs), dataset, out, qrels) for i in range(options.seeds)]
        return runs[0][0], [found[MEASURE] for _, found in runs]

    def row(system: str, share: object, calls: float, of_seeds: Sequence[PerQuery]) -> list[object]:
        return [name, system, share, f"{calls:.1f}", *mean_and_sd(of_seeds), *against(paper, of_seeds)]

    _, paper = by_labels("window", PAPER)
    student = labeling_of(recipe_of(options, 1, "window", 0), dataset, out).ranking
    judged = {query_id: qrels[query_id] for query_id in student if query_id in qrels}
    yield row("student's order", "", 0.0, [per_query({q: student[q] for q in judged}, judged, [MEASURE])[MEASURE]])
    yield row("points alone", "", *by_labels("window", 0))
    yield row("all pairs", "", *by_labels("random", EVERY))
    for strategy in STRATEGIES:
        for share in SHARES:
            yield row(strategy, share, *by_labels(strategy, math.ceil(PAPER * share / 100)))


def source_rows(name: str, options: argparse.Namespace) -> Iterator[list[object]]:
    """Of each source of candidates: how many relevant ones it finds, and what its lists are worth."""
    dataset, shared = judge_all(name, options)
    dataset = replace(dataset, test_queries={})  # nothing is tested
    qrels = dataset.read_train_qrels()
    found_by: dict[str, dict[str, PerQuery]] = {}
    for sources in (["student"], ["bm25"], ["student", "bm25"]):
        changes = {"retrieve__sources": sources, "teacher__point__student_weight": 0.0}
        recipe = recipe_of(options, 42, "window", 0, label_store=str(shared / "labels.sqlite"), **changes)
        out = shared
        if sources != ["student"]:
            out = options.work / f"{name}-{'-'.join(sources)}"
            judge(recipe, dataset, out)
        _, found = worth(recipe, dataset, out, qrels, (f"R@{options.listed}", MEASURE))
        found_by[" + ".join(sources)] = found
        cells: list[object] = [name, " + ".join(sources)]
        for measure, values in found.items():
            change = compare_two(found_by["student"][measure], values, 10_000, 0)
            cells += [f"{statistics.fmean(values.values()):.4f}", f"{change.change:+.4f}", f"{change.p:.3f}"]
        yield cells


def student_rows(name: str, options: argparse.Namespace) -> Iterator[list[object]]:
    """Of each configuration: its students on the test queries, against the base and the first configuration's."""
    dataset, shared = judge_all(name, options)
    qrels = {query_id: dataset.qrels[query_id] for query_id in dataset.test_queries}
    first: list[PerQuery] = []
    for config in options.configs:
        strategy, share, *use = config.split(":")
        changes: dict[str, object] = {"train__list": "pairs"} if "pairs" in use else {}
        if "both" in use or "strengths" in use:
            changes["train__kd_target"] = "strengths"
        if "strengths" in use:
            changes["train__lambda_pair"] = 0.0
        pairs, of_seeds = math.ceil(PAPER * int(share) / 100), []
        for seed in range(1, options.seeds + 1):
            run = RunFolder(options.work / f"{name}-{config.replace(':', '-')}-{seed}")
            store = str(shared / "labels.sqlite")
            recipe = recipe_of(options, seed, strategy, pairs, label_store=store, train__steps=options.steps, **changes)
            adapt(recipe, dataset, run.path, Progress())
            tested = (read_run(run.iteration(number) / "test.run") for number in (0, 1))
            base, adapted = (per_query(one, qrels, [MEASURE])[MEASURE] for one in tested)
            of_seeds.append(adapted)
        if not first:
            first = of_seeds
            yield [name, "base", 0, *mean_and_sd([base]), *against([base], [base]), *against(first, [base])]
        yield [name, config, pairs, *mean_and_sd(of_seeds), *against([base], of_seeds), *against(first, of_seeds)]


def plot(rows: list[list[str]], file: Path) -> None:
    """The loss against 50 window pairs by the calls, a panel a set; bars are 95 % intervals over the queries."""
    sets = list(dict.fromkeys(row[0] for row in rows))
    plt.rcParams |= {"svg.hashsalt": "pdadapt", "font.size": 9}
    figure, panels = plt.subplots(1, len(sets), figsize=(4.6 * len(sets), 3.8), squeeze=False)
    for axes, name in zip(panels[0], sets, strict=True):
        own = [row for row in rows if row[0] == name]
        axes.axhline(0, color="#bbbbbb", linewidth=0.8)
        for row in own:
            if row[1] in ("points alone", "all pairs"):
                axes.axhline(
                    float(row[6]), color="#888888", linestyle="--" if row[1] == "points alone" else ":", linewidth=1
                )
                axes.annotate(
                    row[1], (1, float(row[6])), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7
                )
        for place, strategy in enumerate(STRATEGIES):
            points = [row for row in own if row[1] == strategy]
            aside = 1.03 ** (place - (len(STRATEGIES) - 1) / 2)  # so that bars stand side by side
            axes.errorbar(
                [aside * float(row[3]) for row in points],
                [float(row[6]) for row in points],
                [float(row[7]) for row in points],
                color=COLOURS[strategy],
                marker="o",
                markersize=3,
                linewidth=1,
                elinewidth=0.6,
                label=strategy,
            )
        axes.set_xscale("log")
        axes.set_xticks([6, 10, 26, 50, 100], ["6", "10", "26", "50", "100"])
        axes.minorticks_off()
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("pair calls a query (100: 50 pairs, both orders)")
    panels[0][0].set_ylabel(f"{MEASURE} of the lists, less that of 50 window pairs")
    panels[0][-1].legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.02, 1))
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


PARTS = {
    "labels": (
        label_rows,
        ["set", "strategy", "%", "calls a query", MEASURE, "sd of seeds", "against 50 window pairs", "±", "p"],
    ),
    "sources": (
        source_rows,
        ["set", "candidates", "R of candidates", "change", "p", f"{MEASURE} of lists", "change", "p"],
    ),
    "students": (
        student_rows,
        ["set", "configuration", "pairs", MEASURE, "sd", "against base", "±", "p", "against the first", "±", "p"],
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--sets", nargs="+", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--point-teacher", required=True)
    parser.add_argument("--point-kind", default="auto", help="Of the point teacher: bi_encoder, multi_vector, ...")
    parser.add_argument("--pair-teacher", required=True)
    parser.add_argument("--pair-scores", help="bi_encoder or multi_vector: pairs are differences of its scores.")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--listed", type=int, default=16, help="Documents of a list.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--student-weight", type=float, default=0.0)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--prior-precision", type=float, default=0.3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--set", action="append", default=[], help="A setting that no option sets, of all runs.")
    parser.add_argument("--configs", nargs="*", default=["window:100", "window:10", "active:10", "active:10:strengths"])
    options = parser.parse_args()
    make, head = PARTS[options.part]
    rows = []
    print("\t".join(head))
    for name in options.sets:
        for row in make(name, options):
            rows.append([str(cell) for cell in row])
            print("\t".join(rows[-1]), flush=True)
    lines = ["\t".join(row) for row in [head, *rows]]
    (options.work / f"{options.part}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if options.part == "labels":
        plot(rows, options.work / "labels.svg")


if __name__ == "__main__":
    main()
