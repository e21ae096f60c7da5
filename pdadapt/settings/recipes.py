"""Recipes: settings read from YAML, changed by `--set key=value`."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import (
    BaseModel,
    ValidationError,
)
from pydantic_core import ErrorDetails

from pdadapt.errors import RecipeError, reason
from pdadapt.runtime.files import resource_folder
from pdadapt.settings.schema import Recipe


def recipe_names() -> list[str]:
    """The shipped ones: `fiqa`, `ablations/no-pair`."""
    folder = resource_folder("recipes")
    names = (file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml"))
    return sorted(names, key=lambda name: ("/" in name, name))


def recipe_path(name: str, named_by: Path | None = None) -> Path:
    """The file of a shipped recipe, or the path given. Raises RecipeError when there is none.

    named_by: the recipe whose `base` it is, beside which a path is looked for.
    """
    folder = named_by.parent if named_by else Path()
    path = folder / name if name.endswith((".yaml", ".yml")) else resource_folder("recipes") / f"{name}.yaml"
    if not path.is_file():
        near = difflib.get_close_matches(name, recipe_names(), 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        where = f"{named_by}: base: recipe" if named_by else "Recipe"
        raise RecipeError(
            f"{where} {name!r} was not found{hint}: give a .yaml file or one of {', '.join(recipe_names())}."
        )
    return path


def load_recipe(name: str, overrides: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe and apply overrides, {"train.learning_rate": 3e-6}.

    Raises RecipeError naming every wrong key, type or value with its path.
    """
    tree = read_tree(name)
    return parse_recipe(apply_overrides(tree, overrides or {}), str(recipe_path(name)), overrides or {})


def read_tree(name: str, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The settings that a recipe's file holds, over those of the recipe that its key `base` names.

    above: the files that led here by their `base`. Raises RecipeError when a file is not YAML, or is its own base.
    """
    path = recipe_path(name, above[-1] if above else None)
    if any(path.samefile(other) for other in above):
        raise RecipeError(f"{path}: is its own `base`, by way of {above[-1]}; name another recipe there.")
    tree = read_yaml(read_utf8(path), str(path)) or {}
    if not isinstance(tree, dict):
        raise RecipeError(
            f"{path}: a recipe is keys with their values, and not a {type(tree).__name__}; write `key: value`."
        )
    base = tree.pop("base", None)
    return tree if base is None else merge_settings(read_tree(str(base), (*above, path)), tree)


def read_utf8(path: Path) -> str:
    """The text of a recipe or prompt. Raises RecipeError when it is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read as UTF-8 text ({reason(error)}); give another file.") from None


class _RepeatedKey(yaml.MarkedYAMLError):
    pass


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would take the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        found = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in found:
                raise _RepeatedKey(problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark)
            found.add((key.tag, str(key.value)))
        return node


def read_yaml(text: str, where: str) -> Any:
    """Raises RecipeError, naming the line, when it is not YAML, or a key stands twice."""
    try:
        return yaml.load(text, _Loader)
    except Exception as error:  # besides YAMLError what Python says of a date, a number or a tag that is none
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark and "\n" in text.strip() else ""
        problem = getattr(error, "problem", None) or reason(error)
        remedy = "remove one of the two" if isinstance(error, _RepeatedKey) else "quote what is a text"
        raise RecipeError(f"{where}{line}: not valid YAML ({problem}); {remedy}.") from None


def merge_settings(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`tree` with the values of `changes`, branch by branch."""
    for key, value in changes.items():
        old = tree.get(key)
        tree[key] = merge_settings(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return tree


def apply_overrides(tree: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Set dotted keys in a tree of settings. Raises RecipeError when a key leads through a value."""
    for key, value in overrides.items():
        branch = tree
        *parents, leaf = key.split(".")
        for parent in parents:
            branch = branch.setdefault(parent, {})
            if not isinstance(branch, dict):
                raise RecipeError(f"--set {key}: {parent!r} holds a value, not further keys; set that key itself.")
        branch[leaf] = value
    return tree


def parse_recipe(tree: dict[str, Any], source: str, overrides: Collection[str] = ()) -> Recipe:
    """source: the file that is named in errors; overrides: keys that did not come from it but from the command."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        problems = (f"{_error_place(item, source, overrides)}{_describe_error(item)}" for item in error.errors())
        raise RecipeError("; ".join(problems) + ".") from None


def _error_place(item: ErrorDetails, source: str, overrides: Collection[str]) -> str:
    """Where a wrong setting stands; of settings that do not go together, the file and those of the command."""
    key = ".".join(map(str, item["loc"]))
    if any(key == override or key.startswith(override + ".") for override in overrides):
        return "--set "
    section = f"{key}." if key else ""
    among = [
        override
        for override in overrides
        if override.startswith(section) and override.rpartition(".")[2] in item["msg"]
    ]
    return f"{source} with --set {', '.join(among)}: " if among else f"{source}: "


def _describe_error(item: ErrorDetails) -> str:
    key = ".".join(map(str, item["loc"])) or "recipe"
    known = [name for name, *_ in all_settings()]
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, known, 1, cutoff=0.7)
        return f"{key}: unknown key ({f'did you mean {near[0]}?' if near else '`pdadapt recipes settings` lists them'})"
    got = "" if isinstance(item["input"], dict) else f" (got {item['input']!r})"
    if item["type"] == "model_type":
        within = next(name for name in known if name.startswith(f"{key}."))
        return f"{key}: is a section, and not a value{got}; set its keys, such as {within}"
    return f"{key}: {item['msg'].removeprefix('Value error, ')}{got}"


def all_settings(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """(dotted key, default, what it means) of every setting there is."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from all_settings(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field.default, " ".join((field.description or "").split())


def parse_override(text: str) -> tuple[str, Any]:
    """Read one `--set key=value`; the value is YAML, and numbers such as 1e-5 are numbers.

    Raises RecipeError when there is no `=`.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {text!r}: expected key=value, for example --set train.learning_rate=3e-6.")
    return key, read_yaml(value, f"--set {text!r}")
