"""How commands are declared: plain help in a fixed order, and no option or setting twice.

By default, the last of two equal options would win silently.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from itertools import combinations
from typing import Annotated, Any, get_args

import typer
from typer.core import TyperCommand, TyperGroup

FULL_LENGTH = 1_000  # characters of a command's summary in the list of commands: typer would cut it to one line


class _Command(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _, _, given = self.make_parser(ctx).parse_args(list(args))
        for option, times in Counter(given).items():
            if times > 1 and not (getattr(option, "multiple", False) or option.is_eager):
                message = f"it is given {times} times. Give it once"
                if option.name in ("model", "run") and any(other.name == "against" for other in self.params):
                    message += ", and give the baseline as --against"
                raise typer.BadParameter(f"{message}.", ctx=ctx, param_hint=option.opts[0])
        return super().parse_args(ctx, args)

    def get_short_help_str(self, limit: int = FULL_LENGTH) -> str:
        return super().get_short_help_str(FULL_LENGTH)


class Commands(typer.Typer):
    """A group of commands whose help contains no markup.

    order: the names of the commands as --help lists them. By default, that is the order of their declaration.
    """

    def __init__(self, order: Sequence[str] = (), **options: Any):
        class Group(TyperGroup):
            def list_commands(self, ctx: Any) -> list[str]:
                places = {name: place for place, name in enumerate(order)}
                return sorted(self.commands, key=lambda name: places.get(name, len(places)))

            def get_short_help_str(self, limit: int = FULL_LENGTH) -> str:
                return super().get_short_help_str(FULL_LENGTH)

        super().__init__(cls=Group, rich_markup_mode=None, pretty_exceptions_enable=False, **options)

    def command(self, *args: Any, **options: Any) -> Callable[[Any], Any]:
        return super().command(*args, cls=_Command, **options)


def same_options(command: Callable[..., None], **defaults: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a function the options of another command, with these defaults instead of its own."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def alias(**given: Any) -> None:
            function(**given)

        own = inspect.signature(command, eval_str=True).parameters
        changed = [_with_default(one, defaults[name]) if name in defaults else one for name, one in own.items()]
        described: Any = alias
        described.__signature__ = inspect.Signature(changed)  # from which typer makes the options
        return described

    return decorate


def _with_default(parameter: inspect.Parameter, default: Any) -> inspect.Parameter:
    """The parameter with a default that its help shows."""
    kind, option = get_args(parameter.annotation)
    option = copy(option)
    option.show_default = True
    return parameter.replace(default=default, annotation=Annotated[kind, option])


def check_settings(settings: list[str] | None) -> list[str] | None:
    """The values of --set as they are. Raises BadParameter when two of them change the same setting."""
    refuse_repeated([setting.partition("=")[0] for setting in settings or []])
    return settings


def refuse_repeated(keys: Iterable[str], others: Iterable[str] = ()) -> None:
    """Raises BadParameter when a setting is changed twice: by two of the keys, or by one of them and one of the others.

    keys: settings that --set changes. others: settings that other options change.
    """
    keys = list(keys)
    for one, other in combinations(keys, 2):
        if _overlap(one, other):
            raise typer.BadParameter(f"{_described(one, other)} set twice. Set it once.", param_hint="--set")
    for one in keys:
        for other in others:
            if _overlap(one, other):
                message = f"{_described(one, other)} set by --set and by another option. Set it once."
                raise typer.BadParameter(message, param_hint="--set")


def _overlap(one: str, other: str) -> bool:
    """Whether two keys are the same, or one is a section that contains the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _described(one: str, other: str) -> str:
    if one == other:
        return f"{one} is"
    section, key = sorted((one, other), key=len)
    return f"{key} (in {section}) is"
