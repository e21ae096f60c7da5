"""The whole loop at 10 K, 100 K and 1 M short passages: `python benchmarks/scale.py --plot docs/scale.svg`.

The student is a tiny BERT, the teacher answers at once, so that what grows here is pdadapt. Each size runs in a process
of its own, whose peak of memory (resident, and of it the pages of files that are mapped) and seconds by stage are
printed; rows of earlier sizes are kept in --out.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path

FIRST, MIDDLE, LAST = ("ba", "ke", "li", "mo", "nu", "ro", "sa"), "bdfgklmnprst", ("a", "en", "is")
WORDS = [f"{a}{b}{c}" for a in FIRST for b in MIDDLE for c in LAST]
PASSAGE, QUERY = 10, 3  # words


def make_data(folder: Path, documents: int, queries: int) -> None:
    """A BEIR folder; a tenth of the queries have judgments."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    chosen = random.Random(documents)
    with open(folder / "corpus.jsonl", "w", encoding="utf-8") as file:
        for number in range(documents):
            text = " ".join(chosen.choices(WORDS, k=PASSAGE)) + f" {number}"
            file.write(json.dumps({"_id": f"d{number}", "title": "", "text": text}) + "\n")
    with open(folder / "queries.jsonl", "w", encoding="utf-8") as file:
        for number in range(queries):
            file.write(json.dumps({"_id": f"q{number}", "text": " ".join(chosen.choices(WORDS, k=QUERY))}) + "\n")
    rows = [f"q{number}\td{chosen.randrange(documents)}\t1" for number in range(0, queries, 100)]
    text = "\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n"
    (folder / "qrels" / "test.tsv").write_text(text, encoding="utf-8")


def make_student(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: number for number, word in enumerate([*special, *"0123456789", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names).save_pretrained(folder)


class AtOnce:
    """A teacher that answers at once."""

    def score_points(self, chunks):
        for chunk in chunks:
            yield [(question, hash_score(question)) for question in chunk.asked]

    score_pairs = score_points


def hash_score(question) -> float:
    return (sum(map(len, question)) * 2654435761 % 1000) / 500 - 1


def peak_of(process: subprocess.Popen) -> dict[str, float]:
    """MiB: the highest of what the process holds for itself, and of the pages of files that it maps."""
    found = {"own": 0.0, "files": 0.0}
    while process.poll() is None:
        try:
            text = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        except OSError:
            break
        rows = dict(line.split(":", 1) for line in text.splitlines())
        for name, key in (("own", "RssAnon"), ("files", "RssFile")):
            if key in rows:
                found[name] = max(found[name], int(rows[key].split()[0]) / 1024)
        time.sleep(0.05)
    return found


def run(folder: Path, kind: str) -> None:
    """The loop, in this process."""
    from pdadapt import pipeline, preflight
    from pdadapt.data.load import load_dataset
    from pdadapt.labeling import stage
    from pdadapt.runtime.progress import Progress, quiet_libraries
    from pdadapt.settings.schema import Recipe

    quiet_libraries()

    class Instead:
        def __init__(self, *_):
            self.free = lambda: None

        def __call__(self, task):
            return AtOnce()

    stage.Teachers = Instead
    recipe = Recipe.model_validate(
        {
            "student": {"model": str(folder / "student"), "kind": kind, "query_length": 8, "document_length": 24},
            "teacher": {"model": "http://127.0.0.1:9/v1#instead"},
            "retrieve": {"k": 100},
            "train": {"steps": 100, "n_way": 16, "query_length": 8, "document_length": 24, "save_steps": 50},
            "evaluate": {"general": False},
        }
    )
    preflight.check_teacher = lambda *_: None
    pipeline.adapt(recipe, load_dataset(str(folder / "data")), folder / "run", Progress())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    sizes = [10_000, 100_000, 1_000_000]
    parser.add_argument("--documents", type=lambda text: int(float(text)), nargs="+", default=sizes)
    parser.add_argument("--student", choices=["dense", "colbert"], default="dense")
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=Path("runs/scale"))
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run(options.run, options.student)
        return
    rows = {}
    for documents in options.documents:
        folder = options.out / f"{options.student}-{documents}-{options.queries}"
        if not (folder / "measured.json").exists():
            make_data(folder / "data", documents, options.queries)
            make_student(folder / "student")
            started = time.monotonic()
            process = subprocess.Popen([sys.executable, __file__, "--run", str(folder), "--student", options.student])
            peak = peak_of(process)
            assert process.wait() == 0
            stages = stage_seconds(folder / "run" / "timings.jsonl")
            found = {"minutes": (time.monotonic() - started) / 60, "peak": peak, "stages": stages}
            (folder / "measured.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
        rows[documents] = json.loads((folder / "measured.json").read_text(encoding="utf-8"))
        print(documents, json.dumps(rows[documents]), flush=True)
    if options.plot:
        plot(rows, options.plot)


def stage_seconds(file: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        stage = row["task"].removeprefix("iteration 1: ")
        found[stage] = round(found.get(stage, 0.0) + row["seconds"], 1)
    return found


def plot(rows: dict[int, dict], file: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "scale"
    from matplotlib import pyplot

    figure, (memory, seconds) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    sizes = list(rows)
    memory.plot(sizes, [rows[size]["peak"]["own"] for size in sizes], "o-", label="its own")
    memory.plot(sizes, [rows[size]["peak"]["files"] for size in sizes], "o--", label="mapped files")
    memory.axhline(2048, color="grey", linewidth=1)
    memory.set_ylabel("peak memory, MiB")
    memory.set_ylim(bottom=0)
    for stage in rows[sizes[0]]["stages"]:
        seconds.plot(sizes, [rows[size]["stages"].get(stage, 0) for size in sizes], "o-", label=stage)
    seconds.set_yscale("log")
    seconds.set_ylabel("seconds")
    for axes in (memory, seconds):
        axes.set_xscale("log")
        axes.set_xlabel("documents (20,000 queries)")
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    main()
