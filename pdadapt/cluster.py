"""Labeling and encoding on a Ray cluster: a Ray Data pipeline with one worker per GPU, or per CPU where there is none.

This process alone reads the corpus and writes files. Work waits on a shelf, a few items for each worker, so that it is
never all in memory; a worker takes an item by its number, so whoever does it again after a death gets the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import logging
import math
import operator
import os
import queue
import socket
import tempfile
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pdadapt.device import dtype_here
from pdadapt.engines.exact import ShardTexts, encode_shard
from pdadapt.errors import ModelError, PdadaptError, RunError
from pdadapt.models import resolve_model
from pdadapt.progress import quiet_libraries
from pdadapt.recipe import TeacherSettings
from pdadapt.students import load_student
from pdadapt.teachers import Chunk, Scores, Task, score_of
from pdadapt.teachers.choose import Teachers, asked_of, model_of, teacher_kind

TOKEN = Path.home() / ".ray" / "auth_token"  # that clusters want since ray 2.60
PATIENCE = 5.0  # seconds until an address is taken for none
AHEAD = 4  # items on the shelf for each worker

Work = Callable[[Any], bytes]
Files = dict[str, bytes]  # by name: of a model that is a folder here (model/...), a prompt of the user's own


class Shelf:
    """What the workers take: how they begin, and their items by number."""

    def __init__(self, begin: list[Any]):
        """begin: a reference to what makes a Work, in a list, so that it is passed on as it is."""
        self._begin = begin
        self._items: dict[int, Any] = {}
        self._end = math.inf
        self._changed = asyncio.Condition()

    async def begin(self) -> list[Any]:
        return self._begin

    async def put(self, number: int, item: Any) -> None:
        async with self._changed:
            self._items[number] = item
            self._changed.notify_all()

    async def end(self, number: int) -> None:
        """There are no items from this number on."""
        async with self._changed:
            self._end = number
            self._changed.notify_all()

    async def take(self, number: int) -> Any:
        """The item, when it is there; None where there will be none, or it is dropped."""
        async with self._changed:
            await self._changed.wait_for(lambda: number in self._items or number >= self._end)
            return self._items.get(number)

    async def drop(self, number: int) -> None:
        self._items[number] = None  # a task that is run again, since its node is lost, is not to wait for it


class Worker:
    """In an actor: takes items from the shelf, gives back what the Work makes of them."""

    def __init__(self, shelf: Any):
        self.shelf = shelf
        self.work: Work | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import ray

        number = int(batch["item"][0])
        item = ray.get(self.shelf.take.remote(number))
        result, error = b"", ""
        if item is not None:
            try:
                if self.work is None:
                    quiet_libraries()
                    self.work = ray.get(ray.get(self.shelf.begin.remote())[0])()
                result = self.work(item)
            except PdadaptError as problem:  # asking again would not help
                error = str(problem)
        return {"number": [number], "result": np.array([result], dtype=object), "error": [error]}


class Cluster:
    """A Ray cluster of which this machine is a node (Ray Data does not work through Ray's client, ray 2.60)."""

    def __init__(self, address: str = "ray"):
        """address: `ray` for the one that runs here (or RAY_ADDRESS), ray://HOST:6379 for one by its head's address.

        Raises RunError when there is none, or Ray is not installed.
        """
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        try:
            import ray
            import ray.data
        except ImportError:
            raise RunError("--cluster needs Ray; run `pip install 'pdadapt[ray]'`.") from None
        if not ray.is_initialized():
            where = address.removeprefix("ray").removeprefix("://") or "auto"
            if TOKEN.exists():
                os.environ.setdefault("RAY_AUTH_MODE", "token")
            try:
                if where != "auto":
                    _reach(where)
                ray.init(address=where, logging_level=logging.ERROR, log_to_driver=False)
            except (OSError, RuntimeError, ValueError):
                raise RunError(
                    f"--cluster {address}: no Ray cluster answers; make this machine a node of one (`ray start`), or "
                    "hand it this command (`ray job submit`)."
                ) from None
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        self.ray = ray
        self.address = ray.get_runtime_context().gcs_address
        self.kind = "GPU" if ray.cluster_resources().get("GPU") else "CPU"

    def slots(self) -> int:
        """For how many workers there is room now."""
        return max(1, int(self.ray.cluster_resources().get(self.kind, 1)))

    def map(self, make: Callable[[], Work], items: Iterable[Any]) -> Iterator[tuple[Any, bytes]]:
        """(item, what the Work made of it) of each, in whatever order they come back.

        make: makes the Work of a worker, once. items: taken as they are wanted; their length hint says how many there
        are at most. Raises ModelError for what a worker says is wrong, and RunError when the cluster fails.
        """
        ray = self.ray
        affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        here = affinity(ray.get_runtime_context().get_node_id(), soft=False)
        begin = ray.put(make)
        shelf = ray.remote(num_cpus=0, scheduling_strategy=here)(Shelf).remote([begin])
        most = operator.length_hint(items)
        rows = ray.data.from_items([{"item": number} for number in range(most)], override_num_blocks=max(1, most))
        results = rows.map_batches(
            Worker,
            batch_size=1,
            fn_constructor_args=(shelf,),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=None, initial_size=max(1, min(self.slots(), most))),
            num_gpus=1 if self.kind == "GPU" else None,
            num_cpus=1 if self.kind == "CPU" else None,
        )
        arrived: queue.Queue[Any] = queue.Queue()
        pulling = threading.Thread(target=_pull, args=(results, arrived), daemon=True)
        pulling.start()
        left = iter(items)
        waiting: dict[int, Any] = {}
        count, more, most_slots = 0, True, self.slots()
        try:
            while more or waiting:
                most_slots = max(most_slots, self.slots())  # what a lost worker was at waits for its return
                room = max(0, AHEAD * most_slots - len(waiting))
                taken = list(itertools.islice(left, room)) if more else []
                for item in taken:
                    waiting[count] = item
                    shelf.put.remote(count, item)
                    count += 1
                if more and len(taken) < room:
                    more = False
                    shelf.end.remote(count)
                    continue
                row = arrived.get()
                if isinstance(row, BaseException):
                    raise RunError(
                        f"The cluster failed ({' '.join(str(row).split())[-300:]}); what is finished is kept: the same "
                        "command goes on."
                    )
                if row["error"]:
                    raise ModelError(row["error"])
                if row["number"] in waiting:
                    shelf.drop.remote(row["number"])
                    yield waiting.pop(row["number"]), row["result"]
            pulling.join()  # the workers leave
        finally:
            ray.kill(shelf)


