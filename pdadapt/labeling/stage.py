"""Stage `label`: ask the teachers what the label store does not hold, and make the training lists."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from pdadapt.data.corpus import fingerprint
from pdadapt.data.run_file import TrecRunFile
from pdadapt.errors import RunError
from pdadapt.labeling.ask import ask_missing
from pdadapt.labeling.bradley_terry import contradictions
from pdadapt.labeling.guard import check_answers
from pdadapt.labeling.journal import Journal
from pdadapt.labeling.position_bias import PositionBias
from pdadapt.labeling.questions import Labeling
from pdadapt.labeling.store import LabelStore
from pdadapt.labeling.training_list import TrainingList, write_lists
from pdadapt.runs.context import RunContext
from pdadapt.runtime.files import write_atomic
from pdadapt.runtime.progress import Progress
from pdadapt.teachers.base import Task, TeacherLoader, score_of
from pdadapt.teachers.kind import model_of
from pdadapt.teachers.load import Teachers


def journal_of(file: Path, keys: Mapping[Task, str], store: LabelStore) -> Journal:
    """Return the journal of a labeling. Its entries hold for these teachers and this store only."""
    return Journal(file, fingerprint([*keys.items(), ("store", str(store.identity))]))


def ask_teachers(
    labeling: Labeling,
    store_file: Path,
    keys: Mapping[Task, str],
    teachers: TeacherLoader,
    progress: Progress,
    journal: Journal | None = None,
    shard: tuple[int, int] = (1, 1),
    fallback: Path | None = None,
) -> dict[str, float]:
    """Fill the store with the point label of every candidate. Then fill it with the pair labels of the lists that the
    points order.

    keys: the store's keys of points, and of pairs if a teacher is asked about pairs. teachers: loads the teacher of a
    task. It is called only when something must be asked. journal: see ask_missing. shard: (number, shards). Other
    shards ask the rest. fallback: a store that is only read.

    Returns how many labels were missing.
    """
    settings, journal = labeling.recipe.teacher, journal or Journal()
    rounds = settings.pair.rounds_asked
    pair_tasks = [f"label pairs, round {number + 1}" for number in range(rounds)] if rounds > 1 else ["label pairs"]
    journal.take_in_turn(["label points", *pair_tasks])
    asked: dict[str, float] = {"points_asked": 0, "pair_prompts_asked": 0}
    with LabelStore(store_file, "points", keys["point"], model_of(settings, "point").model, fallback) as points:
        asked["points_asked"] = ask_missing(
            labeling.points().shard(*shard),
            points,
            lambda: score_of(teachers("point"), "point"),
            progress,
            "label points",
            journal,
        )
        if "pair" in keys:
            with LabelStore(store_file, "pairs", keys["pair"], model_of(settings, "pair").model, fallback) as pairs:
                for number, name in enumerate(pair_tasks):
                    asked["pair_prompts_asked"] += ask_missing(
                        labeling.pairs(points, pairs, number).shard(*shard),
                        pairs,
                        lambda: score_of(teachers("pair"), "pair"),
                        progress,
                        name,
                        journal,
                    )
    return asked


class ListBuilder:
    """Makes the training lists from the labels in the store, in the order of the ranking.

    Iterate over it to the end. Then call `figures`.
    """

    def __init__(self, labeling: Labeling, store_file: Path, keys: Mapping[Task, str]):
        self._labeling = labeling
        self._store_file = store_file
        self._keys = keys
        self._settings = labeling.recipe.teacher.pair
        self._counts: Counter[str] = Counter()
        self._position_bias = PositionBias()

    def __iter__(self) -> Iterator[TrainingList]:
        """Yield the training lists. Raises ModelError at the end if the teacher gave no answers at all."""
        labeling, keys = self._labeling, self._keys
        self._counts = counts = Counter(points=0, points_unanswered=0, pairs=0)
        self._position_bias = PositionBias()
        with contextlib.ExitStack() as stack:
            points = stack.enter_context(LabelStore(self._store_file, "points", keys["point"]))
            pairs = stack.enter_context(LabelStore(self._store_file, "pairs", keys["pair"])) if "pair" in keys else None
            for query_id in labeling.ranking:
                entry, answers = labeling.list_of(query_id, points)
                counts["points"] += len(answers)
                counts["points_unanswered"] += answers.count(None)
                if pairs or self._settings.scoring == "derived":
                    self._add_pairs(entry, pairs)
                yield labeling.trained_part(entry)
        check_answers(counts["points_unanswered"], counts["points"], "point")
        if pairs:
            check_answers(counts["pairs_unanswered"], counts["pairs"] + counts["pairs_unanswered"], "pair")

    def _add_pairs(self, entry: TrainingList, pairs: LabelStore | None) -> None:
        """Add the pair labels to the list, and count them."""
        labeling, counts = self._labeling, self._counts
        texts = labeling.texts(entry)
        for i, j in sorted(itertools.chain.from_iterable(labeling.choose(entry, texts, pairs))):
            log_odds = labeling.pair_label(entry, texts, i, j, pairs, self._position_bias)
            counts["pairs" if log_odds is not None else "pairs_unanswered"] += 1
            if log_odds is not None:
                counts["disagreeing"] += log_odds < 0
                entry.pairs.append((i, j, log_odds))
        cycles, triples = contradictions(entry.pairs)
        counts["cycles"] += cycles
        counts["triples"] += triples

    def figures(self) -> dict[str, float]:
        """Return figures about the labels of the lists made so far, by their keys in labels.json."""
        counts, settings = self._counts, self._settings
        figures: dict[str, float] = {name: counts[name] for name in ("points", "points_unanswered", "pairs")}
        if settings.scoring == "derived":
            figures["pairs_derived"] = counts["pairs"]
        if "pair" in self._keys:
            figures["pairs_unanswered"] = counts["pairs_unanswered"]
            figures |= {} if settings.order == "as_ranked" else self._position_bias.figures()
        if counts["pairs"] and settings.asks_teacher:
            figures["disagreement"] = counts["disagreeing"] / counts["pairs"]
            figures |= {"triples": counts["triples"], "cycles": counts["cycles"]}
        return figures


def label_candidates(context: RunContext, iteration: int) -> None:
    """Ask the teachers about the candidates of an iteration, and write its training lists.

    A teacher is loaded only if it must be asked. Its memory is released before training.
    """
    folder = context.run.iteration(iteration)
    if (folder / "lists.jsonl").exists() and (folder / "labels.json").exists():
        return
    recipe, keys, progress = context.recipe, context.label_keys, context.progress
    store = context.run.store(recipe)
    candidates = TrecRunFile(folder / "candidates.run")
    labeling = Labeling(candidates, context.corpus, context.queries, recipe, context.relevant)
    teachers = load_teachers(context)
    with LabelStore(store, "points", keys["point"]) as point_store:
        journal = journal_of(folder / "asked.jsonl", keys, point_store)
        if not journal.done("texts", 0):
            labeling.remember(point_store, labeling.ranking)
            journal.end("texts", 0)
    asked = ask_teachers(labeling, store, keys, teachers, progress, journal)
    teachers.free()

    def lists() -> Iterator[TrainingList]:
        with progress.task("training lists", len(labeling.ranking), "queries") as advance:
            builder = ListBuilder(labeling, store, keys)
            for entry in builder:
                advance(1)
                yield entry
        figures = asked | builder.figures()
        lost = figures["points_unanswered"] + figures.get("pairs_unanswered", 0)
        if lost and not journal.unanswered:
            journal.forget()
            raise RunError(
                f"{store} lacks {lost:,.0f} labels that it held before. Repeat the same command to ask for them again."
            )
        # Once lists.jsonl exists the stage counts as done, so labels.json must exist before it.
        write_atomic(folder / "labels.json", json.dumps(figures, indent=2) + "\n")

    write_lists(folder / "lists.jsonl", lists())
    (folder / "asked.jsonl").unlink(missing_ok=True)


def load_teachers(context: RunContext) -> TeacherLoader:
    """Return the loader of this run's teachers, on this machine or on its cluster. No teacher is loaded yet."""
    settings, tasks = context.recipe.teacher, list(context.label_keys)
    if context.cluster is None:
        return Teachers(settings, tasks, context.progress, context.corpus)
    from pdadapt.teachers.remote import ClusterTeachers

    return ClusterTeachers(context.cluster, settings, tasks, context.corpus)
