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
    """Return the estimated cost of a run, stage by stage, and the settings that would reduce it."""
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
    stored = ", ".join(f"{number:,} {task}s" for task, number in plan.labeled.items())
    lines = [
        f"Peak memory: {memory}, of {size(plan.memory_all)}.",
        f"Peak disk use: {size(sum(plan.disk.values()))} ({disk}), of {size(plan.disk_free)} free.",
        f"Labels of this teacher in the store: {stored}.",
    ]
    kept, tried = plan.sample_kept
    if tried:
        outlook = "Some may not retrieve their document, so more must be written" if kept else "The run may keep none"
        lines.append(f"Queries are written first: {kept} of a sample of {tried} passed the text filters. {outlook}.")
    if cheaper := [f"{name}: {duration(other)} in all" for name, other in plan.cheaper.items() if other < seconds]:
        lines.append(f"Cheaper: {'; '.join(cheaper)}.")
    if plan.paper:
        runs = ", ".join(f"{name} {duration(other)}" for name, other in plan.paper.items())
        lines.append(
            f"Calculated time of the paper's runs at this machine's speed, with its models and recipes: {runs}."
        )
    return Group(title, table, *map(plain, lines))
