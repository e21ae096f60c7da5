"""Load, check and render the prompt templates: plain text with {query}, {document}, {document_a}, {document_b}."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from pdadapt.errors import RecipeError
from pdadapt.runtime.files import resource_folder
from pdadapt.settings.recipes import read_utf8

PLACEHOLDER = re.compile(r"\{(\w*)\}")
POINT_FIELDS = frozenset({"query", "document"})
PAIR_FIELDS = frozenset({"query", "document_a", "document_b"})
LIKELIHOOD_FIELDS = WRITING_FIELDS = frozenset({"document"})


class _PromptPart(NamedTuple):
    text: str  # literal text before the field
    field: str | None  # None after the last field


class Prompt:
    """A template, split once, so that braces in a query or document are only text."""

    def __init__(self, template: str, fields: frozenset[str], source: str = "prompt"):
        """Raises RecipeError when a field is missing, unknown or repeated; `source` names the file in the message."""
        self.template = template.strip("\n")
        self.fields = fields
        self.source = source
        found = PLACEHOLDER.findall(self.template)
        wanted = ", ".join(f"{{{field}}}" for field in sorted(fields))
        if set(found) != fields or len(found) != len(fields):
            got = ", ".join(f"{{{field}}}" for field in found) or "none"
            raise RecipeError(f"{source}: the prompt must hold {wanted}, each once and no other; it holds {got}.")
        pieces = PLACEHOLDER.split(self.template)
        self._parts = [
            _PromptPart(pieces[i], pieces[i + 1] if i + 1 < len(pieces) else None) for i in range(0, len(pieces), 2)
        ]

    @cached_property
    def sha256(self) -> str:
        """The template's hash (16 hex digits): part of the key of every label made with it."""
        return hashlib.sha256(self.template.encode()).hexdigest()[:16]

    @property
    def order(self) -> list[str]:
        """The fields as they follow one another."""
        return [part.field for part in self._parts if part.field]

    def render(self, values: Mapping[str, str]) -> str:
        return "".join(part.text + (values[part.field] if part.field else "") for part in self._parts)


def load_prompt(name: str, fields: frozenset[str]) -> Prompt:
    """Find a prompt by its name in `prompts/` (`yes-no`) or by the path of a text file.

    Raises RecipeError when there is none, naming those that exist, or when its fields are wrong.
    """
    path = Path(name) if name.endswith(".txt") else resource_folder("prompts") / f"{name}.txt"
    if not path.is_file():
        shipped = ", ".join(sorted(file.stem for file in resource_folder("prompts").glob("*.txt")))
        raise RecipeError(f"Prompt {name!r} was not found: give the path of a .txt file or one of {shipped}.")
    return Prompt(read_utf8(path), fields, source=str(path))
