"""Shards of an exact index, encoded on a Ray cluster."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any

from pdadapt.models.transfer import FileContents, read_model_files, unpack_files, unpacked_model
from pdadapt.retrieval.engines.exact import ShardTexts, encode_shard
from pdadapt.runtime.ray_cluster import RayCluster
from pdadapt.students.load import load_student


def encode_on(
    cluster: RayCluster, name: str, student: dict[str, Any], batch_tokens: int | None, shards: Iterable[ShardTexts]
) -> Iterator[tuple[ShardTexts, bytes]]:
    """Shards of an index (engines.exact), made by a student: what load_student is told, name and settings."""
    files = read_model_files(name)
    yield from cluster.map(functools.partial(EncodeShard, name, student, batch_tokens, files), shards)


class EncodeShard:
    """A student in a worker."""

    def __init__(self, name: str, student: dict[str, Any], batch_tokens: int | None, files: FileContents):
        with unpack_files(files) as folder:
            self.model = load_student(unpacked_model(name, folder), **student)
        self.batch_tokens = batch_tokens

    def __call__(self, shard: ShardTexts) -> bytes:
        return encode_shard(self.model, shard, self.batch_tokens)
