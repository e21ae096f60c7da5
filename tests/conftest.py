"""Fixtures: tiny real models, a tiny corpus, a recipe for them, a run's folder. No network, no downloads."""

from __future__ import annotations

import atexit
import gc
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["IR_DATASETS_HOME"] = tempfile.mkdtemp()  # read as ir_datasets is imported

import pytest
from golden_files import FOLDER, GoldenFile
from vocabulary import TOPICS

gc.disable()  # until the tests are collected; a process that only hands them out makes no garbage to speak of
atexit.register(shutil.rmtree, os.environ["IR_DATASETS_HOME"], ignore_errors=True)


def pytest_addoption(parser):
    parser.addoption("--golden", action="store_true", help="write the golden files under tests/golden")


def pytest_collection_finish():  # of each process that runs tests
    """Never look for garbage among what was imported and collected: it stays to the end."""
    gc.freeze()
    gc.enable()


def pytest_configure(config):
    if config.getoption("--golden") and config.getoption("numprocesses", None):
        raise pytest.UsageError("--golden writes files that tests share; leave out --numprocesses")


@pytest.fixture
def golden(request) -> Callable[[str], GoldenFile]:
    """A golden file by its path below tests/golden."""
    return lambda path: GoldenFile(FOLDER / path, write=request.config.getoption("--golden"))


@pytest.fixture(autouse=True)
def _few_threads():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_limits():
    """What one test found out about memory is not remembered by the next."""
    from pdadapt.models.token_budget import batch_limits

    batch_limits.keep_in(None)


# Fixtures import tiny_models late: it imports torch and transformers, for which the process that only hands tests out
# would wait too.
@pytest.fixture(scope="session", params=[True, False], ids=["tied", "untied"])
def t5(request, tmp_path_factory) -> Path:
    from tiny_models import make_t5

    return make_t5(tmp_path_factory.mktemp("t5"), request.param)


@pytest.fixture(scope="session")
def t5_untied(tmp_path_factory) -> Path:
    from tiny_models import make_t5

    return make_t5(tmp_path_factory.mktemp("t5"), tied=False)


@pytest.fixture(scope="session")
def llama(tmp_path_factory) -> Path:
    from tiny_models import make_llama

    return make_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def encoder(tmp_path_factory) -> Path:
    from tiny_models import make_encoder

    return make_encoder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def cross_encoder(tmp_path_factory) -> Path:
    from tiny_models import make_cross_encoder

    return make_cross_encoder(tmp_path_factory.mktemp("cross"))


@pytest.fixture(scope="session")
def stanford(tmp_path_factory) -> Path:
    from tiny_models import make_stanford

    return make_stanford(tmp_path_factory.mktemp("stanford"))


@pytest.fixture(scope="session")
def engine_environment() -> Callable[[str], Path]:
    """Makes sure of an engine's environment, for which several GB may be downloaded, or skips."""
    from pdadapt.retrieval.engines.environment import environment_folder, set_up

    def get(engine: str) -> Path:
        if not (environment_folder(engine) / "ready").exists() and "PDADAPT_BUILD_ENVIRONMENTS" not in os.environ:
            pytest.skip(f"no environment of {engine}: run `pdadapt setup-{engine}`, or set PDADAPT_BUILD_ENVIRONMENTS")
        return set_up(engine)

    return get


@pytest.fixture(scope="session")
def beir(tmp_path_factory) -> Path:
    """20 documents on 4 topics, 12 unlabeled queries, 6 test queries with judgments, in BEIR layout."""
    folder = tmp_path_factory.mktemp("data") / "tiny"
    (folder / "qrels").mkdir(parents=True)
    rng = random.Random(0)
    documents, queries, qrels = [], [], ["query-id\tcorpus-id\tscore"]
    names = list(TOPICS)
    for number in range(20):
        words = TOPICS[names[number % 4]].split()
        text = " ".join(rng.choices(words, k=12)) + "."
        documents.append({"_id": f"d{number}", "title": names[number % 4] if number % 2 else "", "text": text})
    for number in range(18):
        words = TOPICS[names[number % 4]].split()
        queries.append({"_id": f"q{number}", "text": " ".join(rng.choices(words, k=3))})
        if number >= 12:
            qrels += [f"q{number}\td{i}\t{1 + i % 2}" for i in range(20) if i % 4 == number % 4]
    for name, rows in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "qrels" / "test.tsv").write_text("\n".join(qrels) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory, encoder, llama) -> Path:
    """A recipe that runs the whole loop with the tiny models in seconds."""
    file = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    file.write_text(
        f"""
student: {{model: {encoder}}}
teacher:
  model: {llama}
  dtype: float32
  max_length: 256
  batch_tokens: 256
  pair: {{per_query: 4, window: 4}}
retrieve: {{k: 8, batch_tokens: 64}}
train: {{batch_size: 4, n_way: 6, steps: 12, learning_rate: 1.0e-3, save_steps: 1, held_out: 0}}
evaluate: {{k: 10, resamples: 200, general: false}}
""",
        encoding="utf-8",
    )
    return file


