"""Encode the shards of an exact index on a Ray cluster."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator

from pdadapt.models.transfer import FileContents, read_model_files, unpack_files, unpacked_model
from pdadapt.retrieval.engines.exact import ShardTexts, encode_shard
from pdadapt.runtime.ray_cluster import RayCluster
from pdadapt.settings.schema import StudentSettings
from pdadapt.students.load import load_student


def encode_on(
    cluster: RayCluster, name: str, student: StudentSettings, batch_tokens: int | None, shards: Iterable[ShardTexts]
) -> Iterator[tuple[ShardTexts, bytes]]:
    """Yield (shard, content of its file) for the shards of an exact index, in the order in which they are finished.

    name, student: the student, as load_student takes them. batch_tokens: see document_batches.
    """
    files = read_model_files(name)
    yield from cluster.map(functools.partial(EncodeShard, name, student, batch_tokens, files), shards)


class EncodeShard:
    """Encodes shards in a worker, with a student that the worker loads."""

    def __init__(self, name: str, student: StudentSettings, batch_tokens: int | None, files: FileContents):
        """Load the student. files: the files of the model."""
        with unpack_files(files) as folder:
            self.model = load_student(unpacked_model(name, folder), student)
        self.batch_tokens = batch_tokens

    def __call__(self, shard: ShardTexts) -> bytes:
        """Return the content of the shard's file."""
        return encode_shard(self.model, shard, self.batch_tokens)
