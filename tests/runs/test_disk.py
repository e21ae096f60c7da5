"""A disk that fills up, and one that cannot be written to: one sentence, and nothing that was there is lost."""

import os
import subprocess
import sys

import pytest

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
RESULTS = ("lists.jsonl", "test.run", "train.jsonl", "checkpoint/model.safetensors")


@pytest.fixture
def small_disk(tmp_path):
    """A disk in memory, of a size that can be changed; only root can have one."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True).returncode

    if os.geteuid() or mount("size=64k"):
        pytest.skip("mounting a tmpfs needs root")
    yield folder, lambda options: mount(f"remount,{options}")
    subprocess.run(["umount", folder], check=True)


def adapt(tiny_recipe, beir, out):
    command = ["adapt", "--corpus", beir, "--recipe", tiny_recipe, "--out", out]
    return subprocess.run(
        [sys.executable, "-m", "pdadapt", *map(str, command)], capture_output=True, text=True, env=ENVIRONMENT
    )


@pytest.mark.subprocess
def test_a_full_disk_is_said_at_every_stage_and_with_more_room_the_run_goes_on(small_disk, tiny_recipe, beir, tmp_path):
    folder, remount = small_disk
    full = 0
    for kilobytes in (64, 300, 700, 1_100, 1_600, 100_000):
        remount(f"size={kilobytes}k")
        process = adapt(tiny_recipe, beir, folder / "run")
        if process.returncode == 0:
            break
        assert process.returncode == 1, process.stderr
        said = process.stderr.strip().splitlines()[-1]
        assert "disk is full" in said and said.endswith("same command to continue."), process.stderr
        assert "Traceback" not in process.stderr
        full += 1
    assert process.returncode == 0 and full >= 3
    assert adapt(tiny_recipe, beir, tmp_path / "roomy").returncode == 0
    for name in RESULTS:
        here, there = folder / "run" / "iteration-1" / name, tmp_path / "roomy" / "iteration-1" / name
        assert here.read_bytes() == there.read_bytes(), name


@pytest.mark.subprocess
def test_a_folder_that_cannot_be_written_to_is_said(small_disk, tiny_recipe, beir):
    folder, remount = small_disk
    remount("size=64k")
    (folder / "thesis.tex").write_text("precious", encoding="utf-8")
    remount("ro")
    process = adapt(tiny_recipe, beir, folder / "run")
    remount("rw")
    assert process.returncode == 1 and "cannot be written to" in process.stderr, process.stderr
    assert [file.name for file in folder.iterdir()] == ["thesis.tex"]
