"""Adapt a retriever to your own documents and queries, then compare it with the one before.

    python examples/adapt_own_corpus.py docs.jsonl queries.txt runs/mine

Without arguments it takes the demo corpus. The settings are small, so that it ends within minutes without a GPU.
"""

import sys
from pathlib import Path

from pdadapt import adapt, load_dataset, load_recipe

SETTINGS = {"retrieve.max_queries": 8, "train.steps": 2, "train.batch_size": 4, "evaluate.general": False}


def main(corpus: str = "demo", queries: str | None = None, out: str = "runs/example") -> None:
    dataset = load_dataset(corpus, Path(queries) if queries else None)
    result = adapt(dataset, load_recipe("demo", SETTINGS), out)
    print(result.verdict.sentence)
    for name, measure in result.measures.items():
        before, after = measure.means[0], measure.means[-1]
        print(f"{name}: {before:.4f} before, {after:.4f} after, p = {measure.comparisons[-1].p:.3f}")
    print("Use this checkpoint:", result.checkpoint)


if __name__ == "__main__":
    main(*sys.argv[1:])
