"""The run folder: the only place that knows its paths. Stages leave a marker when done; a lock keeps others out.

RUN/
  recipe.yaml           the resolved settings
  run.json              what the run was made from: hashes of corpus and queries, versions
  labels.sqlite         what the teacher said (labels.py)
  queries.jsonl         queries that an LLM wrote, where the corpus brings none (generation/), and its .report.json
  student/              the student before training
  iteration-0/          base: test.run, general.run and its index; bm25.run: BM25's candidates, for all iterations
  iteration-N/          candidates.run, lists.jsonl, train.jsonl, checkpoint/, agreement.json,
                        held-out.jsonl, test.run, general.run
  metrics.json          base against adapted; queries.tsv: query by query; report.html
  timings.jsonl         what every task took; progress.json: the one at hand; memory.json: batches.Limits
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import mmap
import os
import shutil
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urldefrag

import yaml
from pydantic import ValidationError

from pdadapt.errors import DataError, RunError, reason
from pdadapt.lines import is_utf8
from pdadapt.locks import locked
from pdadapt.recipe import Recipe
from pdadapt.shard_states import name_shards_at_work, unmerged
from pdadapt.trec import read_records, read_score

DECIMALS = 6  # of a score in a run file
Ranked = list[tuple[str, float]]  # (doc_id, score), best first
Ranking = dict[str, Ranked]  # by query_id
Change = tuple[str, Any, Any]  # dotted key, old, new

# Settings, of speed and memory most of them, which may differ when a run goes on: they change no finished artefact.
FREE = (
    "teacher.batch_tokens",
    "teacher.concurrency",
    "teacher.endpoints",
    "teacher.compile",
    "teacher.device_map",
    "retrieve.batch_tokens",
    "train.chunk_tokens",
    "train.gradient_cache",
    "train.gradient_checkpointing",
    "train.save_steps",
    "train.report_to",
    "evaluate.general",
)
WRITING = "generate."  # settings of queries.jsonl, which is compared by its own report
HASHED = {  # parts of a run's origin of which hashes are kept, which say nothing to a person
    "corpus_sha256": "the corpus",
    "queries_sha256": "the queries",
    "test_queries_sha256": "the test queries",
    "relevant_sha256": "the training qrels",
    "examples_sha256": "the examples",
    "qrels_sha256": "the training qrels",
    "teachers.point.prompt": "the prompt for points",
    "teachers.pair.prompt": "the prompt for pairs",
}
LABEL_KEYS = "teachers."  # a run's origin holds the keys of its labels, which follow from settings, prompts and weights
UNCOMPARED = ("versions", "source")  # parts of a run's origin that may differ when it goes on
BEGINNINGS = (
    "lock",
    "recipe.yaml",
    "run.json",
    "queries.jsonl",
    "labels.sqlite",
    "report.html",
    "timings.jsonl",
    "progress.json",
    "memory.json",
)  # what a run that was killed as it began may have left

Stage = Literal["student", "retrieve", "label", "train", "evaluate"]
STAGES: tuple[Stage, ...] = get_args(Stage)
READ_BY: dict[str, Stage] = {  # the first stage that reads a setting, or a part of a run's origin; else: student
    "retrieve": "retrieve",
    "retriever": "retrieve",
    "queries_sha256": "retrieve",
    "label_store": "label",
    "teacher": "label",
    "teachers": "label",
    "relevant_sha256": "label",
    "train.n_way": "label",
    "train.list": "label",
    "train.temperature": "label",
    "train.prior_precision": "label",
    "train": "train",
    "iterations": "train",
    "evaluate": "evaluate",
    "test_queries_sha256": "evaluate",
}
KEPT = {  # of the first iteration, when this stage begins anew
    "label": ("candidates.run",),
    "train": ("candidates.run", "lists.jsonl", "labels.json", "asked.jsonl"),
}


class RunFolder:
    def __init__(self, path: Path):
        self.path = path
        self.recipe_file = path / "recipe.yaml"
        self.run_file = path / "run.json"
        self.metrics_file = path / "metrics.json"
        self.values_file = path / "queries.tsv"
        self.written_queries = path / "queries.jsonl"
        self.student = path / "student"

    def iteration(self, number: int) -> Path:
        """The folder of one iteration; 0 is the base student."""
        return self.path / f"iteration-{number}"

    def checkpoint(self, number: int) -> Path:
        """The student after `number` iterations."""
        return self.student if number == 0 else self.iteration(number) / "checkpoint"

    def store(self, recipe: Recipe) -> Path:
        """The label store: the run's own, or the one that the recipe shares."""
        return Path(recipe.label_store) if recipe.label_store else self.path / "labels.sqlite"

    def locked(self, shared: bool = False) -> contextlib.AbstractContextManager[None]:
        """Keep other processes out of this run; shared: let in those that share it too."""
        return locked(self.path, shared, name_shards_at_work)

    def claim(
        self, recipe: Recipe, origin: dict[str, Any], restart_from: Stage | None = None, staged: bool = True
    ) -> str:
        """Begin a run here, or make sure that the one begun here is the same; returns what `check` says.

        What a restart makes anew is removed.
        """
        said, outdated = self.check(recipe, origin, restart_from, staged)
        removed = self.path / "removed"
        for number, path in enumerate(outdated):
            removed.mkdir(exist_ok=True)
            os.replace(path, removed / f"{number}-{os.getpid()}-{path.name}")  # at once, so that a kill halves nothing
        shutil.rmtree(removed, ignore_errors=True)
        write_atomic(self.recipe_file, dump(recipe))
        if said or not self.run_file.exists():
            write_atomic(self.run_file, json.dumps(origin, indent=2) + "\n")
        return said

    def check(
        self, recipe: Recipe, origin: dict[str, Any], restart_from: Stage | None = None, staged: bool = True
    ) -> tuple[str, list[Path]]:
        """Whether a run of these settings can begin or go on here; nothing is touched.

        origin: what the run is made from besides the recipe. `versions` of packages, settings of memory (FREE), and
        whatever no stage that has begun here reads, may differ. staged: else every stage reads every setting.
        Returns a sentence on what differs, if anything, and what to remove: where something else differs, the results
        of restart_from and of later stages. Raises RunError, naming it, when that stage is not as early as need be.
        """
        if not is_utf8(self.path):
            raise RunError(f"{self.path}: no model can be saved there, for the name is not UTF-8; give another --out.")
        if not self.run_file.exists():
            if self.path.is_dir() and any(not entry.name.startswith(BEGINNINGS) for entry in self.path.iterdir()):
                raise RunError(f"{self.path} is not empty and holds no run; give another --out.")
            if restart_from:
                raise RunError(f"--restart-from: {self.path} holds no run to restart; leave it out, or check --out.")
            return "", []
        changes = self._changes(json.loads(recipe.model_dump_json()), origin)
        stages = {key: read_by(key) if staged else STAGES[0] for key, *_ in changes}
        stale = [change for change in changes if self._has_begun(stages[change[0]])]
        if not stale:
            if changes:
                return f"Settings that no stage has read yet are changed: {name_changes(changes)}.", []
            same = "No setting that a stage has read is changed, so nothing is made anew."
            return (same if restart_from else ""), []
        earliest = min((stages[key] for key, *_ in stale), key=STAGES.index)
        if restart_from is None or STAGES.index(restart_from) > STAGES.index(earliest):
            anew = (
                f"make stage {earliest} and those after it anew with --restart-from {earliest}, or " if staged else ""
            )
            raise RunError(
                f"{self.path} holds a run with other settings: {name_changes(stale, staged)}; {anew}give another --out "
                f"(labels serve again where teacher and prompts are the same: --set label_store={self.path}/"
                "labels.sqlite)."
            )
        outdated = self.outputs(restart_from)
        if any(stages[key] == "evaluate" for key, *_ in stale):  # measures of the base are outdated too
            measured = self.outputs("evaluate")
            outdated += [path for path in measured if not {path, *path.parents} & set(outdated)]
        if restart_from != "evaluate" and (shards := unmerged(self.path)):
            raise RunError(
                f"{self.path} has shards whose labels would go ({', '.join(file.stem for file in shards)}); take them "
                f"in first: pdadapt labels merge {self.path}"
            )
        return f"Made anew from stage {restart_from}, since {name_changes(stale)}.", outdated

    def _has_begun(self, stage: Stage) -> bool:
        """Whether the stage, or one after it, has left something, be it half done."""
        return any(path.name != "report.html" and path.suffix != ".part" for path in self.outputs(stage))

    def outputs(self, stage: Stage) -> list[Path]:
        """What this stage and those after it have left here, the last made first."""
        folders = sorted(self.path.glob("iteration-*"), key=lambda folder: -int(folder.name.split("-")[1]))
        found = [self.path / "report.html", self.metrics_file, self.values_file]
        if stage == "evaluate":
            found += [folder / name for folder in folders for name in ("test.run", "agreement.json")]
        elif stage in KEPT:
            found += [folder for folder in folders if folder.name not in ("iteration-0", "iteration-1")]
            found += [entry for entry in self.iteration(1).glob("*") if entry.name not in KEPT[stage]]
        else:
            found += folders
        if stage == STAGES[0]:
            of_reranker = ("model", "trainer", "candidates.run", "index")
            found += [self.student, *(self.path / name for name in of_reranker)]
        return [path for path in dict.fromkeys(found) if path.exists()]

    def _changes(self, wanted: dict[str, Any], origin: dict[str, Any]) -> list[Change]:
        """What differs from the run begun here, but for what may. Raises RunError when that cannot be told."""
        found, begun = read_settings(self.run_file), read_settings(self.recipe_file)
        if ("reranker" in found) != ("reranker" in origin):
            raise RunError(f"{self.path} holds a run of another command; give another --out.")
        if "corpus_sha256" in origin and "corpus_sha256" not in found:
            raise RunError(f"{self.path} holds a run of another version (run.json); give another --out.")
        version = found.get("versions", {}).get("pdadapt", "another version")
        changes = differences(with_defaults(begun, f"{self.path} (begun by pdadapt {version})"), wanted)
        named = {key.rpartition(".")[2] for key, *_ in changes if key.startswith("teacher.")}
        changes += [
            change
            for change in differences(found, {**origin, **{key: found.get(key) for key in UNCOMPARED}})
            if not (change[0].startswith(LABEL_KEYS) and change[0].rpartition(".")[2] in named)  # it is said already
        ]
        changes = [change for change in changes if change[0] not in FREE and not change[0].startswith(WRITING)]
        return [
            (key, old, new)
            for key, old, new in changes
            if key != "iterations" or (new < old and self.iteration(new + 1).exists())
            if not (key.endswith(".model") and _served_alike(old, new))
        ]


