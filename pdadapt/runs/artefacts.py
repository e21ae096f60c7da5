"""Read the JSON files of a run. A damaged or incomplete file is a RunError that names it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from pdadapt.errors import RunError

Value = TypeVar("Value")


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def parse_as(kind: Any, tree: Any) -> Any:
    """Convert `tree`, as json.loads returns it, to the type `kind`. Raises ValidationError when it is not one."""
    return _adapter(kind).validate_python(tree)


class JsonRecord:
    """A frozen dataclass that is kept as a JSON object. The order of its fields is the order of the keys."""

    @classmethod
    def from_json(cls, tree: Any) -> Self:
        """Raises ValidationError when a field is missing or of another type."""
        record: Self = parse_as(cls, tree)
        return record

    def to_json(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload]


def read_json(file: Path, parse: Callable[[dict[str, Any]], Value]) -> Value:
    """What `parse` makes of the JSON object in a file. Raises RunError when the file is damaged or lacks something."""
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(tree, dict):
            raise damaged(file)
        return parse(tree)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] != "missing":
            raise damaged(file) from None
        key = ".".join(map(str, first["loc"]))
        raise RunError(f"{file} lacks {key!r}. Remove the file and repeat the same `pdadapt adapt`.") from None
    except (ValueError, TypeError, AttributeError):
        raise damaged(file) from None


def read_lines(file: Path, torn: bool = False) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file; no rows if there is no such file. A last line without its end is skipped.

    torn: skip damaged lines too, since a kill can leave them. Otherwise raises RunError when a line is damaged.
    """
    if not file.is_file():
        return
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):
                try:
                    yield json.loads(line)
                except ValueError:
                    if not torn:
                        raise damaged(file) from None


def damaged(file: Path) -> RunError:
    if file.name == "run.json":
        return RunError(f"{file} is damaged, so the origin of the run is unknown. Give another --out.")
    return RunError(f"{file} is damaged. Remove the file and repeat the same `pdadapt adapt`.")
