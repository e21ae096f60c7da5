"""Read and write TREC run files. Each line is `query_id Q0 doc_id rank score tag`."""

from __future__ import annotations

import io
import itertools
import mmap
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pdadapt.data.trec import read_records, read_score
from pdadapt.errors import DataError
from pdadapt.runtime.files import write_atomic

SCORE_DECIMALS = 6
Ranked = list[tuple[str, float]]
"""The documents of one query: (doc_id, score), best first."""
Ranking = dict[str, Ranked]
"""The documents of every query, by query_id."""


def write_run(path: Path, rankings: Iterable[tuple[str, Ranked]], tag: str) -> None:
    """Write rankings, (query_id, ranked documents), to a TREC run file. tag: the name of the system."""
    lines = (
        f"{query_id} Q0 {doc_id} {rank} {score:.{SCORE_DECIMALS}f} {tag}\n"
        for query_id, ranked in rankings
        for rank, (doc_id, score) in enumerate(ranked, 1)
    )
    write_atomic(path, lines)


def in_trec_order(ranked: Ranked) -> Ranked:
    """The documents in trec_eval's order: by score in single precision, and among equal scores the greater id first."""
    scores = array("f", (score for _, score in ranked))
    if all(before > after for before, after in itertools.pairwise(scores)):
        return ranked
    order = sorted(range(len(ranked)), key=lambda i: (scores[i], ranked[i][0]), reverse=True)
    return [ranked[i] for i in order]


def as_read_back(ranked: Ranked) -> Ranked:
    """The documents as `read_run` returns them after `write_run`: with rounded scores and in trec_eval's order."""
    return in_trec_order([(doc_id, round(score, SCORE_DECIMALS)) for doc_id, score in ranked])


def read_run(path: Path) -> Ranking:
    """Read the rankings of a run file (see `trec.read_records`) in trec_eval's order.

    Raises DataError with file and line if a line is not a TREC run's, or if a query ranks a document twice.
    """
    ranking: Ranking = {}
    for query_id, doc_id, value, where in read_records(path, "ranking", []):
        ranking.setdefault(query_id, []).append((doc_id, read_score(value, where)))
    for query_id, ranked in ranking.items():
        counts = Counter(doc_id for doc_id, _ in ranked)
        if repeated := next((doc_id for doc_id, count in counts.items() if count > 1), None):
            raise DataError(f"{path}: query {query_id!r} ranks document {repeated!r} twice. Remove the second line.")
    return {query_id: in_trec_order(ranked) for query_id, ranked in ranking.items()}


class TrecRunFile(Mapping[str, Ranked]):
    """The rankings of a run file that `write_run` wrote. Each query's ranking is read from disk on access."""

    def __init__(self, path: Path):
        self.path = path
        self.sizes: dict[str, int] = {}
        """The number of documents of each query."""
        self._starts: dict[str, int] = {}
        with open(path, "rb") as file:
            self._file = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else io.BytesIO()
        start = 0
        for query_id, lines in itertools.groupby(self._lines(), lambda line: line.partition(b" ")[0]):
            name = query_id.decode(errors="replace")
            self._starts[name] = start
            self.sizes[name] = 0
            for line in lines:
                start += len(line)
                self.sizes[name] += 1

    def __getitem__(self, query_id: str) -> Ranked:
        """The documents of a query, best first. Raises DataError if the file is not a run file."""
        self._file.seek(self._starts[query_id])
        lines = itertools.islice(self._lines(), self.sizes[query_id])
        return [_parse_run_line(line.decode(errors="replace"), str(self.path)) for line in lines]

    def _lines(self) -> Iterator[bytes]:
        """The lines from the current position of the file."""
        return iter(self._file.readline, b"")

    def __iter__(self) -> Iterator[str]:
        return iter(self._starts)

    def __len__(self) -> int:
        return len(self._starts)

    def __contains__(self, query_id: object) -> bool:
        return query_id in self._starts


def _parse_run_line(line: str, where: str) -> tuple[str, float]:
    """(document id, score) of a line that `write_run` wrote. Raises DataError if it has fewer than six fields."""
    fields = line.split()
    if len(fields) < 6:
        raise DataError(f"{where}: not a line of a TREC run. Write six fields: query_id Q0 doc_id rank score tag.")
    return fields[2], read_score(fields[4], where)
