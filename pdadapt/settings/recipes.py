"""Read recipes: settings in YAML files, changed by `--set key=value`."""

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
    """The names of the recipes that come with pdadapt, for example `fiqa` and `ablations/no-pair`."""
    folder = resource_folder("recipes")
    names = (file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml"))
    return sorted(names, key=lambda name: ("/" in name, name))


def recipe_path(name: str, named_by: Path | None = None) -> Path:
    """The file of a recipe.

    name: the name of a recipe that comes with pdadapt, or the path of a YAML file. named_by: the recipe file whose key
    `base` holds the name; a path is then relative to its folder. Raises RecipeError if there is no such file.
    """
    folder = named_by.parent if named_by else Path()
    path = folder / name if name.endswith((".yaml", ".yml")) else resource_folder("recipes") / f"{name}.yaml"
    if not path.is_file():
        near = difflib.get_close_matches(name, recipe_names(), 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        where = f"{named_by}: base: recipe" if named_by else "Recipe"
        raise RecipeError(f"{where} {name!r} not found{hint}. Use a .yaml file or one of {', '.join(recipe_names())}.")
    return path


def load_recipe(name: str, overrides: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe and apply overrides.

    name: see `recipe_path`. overrides: values by dotted key, {"train.learning_rate": 3e-6}. Raises RecipeError; the
    message names every wrong key, type or value.
    """
    tree = read_tree(name)
    return parse_recipe(apply_overrides(tree, overrides or {}), str(recipe_path(name)), overrides or {})


def read_tree(name: str, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The settings of a recipe file as a tree, merged over those of the recipe that its key `base` names.

    above: the recipe files whose `base` led to this one. Raises RecipeError if a file is not valid YAML, or is its own
    base.
    """
    path = recipe_path(name, above[-1] if above else None)
    if any(path.samefile(other) for other in above):
        raise RecipeError(f"{path}: the recipe is its own `base`, through {above[-1]}. Name another recipe there.")
    tree = read_yaml(read_utf8(path), str(path)) or {}
    if not isinstance(tree, dict):
        raise RecipeError(
            f"{path}: a recipe must consist of keys and values, but is a {type(tree).__name__}. Write `key: value`."
        )
    base = tree.pop("base", None)
    return tree if base is None else merge_settings(read_tree(str(base), (*above, path)), tree)


def read_utf8(path: Path) -> str:
    """The text of a recipe or prompt file. Raises RecipeError if it cannot be read as UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read as UTF-8 text ({reason(error)}). Use another file.") from None


class _RepeatedKey(yaml.MarkedYAMLError):
    pass


class _Loader(yaml.SafeLoader):
    """A YAML loader that refuses repeated keys. The default loader would silently use the last one."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in keys:
                raise _RepeatedKey(problem=f"duplicate key {key.value!r}", problem_mark=key.start_mark)
            keys.add((key.tag, str(key.value)))
        return node


def read_yaml(text: str, where: str) -> Any:
    """The value of a YAML text. where: the file or option in messages.

    Raises RecipeError with the line if the text is not valid YAML, or a key is repeated.
    """
    try:
        return yaml.load(text, _Loader)
    except Exception as error:  # an invalid date, number or tag raises an error of Python, not YAMLError
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark and "\n" in text.strip() else ""
        problem = getattr(error, "problem", None) or reason(error)
        remedy = "Remove one of them" if isinstance(error, _RepeatedKey) else "Correct it, or put texts in quotes"
        raise RecipeError(f"{where}{line}: not valid YAML ({problem}). {remedy}.") from None


def merge_settings(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`tree` with the values of `changes`, merged section by section. Changes `tree` in place."""
    for key, value in changes.items():
        old = tree.get(key)
        tree[key] = merge_settings(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return tree


def apply_overrides(tree: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Set dotted keys in a tree of settings, in place. Raises RecipeError if a key treats a value as a section."""
    for key, value in overrides.items():
        branch = tree
        *parents, leaf = key.split(".")
        for parent in parents:
            branch = branch.setdefault(parent, {})
            if not isinstance(branch, dict):
                raise RecipeError(f"--set {key}: {parent!r} is a value, not a section. Set {parent!r} itself.")
        branch[leaf] = value
    return tree


def parse_recipe(tree: dict[str, Any], source: str, overrides: Collection[str] = ()) -> Recipe:
    """The recipe of a tree of settings.

    source: the recipe's file in messages. overrides: the keys that came from the command line. Raises RecipeError; the
    message names every wrong key, type or value.
    """
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        problems = (f"{_error_place(item, source, overrides)}{_describe_error(item)}" for item in error.errors())
        raise RecipeError(" ".join(problems)) from None


def _error_place(item: ErrorDetails, source: str, overrides: Collection[str]) -> str:
    """Where a wrong setting came from: --set, or the file. If settings contradict each other, it may be both."""
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
    """What is wrong with a setting, in sentences."""
    key = ".".join(map(str, item["loc"])) or "recipe"
    known = [name for name, *_ in all_settings()]
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, known, 1, cutoff=0.7)
        if near:
            return f"{key}: unknown key (did you mean {near[0]}?)."
        return f"{key}: unknown key. See `pdadapt recipes settings` for all keys."
    got = "" if isinstance(item["input"], dict) else f" (got {item['input']!r})"
    if item["type"] == "model_type":
        within = next(name for name in known if name.startswith(f"{key}."))
        return f"{key}: this is a section, not a value{got}. Set one of its keys, for example {within}."
    problem, stop, remedy = item["msg"].removeprefix("Value error, ").partition(". ")
    return f"{key}: {problem}{got}{stop}{remedy}."


def all_settings(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yield (dotted key, default, description) of every setting."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from all_settings(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field.default, " ".join((field.description or "").split())


def parse_override(text: str) -> tuple[str, Any]:
    """Read one `--set key=value` as (key, value).

    The value is YAML. YAML reads 1e-5 as a text; it becomes a number when the recipe is validated.
    Raises RecipeError if there is no `=`, or the value is not valid YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise RecipeError(
            f"--set {text!r} is not of the form key=value. Write --set train.learning_rate=3e-6, for example."
        )
    return key, read_yaml(value, f"--set {text!r}")
