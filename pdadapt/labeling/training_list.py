"""Training lists: the documents of a query with the teacher's labels, and the file that holds the lists."""

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
    """The documents of one query, best first by the point labels, with the teacher's labels."""

    query_id: str
    doc_ids: list[str]
    points: list[float | None]
    pairs: list[PairLabel]
    relevant: Sequence[str] = ()
    """Documents labeled relevant, for L_CL: by people, or because the query was written about them (`doc_id`)."""


def derive(entry: TrainingList, i: int, j: int, temperature: float) -> float | None:
    """Return the log-odds of a pair according to the point labels: P(i over j) = sigmoid(s_i - s_j). None if a label is
    missing.
    """
    first, second = entry.points[i], entry.points[j]
    return None if first is None or second is None else (first - second) / temperature


def around_pairs(entry: TrainingList, n_way: int, seed: str) -> TrainingList:
    """Return the part of a list that keeps the documents of its pairs and the documents labeled relevant.

    It is filled up to `n_way` documents at random, first with documents that have a point label. The order does not
    change.

    The released code makes its lists in the same way (MiuLab/PairDistill,
    ColBERT/utility/supervision/convert_pair_rerank_to_colbert.py), except if the pairs have more than n_way documents.
    Then it draws n_way of them, and fails if a pair loses one of its documents.
    """
    relevant = set(entry.relevant)
    kept = {position for i, j, _ in entry.pairs for position in (i, j)}
    kept |= {position for position, doc_id in enumerate(entry.doc_ids) if doc_id in relevant}
    others = [position for position in range(len(entry.doc_ids)) if position not in kept]
    random.Random(seed).shuffle(others)
    others.sort(key=lambda position: entry.points[position] is None)
    order = sorted([*kept, *others[: max(0, n_way - len(kept))]])
    new_position = {position: new for new, position in enumerate(order)}
    return entry._replace(
        doc_ids=[entry.doc_ids[position] for position in order],
        points=[entry.points[position] for position in order],
        pairs=[(new_position[i], new_position[j], log_odds) for i, j, log_odds in entry.pairs],
    )


def write_lists(path: Path, lists: Iterable[TrainingList]) -> None:
    """Write training lists as JSONL, one query per line."""
    write_atomic(path, (json.dumps(entry._asdict(), ensure_ascii=False) + "\n" for entry in lists))


def read_lists(path: Path, keep: Callable[[str], bool] = lambda query_id: True) -> Sequence[TrainingList]:
    """Return the lists of the queries to keep. Each list is read from the file when it is used. Raises RunError when
    the file is damaged.
    """
    try:
        lines = LineFile(path, _to_list)
        lines.keep([row for row, entry in enumerate(lines.read()) if keep(entry.query_id)])
    except (DataError, ValueError, LookupError, TypeError) as error:
        raise RunError(
            f"{path} is damaged ({reason(error)}). Remove the file and repeat the same `pdadapt adapt`."
        ) from None
    return lines


def _to_list(row: dict[str, Any], where: str) -> TrainingList:
    return TrainingList(**row | {"pairs": [tuple(pair) for pair in row["pairs"]]})
