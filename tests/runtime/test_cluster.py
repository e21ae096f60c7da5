"""Labeling and encoding on a real Ray cluster of two nodes on this machine."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from pdadapt.cli.main import app
from pdadapt.data.load import load_dataset
from pdadapt.errors import ModelError
from pdadapt.labeling import ask
from pdadapt.labeling.ask import ChunkStream
from pdadapt.labeling.exchange import read_label_rows
from pdadapt.models.source import resolve_model
from pdadapt.models.transfer import read_model_files, unpack_files, unpacked_model
from pdadapt.pipeline import adapt
from pdadapt.runtime.progress import Progress
from pdadapt.runtime.ray_cluster import RayCluster, WorkQueue
from pdadapt.settings.recipes import load_recipe
from pdadapt.teachers.base import Chunk, Point
from pdadapt.teachers.remote import ClusterTeachers

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def nodes():
    """A cluster of two nodes, of one slot each."""
    from ray.cluster_utils import Cluster as LocalCluster

    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    local = LocalCluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    local.add_node(num_cpus=1)
    ray.init(address=local.address, logging_level="ERROR", log_to_driver=False)
    yield local
    ray.shutdown()
    local.shutdown()


@pytest.mark.ray
def test_labels_and_index_of_a_cluster_are_those_of_one_process(nodes, tiny_recipe, beir, tmp_path, monkeypatch):
    monkeypatch.setattr(ask, "QUESTIONS_PER_CHUNK", 12)
    recipe = load_recipe(str(tiny_recipe), {"train.steps": 1, "iterations": 2})
    dataset = load_dataset(str(beir))
    adapt(recipe, dataset, tmp_path / "one", Progress())
    adapt(recipe, dataset, tmp_path / "many", Progress(), cluster=RayCluster())
    one, many = (list(read_label_rows(tmp_path / name / "labels.sqlite")) for name in ("one", "many"))
    assert one == many
    for name in ("candidates.run", "lists.jsonl", "labels.json", "checkpoint/model.safetensors", "test.run"):
        for number in (1, 2):
            file = f"iteration-{number}/{name}"
            assert (tmp_path / "many" / file).read_bytes() == (tmp_path / "one" / file).read_bytes(), file


class Watching(Progress):
    """Calls back when answers of a task have come."""

    def __init__(self, answered):
        super().__init__()
        self.answered = answered

    @contextlib.contextmanager
    def task(self, name, total, unit):
        with super().task(name, total, unit) as advance:

            def advanced(units, **changes):
                advance(units, **changes)
                if units and not changes.get("earlier"):
                    self.answered(name.removeprefix("iteration 1: "))

            yield advanced


@pytest.mark.subprocess
@pytest.mark.ray
def test_cluster_survives_a_killed_worker_and_a_lost_node(nodes, tiny_recipe, beir, tmp_path, monkeypatch):
    """While points are labeled a worker gets SIGKILL; while pairs are, a node is taken away."""
    monkeypatch.setattr(ask, "QUESTIONS_PER_CHUNK", 12)
    recipe = load_recipe(str(tiny_recipe), {"train.steps": 1})
    dataset = load_dataset(str(beir))
    adapt(recipe, dataset, tmp_path / "one", Progress())
    node = nodes.add_node(num_cpus=1)
    lost = []

    def answered(task):
        if task == "label points" and not lost:
            raylets = [str(one.all_processes["raylet"][0].process.pid) for one in nodes.list_all_nodes()]
            find = ["pgrep", "-P", ",".join(raylets), "-f", "ray::.*MapWorker"]
            workers = subprocess.run(find, capture_output=True, text=True, check=True)
            os.kill(int(workers.stdout.split()[0]), signal.SIGKILL)
            lost.append("worker")
        if task == "label pairs" and lost == ["worker"]:
            nodes.remove_node(node)
            lost.append("node")

    adapt(recipe, dataset, tmp_path / "many", Watching(answered), cluster=RayCluster())
    assert lost == ["worker", "node"]
    one, many = (list(read_label_rows(tmp_path / name / "labels.sqlite")) for name in ("one", "many"))
    assert one == many


def test_cluster_queue_gives_none_for_dropped_work():
    async def taken_twice():
        work_queue = WorkQueue([None])
        await work_queue.put(0, "item")
        first = await work_queue.take(0)
        await work_queue.drop(0)
        return first, await asyncio.wait_for(work_queue.take(0), 5)

    assert asyncio.run(taken_twice()) == ("item", None)


@pytest.mark.ray
def test_cluster_worker_error_is_one_sentence(nodes, tiny_recipe, beir, tmp_path):
    recipe, corpus = load_recipe(str(tiny_recipe)), load_dataset(str(beir)).corpus
    teachers = ClusterTeachers(RayCluster(), recipe.teacher.model_copy(update={"max_length": 5}), ["point"], corpus)
    chunk = Chunk([Point("wheel", "rim")], [Point("wheel", "rim")])
    with pytest.raises(ModelError, match=r"max_length=5 leaves no room") as caught:
        list(teachers("point").score_points(ChunkStream(iter([chunk]), 1)))
    assert "Traceback" not in str(caught.value)
    settings = recipe.teacher.model_copy(update={"model": "imported:people"})
    imported = ClusterTeachers(RayCluster(), settings, ["point"], corpus)("point")
    assert list(imported.score_points([chunk])) == [[(Point("wheel", "rim"), None)]], "asked from here"
    bm25 = ClusterTeachers(RayCluster(), recipe.teacher.model_copy(update={"model": "bm25"}), ["point"], corpus)
    point = Point(corpus["d0"].text, corpus["d0"].contents)
    [[(_, score)]] = bm25("point").score_points([Chunk([point], [point])])
    assert score > 0


@pytest.mark.parametrize("address", ["spark", "Ray", "ray:", "ray://host", "ray://host:abc", "ray://:1", "ray://h:1/x"])
def test_cluster_option_refuses_other_addresses(address, tmp_path):
    result = CliRunner().invoke(
        app, ["adapt", "--corpus", "demo", "--cluster", address, "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 2 and "is not the address of a cluster. Write ray" in " ".join(result.output.split())


def test_cluster_sends_a_model_without_its_other_files(t5, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(t5, folder)
    (folder / "other.Q4.gguf").touch()
    (folder / ".env").write_text("KEY=secret", encoding="utf-8")
    files = read_model_files(str(folder))
    assert "model/model.safetensors" in files and not any("env" in name for name in files)
    with unpack_files(files) as folder_there:
        assert resolve_model(unpacked_model(str(folder), folder_there)).gguf_file is None
        assert unpacked_model("org/name", folder_there / "elsewhere") == "org/name"


@pytest.mark.subprocess
@pytest.mark.ray
def test_cluster_that_does_not_answer_is_an_error(tiny_recipe, beir, tmp_path):
    command = [sys.executable, "-m", "pdadapt", "adapt", "--corpus", beir, "--recipe", tiny_recipe]
    command += ["--out", tmp_path / "out", "--cluster", "ray://127.0.0.1:9"]
    process = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)
    assert process.returncode == 1 and "no Ray cluster answers" in process.stderr, process.stderr
    assert "Traceback" not in process.stderr and not (tmp_path / "out").exists()
