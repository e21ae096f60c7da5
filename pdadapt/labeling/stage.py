"""Stage `label`: ask the teachers what the store does not hold, and make the training lists."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pdadapt.data.corpus import fingerprint
from pdadapt.errors import RunError
from pdadapt.labeling.ask import ask_missing, check_answers
from pdadapt.labeling.bradley_terry import contradictions
from pdadapt.labeling.journal import Journal
from pdadapt.labeling.position_bias import Orders
from pdadapt.labeling.questions import Labeling
from pdadapt.labeling.store import LabelStore
from pdadapt.labeling.training_list import TrainingList, write_lists
from pdadapt.runtime.files import write_atomic
from pdadapt.runtime.progress import Progress
from pdadapt.teachers.base import Task, TeacherLoader, score_of
from pdadapt.teachers.kind import model_of
from pdadapt.teachers.load import Teachers

if TYPE_CHECKING:
    from pdadapt.runtime.ray_cluster import RayCluster


def journal_of(file: Path, keys: Mapping[Task, str], store: LabelStore) -> Journal:
    """The journal of a labeling: what it says holds for these teachers and this store only."""
    return Journal(file, fingerprint([*keys.items(), ("store", str(store.identity))]))


def ask_teachers(
    labeling: Labeling,
    store_file: Path,
    keys: Mapping[Task, str],
    teachers: TeacherLoader,
    progress: Progress,
    journal: Journal | None = None,
    shard: tuple[int, int] = (1, 1),
    beside: Path | None = None,
) -> dict[str, float]:
    """Have the store hold what the teachers say of every candidate, then of the pairs in the re-ordered lists.

    keys: the store's keys of points, and of pairs if a teacher is asked about them; teachers: loads the teacher of
    a task, called only when something must be asked; journal: see ask_missing. shard: (number, shards), where others
    ask the rest; beside: a store that is only looked into. Returns how much was missing.
    """
    settings, journal = labeling.recipe.teacher, journal or Journal()
    rounds = settings.pair.rounds_asked
    in_turn = [f"label pairs, round {number + 1}" for number in range(rounds)] if rounds > 1 else ["label pairs"]
    journal.take_in_turn(["label points", *in_turn])
    asked: dict[str, float] = {"points_asked": 0, "pair_prompts_asked": 0}
    with LabelStore(store_file, "points", keys["point"], model_of(settings, "point").model, beside) as points:
        asked["points_asked"] = ask_missing(
            labeling.points().shard(*shard),
            points,
            lambda: score_of(teachers("point"), "point"),
            progress,
            "label points",
            journal,
        )
        if "pair" in keys:
            with LabelStore(store_file, "pairs", keys["pair"], model_of(settings, "pair").model, beside) as pairs:
                for number, name in enumerate(in_turn):
                    asked["pair_prompts_asked"] += ask_missing(
                        labeling.pairs(points, pairs, number).shard(*shard),
                        pairs,
                        lambda: score_of(teachers("pair"), "pair"),
                        progress,
                        name,
                        journal,
                    )
    return asked


def make_lists(
    labeling: Labeling, store_file: Path, keys: Mapping[Task, str], figures: dict[str, float]
) -> Iterator[TrainingList]:
    """The training lists, in the order of the ranking; `figures` about the labels are filled in when all are made.

    Raises ModelError when the teacher gave no answers at all.
    """
    settings = labeling.recipe.teacher.pair
    counts: Counter[str] = Counter(points=0, points_unanswered=0, pairs=0)
    orders = Orders()
    with contextlib.ExitStack() as stack:
        points = stack.enter_context(LabelStore(store_file, "points", keys["point"]))
        pairs = stack.enter_context(LabelStore(store_file, "pairs", keys["pair"])) if "pair" in keys else None
        for query_id in labeling.ranking:
            entry, answers = labeling.list_of(query_id, points)
            counts["points"] += len(answers)
            counts["points_unanswered"] += answers.count(None)
            if pairs or settings.scoring == "derived":
                texts = labeling.texts(entry)
                for i, j in sorted(itertools.chain.from_iterable(labeling.choose(entry, texts, pairs))):
                    value = labeling.pair_label(entry, texts, i, j, pairs, orders)
                    counts["pairs" if value is not None else "pairs_unanswered"] += 1
                    if value is not None:
                        counts["disagreeing"] += value < 0
                        entry.pairs.append((i, j, value))
                circles, triples = contradictions(entry.pairs)
                counts["circles"] += circles
                counts["triples"] += triples
            yield labeling.listed(entry)
    check_answers(counts["points_unanswered"], counts["points"], "point")
    figures |= {name: counts[name] for name in ("points", "points_unanswered", "pairs")}
    if settings.scoring == "derived":
        figures["pairs_derived"] = counts["pairs"]
    if pairs:
        check_answers(counts["pairs_unanswered"], counts["pairs"] + counts["pairs_unanswered"], "pair")
        figures["pairs_unanswered"] = counts["pairs_unanswered"]
        figures |= {} if settings.order == "as_ranked" else orders.figures()
    if counts["pairs"] and settings.asks_teacher:
        figures["disagreement"] = counts["disagreeing"] / counts["pairs"]
        figures |= {name: counts[name] for name in ("triples", "circles")}


def save_lists(
    labeling: Labeling,
    keys: Mapping[Task, str],
    store: Path,
    folder: Path,
    progress: Progress,
    cluster: RayCluster | None = None,
) -> None:
    """Label the candidates; a teacher is loaded only if it must be asked, and is gone before training."""
    settings = labeling.recipe.teacher
    if cluster:
        from pdadapt.teachers.remote import ClusterTeachers
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