def encode_on(
    cluster: Cluster, name: str, student: dict[str, Any], batch_tokens: int | None, shards: Iterable[ShardTexts]
) -> Iterator[tuple[ShardTexts, bytes]]:
    """Shards of an index (engines.exact), made by a student: what load_student is told, name and settings."""
    files = model_files(name)
    yield from cluster.map(functools.partial(EncodeShard, name, student, batch_tokens, files), shards)


def _reach(address: str) -> None:
    """Raises OSError or ValueError when nobody listens there: Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), PATIENCE).close()


def _pull(results: Any, arrived: queue.Queue[Any]) -> None:
    """Rows as they come, in a thread; last an error, if there is one, or that nothing more comes."""
    try:
        for table in results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for row in table.to_pylist():
                arrived.put(row)
        arrived.put(EOFError("it ended early"))
    except BaseException as error:
        arrived.put(error)


class ClusterTeachers:
    """Teachers that are asked by all workers; nothing is loaded here."""

    def __init__(self, cluster: Cluster, settings: TeacherSettings, tasks: Collection[Task]):
        self.cluster = cluster
        self.settings = settings
        self.tasks = tasks

    def __call__(self, task: Task) -> Any:
        """One that is elsewhere already, or whose labels are imported, is asked from here."""
        model = model_of(self.settings, task)
        kind = teacher_kind(model)
        if kind in ("endpoint", "imported"):
            return Teachers(self.settings, self.tasks)(task)
        tasks = [each for each in self.tasks if model_of(self.settings, each) == model]  # as Teachers loads it
        files = model_files(model.model)
        changes: dict[str, Any] = {
            **model.model_dump(),
            "kind": kind,
            "dtype": dtype_here(model.dtype),
        }  # as in the key
        for each in tasks:
            asked = asked_of(self.settings, each)
            if asked.prompt.endswith(".txt"):
                files[f"{each}.txt"] = Path(asked.prompt).read_bytes()
            changes[each] = asked.model_copy(update={"model": None, "kind": "auto"})
        settings = self.settings.model_copy(update=changes)
        return TaskPrompt(self.cluster, functools.partial(AnswerChunk, settings, tasks, task, files))

    def free(self) -> None:
        """There is nothing to give back."""


class TaskPrompt:
    def __init__(self, cluster: Cluster, make: Callable[[], Work]):
        self.cluster = cluster
        self.make = make

    def score_points(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        for chunk, result in self.cluster.map(self.make, chunks):
            yield list(zip(chunk.asked, json.loads(result), strict=True))

    score_pairs = score_points


class AnswerChunk:
    """A teacher in a worker."""

    def __init__(self, settings: TeacherSettings, tasks: Collection[Task], task: Task, files: Files):
        """settings: of one model for all the tasks, which it is loaded for."""
        with unpacked(files) as folder:
            changes: dict[str, Any] = {"model": placed(settings.model, folder)}
            for each in tasks:
                if f"{each}.txt" in files:
                    changes[each] = asked_of(settings, each).model_copy(update={"prompt": str(folder / f"{each}.txt")})
            teacher = Teachers(settings.model_copy(update=changes), tasks)(task)
        self.score = score_of(teacher, task)

    def __call__(self, chunk: Chunk) -> bytes:
        """JSON: the scores of the chunk's questions, in their order."""
        scores = dict(itertools.chain.from_iterable(self.score([chunk])))
        return json.dumps([scores[question] for question in chunk.asked]).encode()


class EncodeShard:
    """A student in a worker."""

    def __init__(self, name: str, student: dict[str, Any], batch_tokens: int | None, files: Files):
        with unpacked(files) as folder:
            self.model = load_student(placed(name, folder), **student)
        self.batch_tokens = batch_tokens

    def __call__(self, shard: ShardTexts) -> bytes:
        return encode_shard(self.model, shard, self.batch_tokens)


def model_files(model: str) -> Files:
    """Of a model that is a folder or a file here, which other machines may not have."""
    source = resolve_model(model)
    if not source.is_local or model.startswith("package:"):
        return {}
    folder = Path(source.path)
    return {f"model/{file.relative_to(folder)}": file.read_bytes() for file in source.files()}


def placed(model: str, folder: Path) -> str:
    """The model's name where its files, if there are some, are unpacked into this folder."""
    own = folder / "model"
    if not own.is_dir():
        return model
    return str(own / Path(model).name) if model.endswith(".gguf") else str(own)


@contextlib.contextmanager
def unpacked(files: Files) -> Iterator[Path]:
    """A folder that holds them, for as long as a model is loaded from it."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        yield Path(folder)
