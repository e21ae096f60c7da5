"""kill -9 at random moments of the whole loop: `python tests/kills.py --kills 40`, or Ctrl-C, with `--signal INT`.

Each time the same command must finish, to the labels and checkpoints of an undisturbed run, byte for byte; and no
question may be put to a teacher again but those of the batch that was in flight. Ctrl-C must end the program within
two seconds, and say how to go on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
STARTED = 2.0  # seconds in which Python and the command line have surely begun
RESULTS = (
    "labels.json",
    "bm25.run",
    "candidates.run",
    "lists.jsonl",
    "train.jsonl",
    "agreement.json",
    "held-out.jsonl",
    "test.run",
    "general.run",
)


def make_inputs(folder: Path) -> list[str]:
    """A tiny corpus, models and recipe under `folder`, with everything that the loop can do in it; the command."""
    from tiny_models import make_encoder, make_llama
    from vocabulary import TOPICS

    (folder / "bert").mkdir(parents=True)
    encoder = make_encoder(folder / "bert")
    llama = make_llama(folder / "llama")
    corpus = folder / "data"
    (corpus / "qrels").mkdir(parents=True)
    chosen = random.Random(0)
    names = list(TOPICS)
    documents = [
        {"_id": f"d{i}", "title": "", "text": " ".join(chosen.choices(TOPICS[names[i % 4]].split(), k=12))}
        for i in range(60)
    ]
    queries = [
        {"_id": f"q{i}", "text": " ".join(chosen.choices(TOPICS[names[i % 4]].split(), k=3))} for i in range(230)
    ]
    for name, rows in (("corpus", documents), ("queries", queries)):
        (corpus / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    judged = [f"q{i}\td{j}\t1" for i in range(220, 230) for j in range(60) if j % 4 == i % 4]
    (corpus / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]), encoding="utf-8")
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"""
iterations: 2
student: {{model: {encoder}}}
teacher:
  model: {llama}
  max_length: 256
  batch_tokens: 1024
  pair: {{per_query: 2, window: 4}}
retrieve: {{k: 4, sources: [student, bm25], batch_tokens: 256}}
train: {{batch_size: 8, n_way: 4, steps: 30, learning_rate: 1.0e-3, save_steps: 5, check_steps: 10}}
evaluate: {{k: 10, resamples: 100}}
""",
        encoding="utf-8",
    )
    return ["adapt", "--corpus", str(corpus), "--recipe", str(recipe)]


def start(command: list[str], out: Path, asked: Path) -> subprocess.Popen[str]:
    arguments = [sys.executable, __file__, "--logged", str(asked), *command, "--out", str(out)]
    return subprocess.Popen(arguments, env=ENVIRONMENT, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def run_logged(asked: Path, arguments: list[str]) -> None:
    """The command line in this process; each batch that a teacher has answered becomes a line of `asked`."""
    from pdadapt.__main__ import main
    from pdadapt.runtime import interrupt

    interrupt.install_signal_handlers()  # as main does before it imports anything that takes its time
    try:
        from pdadapt.labeling import stage
    except interrupt.Stopped as stopped:
        interrupt.exit_at_once(stopped.args[0])

    plain = stage.ask_missing
    log = open(asked, "a", encoding="utf-8")  # noqa: SIM115
    log.write("begun\n")
    log.flush()

    def logged(questions, store, load, progress, name, journal):
        def load_logged():
            score = load()

            def answers(chunks):
                for batch in score(chunks):
                    texts = (hashlib.sha256(repr(question).encode()).hexdigest()[:16] for question, _ in batch)
                    log.write(" ".join([name.replace(" ", "-"), *texts]) + "\n")
                    log.flush()
                    yield batch

            return answers

        return plain(questions, store, load_logged, progress, name, journal)

    stage.ask_missing = logged
    sys.argv = ["pdadapt", *arguments]
    main()


def results(out: Path) -> dict[str, str]:
    """A hash of every result."""
    from pdadapt.labeling.exchange import read_label_rows

    files = [file for name in RESULTS for file in out.glob(f"iteration-*/{name}")] + [out / "queries.tsv"]
    files += [file for folder in out.glob("iteration-*/checkpoint") for file in folder.rglob("*") if file.is_file()]
    found = {str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)}
    labels = list(read_label_rows(out / "labels.sqlite"))
    found["labels"] = f"{len(labels)} {hashlib.sha256(repr(labels).encode()).hexdigest()}"
    return found


def asked_twice(asked: Path) -> tuple[int, int]:
    """Questions put to a teacher again; and those of them that were not in the last batch before a kill."""
    sessions = [part.strip().splitlines() for part in asked.read_text(encoding="utf-8").split("begun\n")[1:]]
    seen: Counter[str] = Counter()
    in_flight: set[str] = set()
    for batches in sessions:
        for batch in batches:
            task, *questions = batch.split()
            seen.update(f"{task} {question}" for question in questions)
        if batches:
            task, *questions = batches[-1].split()
            in_flight |= {f"{task} {question}" for question in questions}
    again = {question for question, times in seen.items() if times > 1}
    return len(again), len(again - in_flight)


def interrupt(process: subprocess.Popen[str], moment: float, number: signal.Signals) -> float:
    """Send the signal at that moment; seconds until the process has ended, which must be as it should."""
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    sent = time.monotonic()
    _, said = process.communicate()
    seconds = time.monotonic() - sent
    if number == signal.SIGKILL or process.returncode == 0:
        assert process.returncode in (0, -signal.SIGKILL), said
    elif process.returncode == -number:
        assert moment < STARTED, f"{moment}: {said}"  # Python itself was starting
    else:
        assert process.returncode == 128 + number and said.rstrip().endswith("same command to continue."), said
        assert "Traceback" not in said and seconds < 2, said
    return seconds


def last_task(out: Path) -> str:
    """The last task that ended in this run."""
    file = out / "timings.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return json.loads(lines[-1])["task"] if lines else "the start"


def main() -> None:
    if sys.argv[1:2] == ["--logged"]:
        run_logged(Path(sys.argv[2]), sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=["KILL", "INT", "TERM"], default="KILL")
    options = parser.parse_args()
    chosen = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        command = make_inputs(folder)
        began = time.monotonic()
        process = start(command, folder / "whole", folder / "whole.asked")
        assert process.wait() == 0, process.stderr and process.stderr.read()
        length = time.monotonic() - began
        expected = results(folder / "whole")
        print(f"undisturbed: {length:.1f} s, {len(expected)} results", flush=True)
        number = 0
        while number < options.kills:
            number += 1
            out, asked = folder / f"killed-{number}", folder / f"killed-{number}.asked"
            moment = chosen.uniform(0, length)
            process = start(command, out, asked)
            seconds = interrupt(process, moment, signal.Signals[f"SIG{options.signal}"])
            if process.returncode == 0:  # it had come to its end before
                shutil.rmtree(out)
                asked.unlink()
                length, number = moment, number - 1
                continue
            after = last_task(out)
            process = start(command, out, asked)
            _, said = process.communicate()
            assert process.returncode == 0, said
            again, wrongly = asked_twice(asked)
            found = results(out)
            different = [name for name in expected if found.get(name) != expected[name]]
            print(
                f"{number}: at {moment:.1f} s, after {after}, ended in {seconds:.2f} s; asked again: {again}; "
                f"{'the same bytes' if not different else f'DIFFERENT: {different}'}",
                flush=True,
            )
            assert not different and not wrongly and found.keys() == expected.keys()
    print(f"{options.kills} times SIG{options.signal}: the same command finished, to the same bytes")


if __name__ == "__main__":
    main()
