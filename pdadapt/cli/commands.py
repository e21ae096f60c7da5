"""Commands that refuse an option, or a setting, that is given twice: else the last would win without a word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import combinations
from typing import Any

import typer
from typer.core import TyperCommand


class _Command(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _, _, given = self.make_parser(ctx).parse_args(list(args))
        for option, times in Counter(given).items():
            if times > 1 and not (getattr(option, "multiple", False) or option.is_eager):
                said = f"it is given {times} times. Give it once"
                if option.name in ("model", "run") and any(other.name == "against" for other in self.params):
                    said += ", and what it is compared with as --against"
                raise typer.BadParameter(f"{said}.", ctx=ctx, param_hint=option.opts[0])
        return super().parse_args(ctx, args)

    def get_short_help_str(self, limit: int = 1_000) -> str:
        return super().get_short_help_str(1_000)  # of a sentence no word is cut off


class Commands(typer.Typer):
    """Typer's, with plain help: nothing in it is markup."""

    def __init__(self, **options: Any):
        super().__init__(rich_markup_mode=None, pretty_exceptions_enable=False, **options)

    def command(self, *args: Any, **options: Any) -> Callable[[Any], Any]:
        return super().command(*args, cls=_Command, **options)


def settings_given(settings: list[str] | None) -> list[str] | None:
    """What --set was given. Raises BadParameter when two of them say the same setting."""
    refuse_repeated([setting.partition("=")[0] for setting in settings or []])
    return settings


def refuse_repeated(keys: Iterable[str], others: Iterable[str] = ()) -> None:
    """Raises BadParameter when two keys of settings that --set gives, or such a key and one of `others`, which options
    give, are the same or one within the other.
    """
    keys = list(keys)
    for one, other in combinations(keys, 2):
        if _meet(one, other):
            raise typer.BadParameter(f"{_name(one, other)} set twice. Set it once.", param_hint="--set")
    for one in keys:
        for other in others:
            if _meet(one, other):
                raise typer.BadParameter(
                    f"{_name(one, other)} set here and by an option of its own. Set it once.", param_hint="--set"
                )


def _meet(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _name(one: str, other: str) -> str:
    return f"{one} is" if one == other else f"{one} and {other}, of which one holds the other, are"