def system(number: int) -> str:
    """What the student after so many iterations is called where students stand side by side."""
    return f"iteration-{number}" if number else "base"


def _served_alike(old: str | None, new: str | None) -> bool:
    """Whether one model is meant, served at two addresses."""
    (url, name), (other_url, other_name) = urldefrag(old or ""), urldefrag(new or "")
    return url.startswith("http") and other_url.startswith("http") and name == other_name


def check_place(path: Path) -> None:
    """Raises RunError when a file stands where the folder of this path should."""
    above = next(parent for parent in (*path.parents, Path()) if parent.exists())
    if not above.is_dir():
        raise RunError(f"{path} cannot be made, for {above} is a file; give another place.")


def read_settings(path: Path) -> dict[str, Any]:
    """What a run's YAML or JSON file holds, by key. Raises RunError when it is damaged."""
    try:
        found = (json.loads if path.suffix == ".json" else yaml.safe_load)(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        said = reason(error)
        raise RunError(f"{path.parent} holds a damaged run ({path.name}: {said}); give another folder.") from None
    if not isinstance(found, dict):
        raise RunError(f"{path.parent} holds a damaged run ({path.name}: no settings); give another folder.")
    return found


def dump(recipe: Recipe) -> str:
    """As YAML, every setting."""
    text: str = yaml.safe_dump(json.loads(recipe.model_dump_json()), sort_keys=False, allow_unicode=True)
    return text


def read_by(key: str) -> Stage:
    """The first stage that reads this setting, or this part of a run's origin."""
    return READ_BY.get(key) or READ_BY.get(key.split(".")[0], STAGES[0])


def name_changes(changes: Iterable[Change], staged: bool = False) -> str:
    """staged: with the stage that each invalidates, and all after it."""

    def name(key: str, old: Any, new: Any) -> str:
        if key in HASHED or isinstance(old, dict) or isinstance(new, dict):
            return f"{HASHED.get(key, key)} changed"
        return f"{key} was {old!r}, now {new!r}"

    return "; ".join(name(*change) + (f" (stage {read_by(change[0])})" if staged else "") for change in changes)


def with_defaults(tree: Any, run: str) -> dict[str, Any]:
    """A recipe of an earlier version with the settings that came since. Raises RunError when it is none any more."""
    try:
        filled: dict[str, Any] = json.loads(Recipe.model_validate(tree).model_dump_json())
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, problem["loc"])) or "recipe.yaml" for problem in error.errors())
        raise RunError(
            f"{run} has settings that this version does not know ({wrong}): finish it with that version, or give "
            "another --out."
        ) from None
    return filled


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[Change]:
    """Where two trees differ."""
    found: list[Change] = []
    for key in {**old, **new}:
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append((prefix + key, a, b))
    return found


