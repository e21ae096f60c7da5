"""Which settings differ from those that a run began with."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from pdadapt.errors import RunError
from pdadapt.runs.stages import stage_that_reads
from pdadapt.settings.schema import Recipe

Change = tuple[str, Any, Any]  # dotted key, old, new

HASHED_PARTS = {  # Parts of run.json that are hashes, and what to call them in a message.
    "corpus_sha256": "the corpus",
    "queries_sha256": "the queries",
    "test_queries_sha256": "the test queries",
    "relevant_sha256": "the training qrels",
    "examples_sha256": "the examples",
    "qrels_sha256": "the training qrels",
    "teachers.point.prompt": "the prompt for points",
    "teachers.pair.prompt": "the prompt for pairs",
}
LABEL_KEYS = "teachers."  # The part of run.json with the keys of the labels: settings, prompts and weights.
UNCOMPARED_PARTS = ("versions", "source")  # Parts of run.json that may differ when a run is resumed.


def name_changes(changes: Iterable[Change], staged: bool = False) -> str:
    """The changes as one text. staged: with the stage that each change invalidates."""

    def name(key: str, old: Any, new: Any) -> str:
        if key in HASHED_PARTS or isinstance(old, dict) or isinstance(new, dict):
            return f"{HASHED_PARTS.get(key, key)} changed"
        return f"{key} was {old!r}, now {new!r}"

    return "; ".join(
        name(*change) + (f" (stage {stage_that_reads(change[0])})" if staged else "") for change in changes
    )


def with_defaults(tree: Any, run: str) -> dict[str, Any]:
    """A recipe of an earlier version, with defaults for new settings. Raises RunError if a setting is unknown."""
    try:
        filled: dict[str, Any] = json.loads(Recipe.model_validate(tree).model_dump_json())
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, problem["loc"])) or "recipe.yaml" for problem in error.errors())
        raise RunError(
            f"{run} has settings that this version does not know ({wrong}). Finish it with that version, or choose "
            "another --out."
        ) from None
    return filled


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[Change]:
    """The leaves in which two trees differ, by dotted key."""
    found: list[Change] = []
    for key in {**old, **new}:
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append((prefix + key, a, b))
    return found
