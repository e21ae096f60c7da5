"""Which settings changed since a run began, and which stage reads each."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Literal, get_args

from pydantic import ValidationError

from pdadapt.errors import RunError
from pdadapt.settings.schema import Recipe

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
