"""The learning curve: what does the student gain from a judge, by queries and passes?

    python benchmarks/transfer.py --sets squad covidqa --data FOLDER --work FOLDER --judge models/all-mpnet-base-v2 \
        --judge-kind bi_encoder --queries 200 800 --passes 1 4 16 --seeds 3 --minutes 60

Three students are trained alike, on the same candidates of the same queries. They differ in their labels:
    judge   the judge's scores, plus --student-weight times the student's own scores
    own     the student's own pooled vector in place of the judge: the control, for which no judge is asked
    qrels   4 for a document that the train qrels call relevant, 0 for others: the ceiling. Lists get relevant documents
            that were not retrieved. Queries without judgments are left out of all points where there are train qrels.
A point of the grid is a student, a number of queries, a number of passes and a seed. Cheap points come first. No point
is begun after --minutes. Run the same command again to go on: no point, label or index is made twice. A training that
was stopped resumes. The data are sets in BEIR layout with qrels/train.tsv, which `qrels` alone reads. Leaves
transfer.tsv under --work. Figures are means over the seeds that all ways of a row have finished. Intervals and p are
over the queries.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from seeds import against, mean_and_sd

from pdadapt.data.corpus import Dataset, relevant_documents
from pdadapt.data.load import load_dataset
from pdadapt.data.run_file import Ranking, TrecRunFile, read_run, write_run
from pdadapt.evaluation.measures import PerQuery, per_query
from pdadapt.labeling.questions import Labeling
from pdadapt.labeling.rerank import rerank
from pdadapt.labeling.stage import ListBuilder, ask_teachers
from pdadapt.labeling.training_list import TrainingList, read_lists, write_lists
from pdadapt.pipeline import adapt
from pdadapt.retrieval.engines.load import make_engine
from pdadapt.retrieval.search import index_corpus, retrieve_documents
from pdadapt.runs.folder import RunFolder
from pdadapt.runtime.progress import Progress
from pdadapt.settings.recipes import load_recipe, parse_override
from pdadapt.settings.schema import Recipe
from pdadapt.students.load import load_student
from pdadapt.teachers.base import Task
from pdadapt.teachers.label_key import teacher_key
from pdadapt.teachers.load import Teachers
from pdadapt.training import trainer
from pdadapt.training.temperature import fit_to_student

RECIPE = str(Path(__file__).parent / "proof.yaml")
MEASURE = "nDCG@10"
RELEVANT = 4.0  # label of a relevant document, whose probability in a list of 16 is then .78
Way = Literal["own", "judge", "qrels"]
HEAD = [
    *("set", "queries", "passes", "steps", "seeds", "base", "judge's re-ranking"),
    *("own", "own: sd", "own less base", "±", "p"),
    *("judge", "judge: sd", "judge less base", "±", "p", "judge less own", "±", "p"),
    *("qrels", "qrels: sd", "qrels less base", "±", "p"),
]


class Point(NamedTuple):
    """A training of the grid. Points are sorted by their cost."""

    trained: float  # lists that the training reads: queries times passes
    seed: int
    name: str  # of the set
    way: Way
    queries: int
    passes: float


@dataclass
class Bench:
    """One set: its base run, and the students that are trained from it."""

    name: str
    options: argparse.Namespace

    @cached_property
    def dataset(self) -> Dataset:
        """The set with the training queries in the order in which points take them."""
        dataset = load_dataset(str(self.options.data / self.name) if self.name != "demo" else "demo")
        relevant = relevant_documents(dataset, dataset.queries) if dataset.train_qrels else dataset.queries
        drawn = sorted(relevant)
        random.Random(42).shuffle(drawn)
        return replace(dataset, queries={one: dataset.queries[one] for one in drawn[: max(self.options.queries)]})

    def folder(self, *parts: object) -> Path:
        return self.options.work / self.name / "-".join(map(str, parts))

    def recipe(self, way: Way = "judge") -> Recipe:
        """The settings of all points, with the teacher of this way."""
        options = self.options
        teacher = {"teacher.point.model": options.judge, "teacher.point.kind": options.judge_kind}
        if way == "own":
            student = load_recipe(RECIPE, dict(map(parse_override, options.set))).student.model
            teacher = {"teacher.point.model": student, "teacher.point.kind": "bi_encoder"}
        weight = {"teacher.point.student_weight": options.student_weight}
        settings = {"retrieve.max_queries": None, "evaluate.general": False, **weight, **teacher}
        return load_recipe(RECIPE, settings | dict(map(parse_override, options.set)))

    @cached_property
    def base(self) -> RunFolder:
        """The run with the student before training, its ranking of the test queries, and the candidates."""
        run = RunFolder(self.folder("base"))
        if not (run.iteration(1) / "candidates.run").exists() or not (run.iteration(0) / "test.run").exists():
            adapt(self.recipe(), self.dataset, run.path, Progress(), stop_before_labeling=True)
        return run

    def lists(self, way: Way) -> Sequence[TrainingList]:
        """The training lists of all queries with the labels of this way."""
        file, progress = self.folder(f"{way}.jsonl"), Progress()
        if not file.exists():
            recipe = self.recipe(way)
            candidates = TrecRunFile(self.base.iteration(1) / "candidates.run")
            labeling = Labeling(candidates, self.dataset.corpus, self.dataset.queries, recipe)
            if way == "qrels":
                relevant = relevant_documents(self.dataset, self.dataset.queries)
                write_lists(file, judged_lists(candidates, relevant, recipe.train.n_way))
            else:
                keys: dict[Task, str] = {"point": teacher_key(recipe.teacher, "point", self.dataset.corpus)}
                store = self.folder("labels.sqlite")
                teachers = Teachers(recipe.teacher, ["point"], progress, self.dataset.corpus)
                ask_teachers(labeling, store, keys, teachers, progress)
                write_lists(file, ListBuilder(labeling, store, keys))
        place = {query_id: number for number, query_id in enumerate(self.dataset.queries)}
        return sorted(
            (entry for entry in read_lists(file) if entry.query_id in place), key=lambda entry: place[entry.query_id]
        )

    def train(self, point: Point) -> None:
        """Train the student of a point, and rank the test queries with it. Both resume."""
        folder, progress = self.point_folder(point), Progress()
        if (folder / "test.run").exists():
            return self.clean(folder)
        recipe = self.recipe()
        settings = recipe.train.model_copy(update={"steps": None, "epochs": point.passes, "max_epochs": None})
        corpus, lists = self.dataset.corpus, self.lists(point.way)[: point.queries]
        with progress.within(f"{folder.parent.name}/{folder.name}: "):
            if not (folder / "checkpoint").exists():
                student, queries = load_student(str(self.base.student), recipe.student), self.dataset.queries
                if settings.student_temperature == "auto":
                    fit = fit_to_student(student, lists, corpus, queries, settings, point.seed)
                    settings = settings.model_copy(update={"student_temperature": fit.temperature})
                trainer.train(student, lists, corpus, queries, settings, point.seed, folder, progress)
            engine = make_engine(load_student(str(folder / "checkpoint"), recipe.student), recipe.retrieve)
            index_corpus(engine, corpus, folder / "index", progress, {"model": str(folder)})
            depth = recipe.evaluate.depth
            found = retrieve_documents(engine, corpus, self.dataset.test_queries, folder / "index", depth, progress)
            write_run(folder / "test.run", found.items(), point.way)
        self.clean(folder)

    def clean(self, folder: Path) -> None:
        """Remove what a finished point needs no more."""
        for used in ("index", "trainer", "checkpoint"):
            shutil.rmtree(folder / used, ignore_errors=True)

    def point_folder(self, point: Point) -> Path:
        return self.folder(point.way, point.queries, f"{point.passes:g}", point.seed)

    def measure(self, ranking: Ranking) -> PerQuery:
        return per_query(ranking, self.dataset.qrels, [MEASURE])[MEASURE]

    def judged(self) -> PerQuery:
        """The values of the test queries when the judge re-ranks the student's candidates."""
        file, recipe, progress = self.folder("reranked.run"), self.recipe(), Progress()
        if not file.exists():
            ranking = read_run(self.base.iteration(0) / "test.run")
            corpus, key = self.dataset.corpus, teacher_key(recipe.teacher, "point", self.dataset.corpus)
            teachers = Teachers(recipe.teacher, ["point"], progress, corpus)
            queries, store, top = self.dataset.test_queries, self.folder("labels.sqlite"), recipe.retrieve.k
            found, _ = rerank(ranking, corpus, queries, "point", top, store, key, teachers, progress)
            write_run(file, found.items(), "judge")
        return self.measure(read_run(file))


