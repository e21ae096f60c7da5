"""Training lists: a query's documents with what the teacher said of them, and the file that holds them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pdadapt.data.records import LineFile
from pdadapt.errors import DataError, RunError, reason
from pdadapt.labeling.bradley_terry import PairLabel
from pdadapt.runtime.files import write_atomic


class TrainingList(NamedTuple):
    """One query's documents, best first by the point labels, with what the teacher said of them."""

    query_id: str
    doc_ids: list[str]
    points: list[float | None]
    pairs: list[PairLabel]
    relevant: Sequence[str] = ()
    """Documents that people labeled relevant, for L_CL."""


def derive(entry: TrainingList, i: int, j: int, temperature: float) -> float | None:
    """Log-odds from the point labels: sigmoid(s_i - s_j) is what points say of a pair."""
    first, second = entry.points[i], entry.points[j]
    return None if first is None or second is None else (first - second) / temperature


def around_pairs(entry: TrainingList, n_way: int, seed: str) -> TrainingList:
    """The part of a list that holds all of its pairs' documents and of those labeled relevant, filled up to `n_way` at
    random, first with documents that have a point label. The order stays.

    So the released code makes its lists (MiuLab/PairDistill, ColBERT/utility/supervision/
    convert_pair_rerank_to_colbert.py), but for pairs of more than n_way documents, which it has no lists for.
    """
    relevant = set(entry.relevant)
    kept = {position for i, j, _ in entry.pairs for position in (i, j)}
    kept |= {position for position, doc_id in enumerate(entry.doc_ids) if doc_id in relevant}
    others = [position for position in range(len(entry.doc_ids)) if position not in kept]
    random.Random(seed).shuffle(others)
    others.sort(key=lambda position: entry.points[position] is None)
    order = sorted([*kept, *others[: max(0, n_way - len(kept))]])
    place = {position: new for new, position in enumerate(order)}
    return entry._replace(
        doc_ids=[entry.doc_ids[position] for position in order],
        points=[entry.points[position] for position in order],
        pairs=[(place[i], place[j], log_odds) for i, j, log_odds in entry.pairs],
    )


def write_lists(path: Path, lists: Iterable[TrainingList]) -> None:
    """Training lists as JSONL, one query a line."""
    write_atomic(path, (json.dumps(entry._asdict(), ensure_ascii=False) + "\n" for entry in lists))


def read_lists(path: Path, wanted: Callable[[str], bool] = lambda query_id: True) -> Sequence[TrainingList]:
    """Those of the queries wanted, each read from the file when asked for. Raises RunError when the file is damaged."""
    try:
        lines = LineFile(path, _to_list)
        lines.keep([row for row, entry in enumerate(lines.read()) if wanted(entry.query_id)])
    except (DataError, ValueError, LookupError, TypeError) as error:
        raise RunError(
            f"{path} is damaged ({reason(error)}); remove it, and the same `pdadapt adapt` writes it anew."
        ) from None
    return lines


def _to_list(row: dict[str, Any], where: str) -> TrainingList:
    return TrainingList(**row | {"pairs": [tuple(pair) for pair in row["pairs"]]})
