"""A function mapped over items on a Ray cluster: one worker per GPU, or per CPU if there is no GPU.

Workers take items from a queue and return bytes. Ray Data keeps the pool of workers and replaces lost ones.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import operator
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pdadapt.errors import ModelError, PdadaptError, RunError
from pdadapt.runtime.progress import quiet_libraries

AUTH_TOKEN_FILE = Path.home() / ".ray" / "auth_token"  # clusters want it since ray 2.60
CONNECT_TIMEOUT = 5.0  # seconds to wait for an address to answer
ITEMS_PER_WORKER = 4  # items that wait in the queue for each worker

RayTask = Callable[[Any], bytes]


class WorkQueue:
    """The queue of the workers: the function that they begin with, and their items by number."""

    def __init__(self, begin: list[Any]):
        """begin: a reference to what makes a RayTask. It stands in a list, so that Ray does not resolve it."""
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
        """Say that no item has this number or a higher one."""
        async with self._changed:
            self._end = number
            self._changed.notify_all()

    async def take(self, number: int) -> Any:
        """Wait for the item and return it; None when there will be none, or it was dropped."""
        async with self._changed:
            await self._changed.wait_for(lambda: number in self._items or number >= self._end)
            return self._items.get(number)

    async def drop(self, number: int) -> None:
        self._items[number] = None  # a task that runs again after its node was lost must not wait


class RayWorker:
    """An actor that takes items from the queue and returns the results of its RayTask."""

    def __init__(self, work_queue: Any):
        self.work_queue = work_queue
        self.work: RayTask | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import ray

        number = int(batch["item"][0])
        item = ray.get(self.work_queue.take.remote(number))
        result, error = b"", ""
        if item is not None:
            try:
                if self.work is None:
                    quiet_libraries()
                    self.work = ray.get(ray.get(self.work_queue.begin.remote())[0])()
                result = self.work(item)
            except PdadaptError as problem:  # a second try would not help
                error = str(problem)
        return {"number": [number], "result": np.array([result], dtype=object), "error": [error]}


class RayCluster:
    """A Ray cluster. This machine must be one of its nodes: Ray Data does not work through Ray's client (ray 2.60)."""

    def __init__(self, address: str = "ray"):
        """address: `ray` for the local cluster (or RAY_ADDRESS), ray://HOST:6379 for the cluster with this head node.

        Raises RunError when no cluster answers, or Ray is not installed.
        """
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        try:
            import ray
            import ray.data
        except ImportError:
            raise RunError("--cluster needs Ray. Run `pip install 'pdadapt[ray]'`.") from None
        if not ray.is_initialized():
            where = address.removeprefix("ray").removeprefix("://") or "auto"
            if AUTH_TOKEN_FILE.exists():
                os.environ.setdefault("RAY_AUTH_MODE", "token")
            try:
                if where != "auto":
                    _check_reachable(where)
                ray.init(address=where, logging_level=logging.ERROR, log_to_driver=False)
            except (OSError, RuntimeError, ValueError):
                raise RunError(
                    f"--cluster {address}: no Ray cluster answers. Make this machine a node of one (`ray start`), "
                    "or submit this command to one (`ray job submit`)."
                ) from None
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        self.ray = ray
        self.address = ray.get_runtime_context().gcs_address
        self.kind = "GPU" if ray.cluster_resources().get("GPU") else "CPU"

    def slots(self) -> int:
        """The number of workers that the cluster has room for now."""
        return max(1, int(self.ray.cluster_resources().get(self.kind, 1)))

    def map(self, make: Callable[[], RayTask], items: Iterable[Any]) -> Iterator[tuple[Any, bytes]]:
        """Yield (item, result) for each item, in the order in which results arrive.

        make: makes the RayTask of a worker; each worker calls it once. items: taken when a worker has room; their
        length hint is the most that there can be. Raises ModelError for an error of a worker, and RunError when the
        cluster fails.
        """
        ray = self.ray
        affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        here = affinity(ray.get_runtime_context().get_node_id(), soft=False)
        begin = ray.put(make)
        work_queue = ray.remote(num_cpus=0, scheduling_strategy=here)(WorkQueue).remote([begin])
        most = operator.length_hint(items)
        rows = ray.data.from_items([{"item": number} for number in range(most)], override_num_blocks=max(1, most))
        results = rows.map_batches(
            RayWorker,
            batch_size=1,
            fn_constructor_args=(work_queue,),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=None, initial_size=max(1, min(self.slots(), most))),
            num_gpus=1 if self.kind == "GPU" else None,
            num_cpus=1 if self.kind == "CPU" else None,
        )
        arrived: queue.Queue[Any] = queue.Queue()
        pulling = threading.Thread(target=_collect_rows, args=(results, arrived), daemon=True)
        pulling.start()
        left = iter(items)
        waiting: dict[int, Any] = {}
        count, more, most_slots = 0, True, self.slots()
        try:
            while more or waiting:
                most_slots = max(most_slots, self.slots())  # the item of a lost worker waits for its return
                room = max(0, ITEMS_PER_WORKER * most_slots - len(waiting))
                taken = list(itertools.islice(left, room)) if more else []
                for item in taken:
                    waiting[count] = item
                    work_queue.put.remote(count, item)
                    count += 1
                if more and len(taken) < room:
                    more = False
                    work_queue.end.remote(count)
                    continue
                row = arrived.get()
                if isinstance(row, BaseException):
                    raise RunError(
                        f"The cluster failed ({' '.join(str(row).split())[-300:]}). Finished "
                        "work is kept. Run the same command to continue."
                    )
                if row["error"]:
                    raise ModelError(row["error"])
                if row["number"] in waiting:
                    work_queue.drop.remote(row["number"])
                    yield waiting.pop(row["number"]), row["result"]
            pulling.join()  # the workers leave
        finally:
            ray.kill(work_queue)


def _check_reachable(address: str) -> None:
    """Raises OSError or ValueError when nobody listens there. Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), CONNECT_TIMEOUT).close()


def _collect_rows(results: Any, arrived: queue.Queue[Any]) -> None:
    """Put the rows into `arrived` as they come, in a thread; an error, or EOFError, comes last."""
    try:
        for table in results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for row in table.to_pylist():
                arrived.put(row)
        arrived.put(EOFError("it ended early"))
    except BaseException as error:
        arrived.put(error)
