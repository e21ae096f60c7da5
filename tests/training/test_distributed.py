"""Several processes learn what one does."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pdadapt.data.load import load_dataset
from pdadapt.errors import RunError
from pdadapt.runtime.locks import locked
from pdadapt.training import distributed

SCRIPT = Path(__file__).parents[1] / "training_script.py"


LAUNCHER = "-m torch.distributed.run --standalone --nproc-per-node={}"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[1])}


def run(processes, *arguments):
    launched = LAUNCHER.format(processes).split() if processes > 1 else []
    command = [sys.executable, *launched, *map(str, arguments)]
    process = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    return process


def compare(one, two):
    for name, expected in one.items():
        if name.endswith("key.bias"):
            continue  # softmax does not see it: its gradient is rounding noise, of which Adam makes whole steps
        torch.testing.assert_close(two[name], expected, rtol=0, atol=1e-5, msg=name)


@pytest.mark.subprocess
@pytest.mark.parametrize(
    "settings",
    [
        {"lambda_cl": 1.0, "in_batch_negatives": False, "pair_reduction": "sum"},
        {"lambda_cl": 1.0, "gradient_cache": True, "chunk_tokens": 64},
        {"lambda_cl": 1.0, "own_negatives": False},
    ],
    ids=["own negatives", "in-batch negatives, gradient cache", "in-batch negatives alone"],
)
def test_two_processes_learn_what_one_does(settings, stanford, beir, tmp_path):
    weights = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        run(processes, SCRIPT, stanford, beir, out, json.dumps(settings))
        weights.append(load_file(out / "checkpoint" / "model.safetensors"))
    word = "embeddings.word_embeddings.weight"
    assert (weights[0][word] - load_file(stanford / "model.safetensors")[f"bert.{word}"]).abs().max() > 1e-4
    compare(*weights)


@pytest.fixture
def many(beir, tmp_path):
    """The BEIR folder with 84 queries to adapt on, of which a quarter is enough to hold out."""
    folder = tmp_path / "many"
    shutil.copytree(beir, folder)
    rows = [json.loads(row) for row in (beir / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
    copies = [row | {"_id": f"{row['_id']}-{copy}"} for copy in range(6) for row in rows]
    test = load_dataset(str(beir)).test_queries
    kept = rows + [row for row in copies if row["_id"].partition("-")[0] not in test]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    return folder


@pytest.mark.subprocess
def test_the_whole_command_under_a_launcher(tiny_recipe, many, tmp_path):
    """Rank 0 retrieves, labels, writes and says whether to go on; the other waits for its files, and trains along."""
    changes = ["--set", "train.dropout=0", "--set", "train.steps=3", "--set", "student.dtype=float32"]
    changes += ["--set", "train.held_out=0.5", "--set", "train.checks=2", "--iterations", "2"]
    weights, said = [], []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        arguments = ["adapt", "--corpus", many, "--recipe", tiny_recipe, "--out", out, *changes]
        process = run(processes, "-m", "pdadapt", *arguments)
        assert (out / "iteration-1" / "agreement.json").exists()
        checks = (out / "iteration-1" / "checks.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(row)["step"] for row in checks] == [0, 2, 3]
        said.append(process.stdout)
        weights.append(load_file(out / "iteration-1" / "checkpoint" / "model.safetensors"))
    assert said[0].replace(str(tmp_path / "1"), str(tmp_path / "2")) == said[1]
    assert sorted(path.name for path in (tmp_path / "1").rglob("*")) == sorted(
        path.name for path in (tmp_path / "2").rglob("*")
    )
    compare(*weights)


@pytest.mark.subprocess
def test_two_machines_train_one_run(tiny_recipe, beir, tmp_path):
    """Two launchers, each of a machine of two processes, that share the run folder."""
    changes = ["--set", "train.dropout=0", "--set", "train.steps=3", "--set", "student.dtype=float32"]
    command = ["-m", "pdadapt", "adapt", "--corpus", beir, "--recipe", tiny_recipe, *changes, "--out"]
    run(1, *command, tmp_path / "one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    machines = []
    for number in (0, 1):
        launch = f"-m torch.distributed.run --nnodes=2 --nproc-per-node=2 --node-rank={number} "
        launch += f"--master-addr=127.0.0.1 --master-port={port}"
        arguments = [sys.executable, *launch.split(), *map(str, command), str(tmp_path / "two")]
        machines.append(subprocess.Popen(arguments, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True))
    for machine in machines:
        _, errors = machine.communicate(timeout=300)
        assert machine.returncode == 0, errors
    compare(
        *(load_file(tmp_path / name / "iteration-1" / "checkpoint" / "model.safetensors") for name in ("one", "two"))
    )


@pytest.mark.slow
def test_ranks_do_not_wait_for_a_lost_rank_0(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(distributed, "LOST_PATIENCE", 0.1)
    monkeypatch.setattr(distributed, "START_PATIENCE", 0.3)
    file = tmp_path / "lists.jsonl"
    with pytest.raises(RunError, match="Rank 0, which retrieves and labels, is not at"):
        distributed.wait_until(file.exists, tmp_path)
    polled = []

    def done():
        polled.append(1)
        return len(polled) > 100  # a second, ten times as long as it waits for one that is gone

    with locked(tmp_path):
        distributed.wait_until(done, tmp_path)
    with pytest.raises(RunError, match="is not at"):
        distributed.wait_until(file.exists, tmp_path)
