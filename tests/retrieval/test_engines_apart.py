"""Engines in environments of their own: fast-plaid, colbert-ai, and what watches their workers."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pdadapt.data.load import load_dataset
from pdadapt.errors import ModelError
from pdadapt.retrieval.engines import environment
from pdadapt.retrieval.engines.load import load_engine
from pdadapt.retrieval.search import index_corpus, retrieve
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import RetrieveSettings

QUICK = 20  # seconds, in which a worker that is watched has ended; it would wait for ever


CLOSE = 0.02  # of a score, that two bits a dimension may cost


@pytest.mark.parametrize("name", ["plaid", "colbert"])
def test_a_compressed_index_finds_what_exact_search_finds(name, engine_environment, stanford, beir, tmp_path):
    engine_environment(name)
    dataset = load_dataset(str(beir))
    rankings, seen = [], Seen()
    for settings, k in ((RetrieveSettings(), 20), (RetrieveSettings(engine=name), 3)):
        engine = load_engine(str(stanford), {}, [], settings)
        folder = tmp_path / settings.engine
        index_corpus(engine, dataset.corpus, folder, seen)
        rankings.append(retrieve(engine, dataset.corpus, dataset.test_queries, folder, k, seen))
    exact, found = rankings
    for query_id, ranked in found.items():
        true, best = dict(exact[query_id]), [score for _, score in exact[query_id][:3]]
        assert [true[doc_id] for doc_id, _ in ranked] == pytest.approx(best, rel=CLOSE)
        assert [score for _, score in ranked] == pytest.approx(best, rel=CLOSE)
    assert seen.units == [20, 6 * 20, 20, 6 * 20]
    index = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.suffix in (".npy", ".pt")}
    index_corpus(engine, dataset.corpus, folder, Progress())
    assert index and {file: file.stat().st_mtime_ns for file in index} == index
    assert not list(folder.glob("shard-*"))


class Seen(Progress):
    """What a task was told that is done, one number a task."""

    def __init__(self):
        self.units = []

    def task(self, name, total, unit):
        from contextlib import contextmanager

        @contextmanager
        def count():
            self.units.append(0)

            def advance(done, **_):
                self.units[-1] += done

            yield advance

        return count()


def test_colbert_index_left_by_a_kill_is_made_anew(engine_environment, stanford, beir, tmp_path):
    engine_environment("colbert")
    dataset = load_dataset(str(beir))
    engine = load_engine(str(stanford), {}, [], RetrieveSettings(engine="colbert"))
    index_corpus(engine, dataset.corpus, tmp_path, Progress())
    expected = retrieve(engine, dataset.corpus, dataset.test_queries, tmp_path, 3, Progress())
    (tmp_path / "colbert.done").unlink()
    (tmp_path / "index" / "centroids.pt").write_bytes(b"")  # killed in k-means
    (tmp_path / "index" / "0.metadata.json").write_text("", encoding="utf-8")  # and in its last stage
    index_corpus(engine, dataset.corpus, tmp_path, Progress())
    assert retrieve(engine, dataset.corpus, dataset.test_queries, tmp_path, 3, Progress()).keys() == expected.keys()


def test_an_interrupt_ends_a_worker_and_its_processes(tmp_path, monkeypatch):
    numbers = tmp_path / "numbers"
    worker(tmp_path, f"open({str(numbers)!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    (tmp_path / "worker.py").rename(tmp_path / "colbert_worker.py")
    (tmp_path / "colbert" / "bin").mkdir(parents=True)
    (tmp_path / "colbert" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "colbert" / "ready").touch()
    monkeypatch.setenv("PDADAPT_CACHE", str(tmp_path))
    monkeypatch.setattr(environment, "WORKERS", tmp_path)

    def interrupt(units):
        deadline = time.monotonic() + QUICK
        while not (numbers.exists() and numbers.read_text()) and time.monotonic() < deadline:
            time.sleep(0.1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        environment.run_worker("colbert", [], tmp_path / "log", interrupt)
    deadline = time.monotonic() + QUICK
    while alive(int(numbers.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_engine_reports_a_missing_index_in_its_own_words(engine_environment, stanford, beir, tmp_path):
    engine_environment("plaid")
    dataset = load_dataset(str(beir))
    engine = load_engine(str(stanford), {}, [], RetrieveSettings(engine="plaid"))
    with pytest.raises(ModelError, match=r"The plaid engine stopped with code 1: .*index"):
        retrieve(engine, dataset.corpus, dataset.test_queries, tmp_path, 3, Progress())


def test_bits_that_colbert_cannot_pack_are_refused(stanford, engine_environment):
    engine_environment("colbert")
    with pytest.raises(
        ModelError, match=r"retrieve\.bits=4: colbert-ai needs a multiple of 32 dimensions, .* has 16\. Lower"
    ):
        load_engine(str(stanford), {}, [], RetrieveSettings(engine="colbert", bits=4))


@pytest.mark.parametrize("name", ["plaid", "colbert"])
def test_without_its_environment_an_engine_says_which_command_builds_it(name, stanford, tmp_path, monkeypatch):
    monkeypatch.setenv("PDADAPT_CACHE", str(tmp_path / "none"))
    with pytest.raises(ModelError, match=f"Run `pdadapt setup-{name}`"):
        load_engine(str(stanford), {}, [], RetrieveSettings(engine=name))


@pytest.mark.slow
def test_an_environment_that_cannot_be_built_is_said_and_not_taken_for_ready(tmp_path, monkeypatch):
    monkeypatch.setenv("PDADAPT_CACHE", str(tmp_path))
    monkeypatch.setattr(environment, "requirements", lambda engine: [str(tmp_path / "no-such-package")])
    with pytest.raises(ModelError, match=f"could not be built in {tmp_path / 'plaid'}: ERROR: .*no-such-package"):
        environment.set_up("plaid")
    assert not (tmp_path / "plaid" / "ready").exists()


WORKER = """
import multiprocessing, os, sys, time
sys.path.insert(0, {workers!r})
import reporting

def child():
    {child}

if __name__ == "__main__":
    done = reporting.start()
    done(1)
    multiprocessing.get_context("spawn").Process(target=child).start()
    time.sleep(600)
"""


def worker(tmp_path, child):
    script = tmp_path / "worker.py"
    script.write_text(WORKER.format(workers=str(environment.WORKERS), child=child), encoding="utf-8")
    return [sys.executable, str(script)]


@pytest.mark.subprocess
def test_a_worker_ends_when_a_process_it_waits_for_has_died(tmp_path):
    found = subprocess.run(worker(tmp_path, "os._exit(3)"), capture_output=True, text=True, timeout=QUICK)
    assert (found.returncode, found.stdout) == (1, "1\n")
    assert "died with code 3" in found.stderr


@pytest.mark.subprocess
def test_a_worker_and_its_processes_end_with_the_command_that_started_them(tmp_path):
    numbers = tmp_path / "numbers"
    child = f"open({str(numbers)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    start = f"import subprocess; subprocess.run({worker(tmp_path, child)!r})"
    deadline = time.monotonic() + QUICK
    with subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.DEVNULL) as parent:
        while not (numbers.exists() and numbers.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        parent.kill()
    process = int(numbers.read_text())
    while alive(process):
        assert time.monotonic() < deadline + QUICK
        time.sleep(0.1)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
