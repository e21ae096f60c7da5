"""Are queries that an LLM writes as good to adapt on as real ones?

    python benchmarks/queries.py --data FOLDER --work FOLDER --count 1000 --recipe paper [--teacher MODEL] [--set K=V]

FOLDER of the data is a corpus in BEIR layout with judged test queries and unlabeled others. The student is adapted
twice by the recipe: on queries that the teacher writes about the corpus, and on as many of the real ones. Leaves
queries.tsv under --work: the share of written queries that is fit to be kept, and nDCG@10 of both on the test queries,
against the base. What is there already is not made again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

MEASURE = "nDCG@10"


def pdadapt(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "pdadapt", *map(str, arguments)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--recipe", default="paper")
    parser.add_argument("--teacher")
    parser.add_argument("--examples", type=Path, help="A few real queries, of which the mix of kinds is learned.")
    parser.add_argument("--set", action="append", default=[], help="A setting, for all three commands.")
    options = parser.parse_args()
    shared = ["--recipe", options.recipe, *(word for setting in options.set for word in ("--set", setting))]
    shared += ["--teacher", options.teacher] if options.teacher else []
    examples = ["--examples", options.examples] if options.examples else []
    written = options.work / "written.jsonl"
    pdadapt("queries", options.data, "--out", written, "--count", options.count, *examples, *shared)
    report = json.loads(written.with_name("written.jsonl.report.json").read_text(encoding="utf-8"))
    fit = sum(ends.get("kept", 0) + ends.get("more than wanted", 0) for ends in report["kinds"].values())
    limit = ["--set", f"retrieve.max_queries={report['kept']}"]
    lines = ["\t".join(["queries", "number", "share kept", f"base {MEASURE}", "adapted", "change", "p"])]
    for name, given in (("written", ["--queries", written]), ("real", [])):
        out = options.work / name
        pdadapt("adapt", "--corpus", options.data, *given, "--out", out, *shared, *limit)
        metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
        found = metrics["measures"][MEASURE]
        comparison = found["comparisons"][-1]
        share = f"{fit / report['written']:.3f}" if name == "written" else ""
        means = [f"{found['means'][0]:.4f}", f"{found['means'][-1]:.4f}", f"{comparison['change']:+.4f}"]
        lines.append("\t".join([name, str(metrics["queries"]), share, *means, f"{comparison['p']:.4f}"]))
    (options.work / "queries.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
