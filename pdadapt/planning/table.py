"""The table that `--plan` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Column

from pdadapt.runtime.format import duration, size
from pdadapt.runtime.terminal import WholeTable, plain

if TYPE_CHECKING:
    from pdadapt.planning.plan import Plan


def plan_table(plan: Plan) -> Group:
    """What a run will cost, stage by stage, and what would make it cheaper."""
    seconds = sum(cost.seconds for cost in plan.costs)
    table = WholeTable(
        "stage", *(Column(name, justify="right") for name in ("work", "tokens", "each second", "time", "share"))
    )
    title = (
        f"{plan.shape.documents:,} documents, {plan.shape.queries:,} queries to adapt on, "
        f"{plan.shape.test_queries:,} to test on"
    )
    for cost in plan.costs:
        table.add_row(
            cost.stage,
            f"{cost.units:,} {cost.unit}",
            f"{cost.tokens:,}" if cost.tokens else "",
            f"{cost.units / cost.seconds:,.1f}" if cost.seconds and cost.tokens + cost.units > 99 else "",
            duration(cost.seconds),
            f"{cost.seconds / seconds:.0%}",
        )
    table.add_row("all", "", "", "", duration(seconds), "", style="bold")
    memory = ", ".join(f"{name} {size(number)}" for name, number in plan.memory.items())
    disk = ", ".join(f"{name} {size(number)}" for name, number in plan.disk.items())
    held = ", ".join(f"{number:,} {task}s" for task, number in plan.labeled.items())
    lines = [
        f"Memory at the peak: {memory}, of {size(plan.memory_all)}.",
        f"Disk at the peak: {size(sum(plan.disk.values()))} ({disk}); {size(plan.disk_free)} are free.",
        f"The label store holds of this teacher: {held}.",
    ]
    kept, tried = plan.fit
    if tried:
        often = f"{tried} were, to try, and {kept} of them are fit by their text"
        more = "some will not find their document again, and more must be written" if kept else "they may all be so"
        lines.append(f"The queries are written first: {often}; {more}.")
    if less := [f"{name}: {duration(other)} in all" for name, other in plan.cheaper.items() if other < seconds]:
        lines.append(f"Cheaper: {'; '.join(less)}.")
    if plan.paper:
        runs = ", ".join(f"{name} {duration(other)}" for name, other in plan.paper.items())
        lines.append(
            f"The paper's runs, with its models and recipes, as this machine's speed has it (arithmetic): {runs}."
        )
    return Group(title, table, *map(plain, lines))
