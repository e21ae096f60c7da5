"""Load, check and render prompts: text templates with {query}, {document}, {document_a} and {document_b}."""

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
    """A piece of a template: literal text, followed by a field. The last piece has no field."""

    text: str
    field: str | None


class Prompt:
    """A prompt template. It is split into pieces once, so that braces in a query or document are plain text."""

    def __init__(self, template: str, fields: frozenset[str], source: str = "prompt"):
        """fields: the fields that the template must contain, each once. source: the prompt's name in messages.

        Raises RecipeError if a field is missing, unknown or repeated.
        """
        self.template = template.strip("\n")
        self.fields = fields
        self.source = source
        present = PLACEHOLDER.findall(self.template)
        if set(present) != fields or len(present) != len(fields):
            expected = ", ".join(f"{{{field}}}" for field in sorted(fields))
            got = ", ".join(f"{{{field}}}" for field in present)
            problem = f"the prompt has the fields {got}" if present else "the prompt has no fields"
            raise RecipeError(f"{source}: {problem}. Use {expected}, each once, and no others.")
        pieces = PLACEHOLDER.split(self.template)
        self._parts = [
            _PromptPart(pieces[i], pieces[i + 1] if i + 1 < len(pieces) else None) for i in range(0, len(pieces), 2)
        ]

    @cached_property
    def sha256(self) -> str:
        """The template's hash (16 hex digits). It is part of the key of every label made with this prompt."""
        return hashlib.sha256(self.template.encode()).hexdigest()[:16]

    @property
    def order(self) -> list[str]:
        """The fields in the order in which the template contains them."""
        return [part.field for part in self._parts if part.field]

    def render(self, values: Mapping[str, str]) -> str:
        """The prompt with the values of its fields filled in."""
        return "".join(part.text + (values[part.field] if part.field else "") for part in self._parts)


def load_prompt(name: str, fields: frozenset[str]) -> Prompt:
    """Load a prompt by its name in `prompts/` (`yes-no`) or by the path of a .txt file.

    fields: see `Prompt`. Raises RecipeError if there is no such prompt (the message lists those that exist), or if its
    fields are wrong.
    """
    path = Path(name) if name.endswith(".txt") else resource_folder("prompts") / f"{name}.txt"
    if not path.is_file():
        shipped = ", ".join(sorted(file.stem for file in resource_folder("prompts").glob("*.txt")))
        raise RecipeError(f"Prompt {name!r} not found. Use the path of a .txt file or one of {shipped}.")
    return Prompt(read_utf8(path), fields, source=str(path))
