"""How a run stands, seen from outside: running in another process, stopped, finished."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from pdadapt.cli.main import app
from pdadapt.reporting.status import progress
from pdadapt.runs.folder import RunFolder
from pdadapt.runtime.progress import Progress

GOLDEN = "status.txt"
AT_WORK = """
import sys, time
from pathlib import Path
from pdadapt.runtime.progress import Progress
from pdadapt.runs.folder import RunFolder

run = RunFolder(Path(sys.argv[1]))
with run.locked():
    progress = Progress()
    progress.state, progress.prefix = run.path / "progress.json", "iteration 2: "
    if sys.argv[2] == "telling":
        with progress.task("train", 20, "steps") as advance:
            advance(2, earlier=True)
            time.sleep(2.5)
            advance(4, note="loss 0.4")
            print("in", flush=True)
            time.sleep(60)
    print("in", flush=True)
    time.sleep(60)
"""


def status_of(run):
    said = CliRunner().invoke(app, ["status", str(run)], env={"COLUMNS": "140"})
    assert said.exit_code == 0, said.output
    return said.output


def golden_status(run):
    """The status in a terminal of 80 columns, wherever the run is."""
    said = CliRunner().invoke(app, ["status", str(run)], env={"COLUMNS": "80"})
    assert said.exit_code == 0, said.output
    return said.output.replace(str(run), "RUN")


def files(folder):
    return {str(file): file.read_bytes() if file.is_file() else b"" for file in folder.rglob("*")}


@pytest.fixture
def at_work(small_run):
    """Starts another process at the run; ends it with SIGKILL."""
    processes = []

    def start(how):
        process = subprocess.Popen(
            [sys.executable, "-c", AT_WORK, str(small_run), how],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        processes.append(process)
        assert process.stdout.readline() == "in\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_finished_run_says_what_came_of_it(small_run):
    before = files(small_run)
    said = status_of(small_run)
    assert said.startswith(f"Finished. Checkpoint: {small_run}/iteration-1/checkpoint\n")
    for part in (
        "small: 20 documents; 2 queries to adapt on.",
        "Labels of iteration 1: 1,234 points (1,000 not in the store before), 3 pairs; the answer flips",
        "Loss of iteration 1: 0.5000 at step 20 (kd 0.3750  pair 0.1250).",
        "Agreement with the teacher on held-out queries, iteration 1: pair accuracy 0.500 → 0.750 (p = 0.031).",
        "On the general set, iteration 1: nDCG@10 0.812 → 0.812 (p = 0.031).",
        "│ nDCG@10 │ 0.5000 │  0.7500 │ +0.2500 ± 0.2000 │ 0.031 │            1/1/1 │",
        "Helped: nDCG@10 0.500 → 0.750 (p = 0.031).",
    ):
        assert part in said, part
    assert files(small_run) == before


def test_the_whole_status_in_80_columns(small_run, golden):
    golden(GOLDEN).check("finished", golden_status(small_run))
    (small_run / "metrics.json").unlink()
    golden(GOLDEN).check("stopped after a task", golden_status(small_run))
    for file in (small_run / "iteration-1").iterdir():
        file.unlink()
    (small_run / "iteration-1" / "candidates.run").touch()
    golden(GOLDEN).check("waiting for labels", golden_status(small_run))
    golden(GOLDEN).check_names(["finished", "stopped after a task", "waiting for labels"])


@pytest.mark.subprocess
def test_a_run_that_goes_on_elsewhere_says_where_how_far_and_how_fast(small_run, at_work):
    process = at_work("telling")
    said = status_of(small_run)
    where = f"process {process.pid} on {socket.gethostname()}"
    how = r"iteration 2: train, 6 of 20 steps, [\d.]+ (steps/s|s each), about \d.* left\.\n"
    assert re.match(rf"Running \({re.escape(where)}\): {how}", said), said
    assert "Helped" not in said  # that was the run before
    process.kill()
    process.wait()
    said = status_of(small_run)
    assert said.startswith(f"Stopped at iteration 2: train, 6 of 20 steps. Resume with: pdadapt {small_run} telling")
    with RunFolder(small_run).locked():  # looking kept no lock
        pass


@pytest.mark.subprocess
def test_status_ignores_the_progress_of_a_stopped_process(small_run, at_work):
    at_work("telling").kill()
    time.sleep(0.2)
    process = at_work("silently")
    said = status_of(small_run)
    assert f"Running (process {process.pid}" in said and "no progress recorded yet." in said
    assert "6 of 20" not in said


def test_status_of_an_unfinished_run_says_where_it_stopped(small_run):
    (small_run / "metrics.json").unlink()
    assert status_of(small_run).startswith("Stopped after index. Resume with: the same `pdadapt adapt`\n")
    (small_run / "timings.jsonl").unlink()
    for file in (small_run / "iteration-1").iterdir():
        file.unlink()
    assert status_of(small_run).splitlines() == [
        "Stopped before its first task. Resume with: the same `pdadapt adapt`",
        "small",
    ]


@pytest.mark.subprocess
def test_a_folder_that_is_no_run_is_said_and_left_alone(tmp_path):
    process = subprocess.run(
        [sys.executable, "-m", "pdadapt", "status", str(tmp_path)], capture_output=True, text=True, env=os.environ
    )
    assert process.returncode == 1
    assert process.stderr == f"Error: {tmp_path} holds no run. Give the folder of a `pdadapt adapt`.\n"
    assert not list(tmp_path.iterdir())


def test_a_state_tells_rate_time_left_and_silence():
    state = {"task": "label points", "unit": "prompts", "done": 1500, "total": 12_000, "earlier": 500}
    state |= {"seconds": 100.0, "updated": 1_000.0}
    assert progress(state, 1_010) == "label points, 1,500 of 12,000 prompts, 10.0 prompts/s, about 17.5 min left."
    assert progress(state, 1_400).endswith("about 17.5 min left, no news for 6.7 min.")
    assert progress(state | {"done": 500}, 1_000) == "label points, 500 of 12,000 prompts."
    assert progress(state | {"done": 12_000}, 1_000) == "label points, 12,000 of 12,000 prompts, 115.0 prompts/s."


def read(file):
    return json.loads(file.read_text(encoding="utf-8"))


def test_progress_leaves_its_state_now_and_then_and_nothing_at_the_end(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("pdadapt.runtime.progress.time", SimpleNamespace(monotonic=lambda: now[0], time=time.time))
    view, file = Progress(Console(quiet=True)), tmp_path / "progress.json"
    view.state, view.prefix = file, "iteration 1: "
    with view.task("train", 10, "steps") as advance:
        begun = read(file)
        assert begun["pid"] == os.getpid() and begun["host"] == socket.gethostname()
        assert (begun["task"], begun["unit"], begun["done"], begun["total"]) == ("iteration 1: train", "steps", 0, 10)
        now[0] = 1.9
        advance(3, note="loss 0.5")
        assert read(file) == begun
        now[0] = 2.1
        advance(1)
        assert (read(file)["done"], read(file)["note"], read(file)["seconds"]) == (4, "loss 0.5", 2.1)
        now[0] = 2.2
        advance(6)
        assert read(file)["done"] == 10
    assert [entry.name for entry in tmp_path.iterdir()] == ["progress.json"]
    view.clear_state()
    assert not list(tmp_path.iterdir())


def test_progress_state_that_cannot_be_written_stops_no_work(tmp_path):
    view = Progress(Console(quiet=True))
    view.state = tmp_path / "nowhere" / "progress.json"
    with view.task("train", 1, "steps") as advance:
        advance(1)
    view.clear_state()
    assert view.tasks == 1