def judged_lists(candidates: TrecRunFile, relevant: dict[str, list[str]], n_way: int) -> Iterator[TrainingList]:
    """The judged queries' relevant documents, at most half of a list, and other candidates. Labels are the qrels."""
    for query_id in candidates:
        judged = relevant.get(query_id, [])
        others = [doc_id for doc_id, _ in candidates[query_id] if doc_id not in judged]
        if judged:
            kept = judged[: n_way // 2]
            doc_ids = [*kept, *others[: n_way - len(kept)]]
            yield TrainingList(query_id, doc_ids, [RELEVANT * (doc_id in judged) for doc_id in doc_ids], [])


def grid(options: argparse.Namespace, benches: dict[str, Bench]) -> list[Point]:
    """All points, the cheapest first. A number above a set's queries means all of them."""
    points = set()
    for name, bench in benches.items():
        ways = [way for way in options.ways if way != "qrels" or bench.dataset.train_qrels]
        for queries in {min(number, len(bench.dataset.queries)) for number in options.queries}:
            for passes in options.passes:
                for seed in range(1, options.seeds + 1):
                    points |= {Point(queries * passes, seed, name, way, queries, passes) for way in ways}
    return sorted(points)


def rows(points: Sequence[Point], benches: dict[str, Bench]) -> Iterator[list[str]]:
    """The table: a row for each set, number of queries and number of passes with a finished point."""
    for name, queries, passes in dict.fromkeys((point.name, point.queries, point.passes) for point in points):
        bench = benches[name]
        files = {
            (point.way, point.seed): bench.point_folder(point) / "test.run"
            for point in points
            if (point.name, point.queries, point.passes) == (name, queries, passes)
        }
        finished = {key: read_run(file) for key, file in files.items() if file.exists()}
        ways = {way for way, _ in finished}
        seeds = [
            seed for seed in sorted({seed for _, seed in finished}) if all((way, seed) in finished for way in ways)
        ]
        if not seeds:
            continue
        found = {way: [bench.measure(finished[way, seed]) for seed in seeds] for way in ways}
        base = bench.measure(read_run(bench.base.iteration(0) / "test.run"))
        steps = math.ceil(queries * passes / bench.recipe().train.batch_size)
        row = [name, queries, f"{passes:g}", steps, len(seeds), mean_and_sd([base])[0]]
        row.append(f"{statistics.fmean(bench.judged().values()):.4f}")
        for way in get_args(Way):
            row += (*mean_and_sd(found[way]), *against([base], found[way])) if way in found else [""] * 5
            if way == "judge":
                row += against(found["own"], found[way]) if {"own", way} <= ways else [""] * 3
        yield list(map(str, row))


def check_options(options: argparse.Namespace) -> None:
    """Exit if --work holds the results of other options, which must not be mixed."""
    made_with = {key: str(getattr(options, key)) for key in ("data", "judge", "judge_kind", "student_weight", "set")}
    made_with["queries"] = str(max(options.queries))
    file = options.work / "options.json"
    if file.exists() and json.loads(file.read_text(encoding="utf-8")) != made_with:
        sys.exit(f"{options.work} holds results of other options ({file}). Choose another --work.")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(made_with, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", required=True, help="Folders under --data, or demo.")
    parser.add_argument("--data", type=Path, default=Path())
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--judge", required=True)
    parser.add_argument("--judge-kind", default="auto", help="bi_encoder, multi_vector, ...")
    parser.add_argument("--student-weight", type=float, default=0.5)
    parser.add_argument("--ways", nargs="+", default=list(get_args(Way)), choices=get_args(Way))
    parser.add_argument("--queries", nargs="+", type=int, default=[200, 800, 3_200])
    parser.add_argument("--passes", nargs="+", type=float, default=[1, 4, 16, 64, 174])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=math.inf, help="No point is begun after so many.")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="A setting of all points.")
    options = parser.parse_args()
    check_options(options)
    end = time.monotonic() + 60 * options.minutes
    benches = {name: Bench(name, options) for name in options.sets}
    points = grid(options, benches)
    for point in points:
        if time.monotonic() > end:
            break
        benches[point.name].train(point)
    table = ["\t".join(row) for row in (HEAD, *rows(points, benches))]
    (options.work / "transfer.tsv").write_text("\n".join(table) + "\n", encoding="utf-8")
    print("\n".join(table))


if __name__ == "__main__":
    main()