@pytest.fixture
def small_run(tmp_path) -> Path:
    """A finished run's folder, written by hand: two queries adapted on, three tested on, one iteration."""
    folder = tmp_path / "runs" / "small"
    (folder / "iteration-1").mkdir(parents=True)
    comparison = {"base": 0, "system": 1, "p": 0.0312, "p_holm": 0.0312, "p_t": 0.05, "p_t_holm": 0.05}
    comparison |= {"change": 0.25, "interval": [0.05, 0.45], "wins": 1, "ties": 1, "losses": 1}
    measured = {"nDCG@10": {"means": [0.5, 0.75], "comparisons": [comparison]}}
    labels = {"points": 1234, "points_asked": 1000, "pairs": 3, "pair_prompts_asked": 6, "flip_rate": 0.5}
    labels |= {"points_unanswered": 0}
    labels |= {"position_bias": -1.5, "disagreement": 1 / 3}
    documents = [{"doc_id": "d1", "title": "Rims", "text": "true the rim", "grade": 2}]
    documents += [{"doc_id": "d2", "title": "", "text": "bleed the brake", "grade": None}]
    changed = {"query_id": "q1", "query": "how to true a wheel", "before": 0.25, "after": 1.0}
    metrics = {
        "corpus": "small",
        "summary": "small: 20 documents; 2 queries to adapt on.",
        "documents": 20,
        "queries": 2,
        "test_queries": 3,
        "iteration": 1,
        "checkpoint": f"{folder}/iteration-1/checkpoint",
        "labels": [labels],
        "agreement": [{"pair accuracy": measured["nDCG@10"]}],
        "general": [{"nDCG@10": measured["nDCG@10"] | {"means": [0.8125, 0.8125]}}],
        "measures": measured,
        "most_changed": {"gained": [changed | {"documents": [documents[::-1], documents]}], "lost": []},
        "verdict": {"outcome": "helped", "sentence": "Helped: nDCG@10 0.500 → 0.750 (p = 0.031)."},
    }
    lists = [
        {"query_id": "q7", "doc_ids": ["d1", "d2"], "points": [2.0, None], "pairs": [[0, 1, 0.7]]},
        {"query_id": "q8", "doc_ids": ["d1", "d2", "d3"], "points": [3.0, 1.0, 0.5], "pairs": [[0, 1, 4], [1, 2, -2]]},
    ]
    losses = [{"step": 1, "loss": 0.75, "kd": 0.5, "pair": 0.25}, {"step": 20, "loss": 0.5, "kd": 0.375, "pair": 0.125}]
    timings = [
        {"task": f"iteration {i}: label points", "units": 600, "unit": "prompts", "seconds": 60.0} for i in (1, 1)
    ]
    timings.append({"task": "index", "units": 20, "unit": "documents", "seconds": 40.0})
    texts = {
        "recipe.yaml": "student: {model: tiny/student}\nteacher: {model: tiny/teacher}\n",
        "run.json": json.dumps({"corpus": "small", "corpus_sha256": "cafe", "versions": {"pdadapt": "0.1.0"}}),
        "metrics.json": json.dumps(metrics),
        "timings.jsonl": "".join(json.dumps(row) + "\n" for row in timings),
        "queries.tsv": "query_id\tmeasure\tbase\titeration-1\n"
        "q1\tnDCG@10\t0.25\t1.0\nq2\tnDCG@10\t0.5\t0.5\nq3\tnDCG@10\t0.75\t0.7\n",
        "iteration-1/labels.json": json.dumps(labels),
        "iteration-1/agreement.json": json.dumps(metrics["agreement"][0]),
        "iteration-1/lists.jsonl": "".join(json.dumps(row) + "\n" for row in lists),
        "iteration-1/train.jsonl": "".join(json.dumps(row) + "\n" for row in losses),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def kill_while_saving():
    """Runs a training command, kills it with SIGKILL about each of its first saves, then lets it end."""

    def run(command, states, kills=3):
        chosen, arguments = random.Random(0), list(map(str, command))
        for _ in range(kills):
            with subprocess.Popen(
                list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            ) as process:
                known, deadline = set(states.glob("*")), time.monotonic() + 120
                while set(states.glob("*")) <= known and process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.001)
                time.sleep(chosen.random() * 0.1)
                process.kill()
                assert process.wait() == -signal.SIGKILL, process.stderr.read().decode()
        process = subprocess.run(arguments, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr

    return run


def asked_at_once(questions):
    """As one chunk."""
    from pdadapt.labeling.ask import Questions

    return Questions([(questions, len(questions))], lambda chunk: chunk)