def write_atomic(path: Path, text: str | Iterable[str]) -> None:
    """Write a file, or its lines, so that it is there whole or not at all, even after kill -9."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "w", encoding="utf-8", errors="backslashreplace") as file:  # of a path that is no UTF-8
        file.writelines([text] if isinstance(text, str) else text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that takes its name only when whole; an unfinished one from before is removed."""
    temporary = path.with_name(path.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise RunError(f"{path} cannot be made ({error.strerror}); give another folder.") from None
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    mask = os.umask(0)
    os.umask(mask)
    for file in temporary.rglob("*"):
        file.chmod((0o777 if file.is_dir() else 0o666) & ~mask)  # safetensors writes for its user alone
    shutil.rmtree(path, ignore_errors=True)
    os.replace(temporary, path)


def write_run(path: Path, rankings: Iterable[tuple[str, Ranked]], tag: str) -> None:
    """A TREC run file: query_id Q0 doc_id rank score tag."""
    lines = (
        f"{query_id} Q0 {doc_id} {rank} {score:.{DECIMALS}f} {tag}\n"
        for query_id, ranked in rankings
        for rank, (doc_id, score) in enumerate(ranked, 1)
    )
    write_atomic(path, lines)


def in_order(ranked: Ranked) -> Ranked:
    """As trec_eval orders documents: by their scores in single precision, and of equal ones the greater id first."""
    scores = array("f", (score for _, score in ranked))
    if all(before > after for before, after in itertools.pairwise(scores)):
        return ranked
    order = sorted(range(len(ranked)), key=lambda i: (scores[i], ranked[i][0]), reverse=True)
    return [ranked[i] for i in order]


def as_written(ranked: Ranked) -> Ranked:
    """As read_run has it again when write_run has written it."""
    return in_order([(doc_id, round(score, DECIMALS)) for doc_id, score in ranked])


def read_run(path: Path) -> Ranking:
    """The rankings of a run file (trec.read_records), in trec_eval's order.

    Raises DataError, with file and line, when it is not one.
    """
    ranking: Ranking = {}
    for query_id, doc_id, value, where in read_records(path, "ranking", []):
        ranking.setdefault(query_id, []).append((doc_id, read_score(value, where)))
    for query_id, ranked in ranking.items():
        counts = Counter(doc_id for doc_id, _ in ranked)
        if twice := next((doc_id for doc_id, times in counts.items() if times > 1), None):
            raise DataError(f"{path}: query {query_id!r} ranks document {twice!r} twice; keep the first of the two.")
    return {query_id: in_order(ranked) for query_id, ranked in ranking.items()}


class RunFile(Mapping[str, Ranked]):
    """The rankings of a run file that write_run wrote, each read from it when asked for."""

    def __init__(self, path: Path):
        self.path = path
        self.sizes: dict[str, int] = {}
        """How many documents each query has."""
        self._starts: dict[str, int] = {}
        with open(path, "rb") as file:
            self._file = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else io.BytesIO()
        start = 0
        for query_id, lines in itertools.groupby(self._lines(), lambda line: line.partition(b" ")[0]):
            name = query_id.decode(errors="replace")
            self._starts[name] = start
            self.sizes[name] = 0
            for line in lines:
                start += len(line)
                self.sizes[name] += 1

    def __getitem__(self, query_id: str) -> Ranked:
        """Raises DataError, naming the file, when it is no run file."""
        self._file.seek(self._starts[query_id])
        lines = itertools.islice(self._lines(), self.sizes[query_id])
        return [_entry(line.decode(errors="replace"), str(self.path)) for line in lines]

    def _lines(self) -> Iterator[bytes]:
        """From where the file is now."""
        return iter(self._file.readline, b"")

    def __iter__(self) -> Iterator[str]:
        return iter(self._starts)

    def __len__(self) -> int:
        return len(self._starts)

    def __contains__(self, query_id: object) -> bool:
        return query_id in self._starts


def _entry(line: str, where: str) -> tuple[str, float]:
    """(document id, score) of a line that write_run wrote."""
    fields = line.split()
    if len(fields) < 6:
        raise DataError(f"{where}: not a line of a TREC run; write six fields, query_id Q0 doc_id rank score tag.")
    return fields[2], read_score(fields[4], where)


def label_store(folder: Path) -> Path:
    """Where the run keeps its labels. Raises RunError when the folder is no run."""
    if not (folder / "recipe.yaml").is_file():
        raise RunError(f"{folder} holds no run; give the folder of a `pdadapt adapt`.")
    shared = read_settings(folder / "recipe.yaml").get("label_store")
    return Path(shared) if shared else folder / "labels.sqlite"


def last_checkpoint(name: str) -> str:
    """Of a run folder the checkpoint for use, or the newest while it goes on; any other model name as it is."""
    run = RunFolder(Path(name))
    if not run.run_file.is_file():
        return name
    found = [int(path.parent.name.split("-")[1]) for path in run.path.glob("iteration-*/checkpoint")]
    if not found:
        raise RunError(f"{name} holds no checkpoint yet; finish it by running the same `pdadapt adapt` again.")
    metrics = read_settings(run.metrics_file) if run.metrics_file.exists() else {}
    return str(run.checkpoint(metrics.get("iteration", max(found))))
