"""The plots of the report as inline SVG. They use the fonts and the colours of the page, light or dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from scipy.special import expit

from pdadapt.evaluation.results import Measures

WIDTH, HEIGHT = 4.72, 2.9  # inches: 340 x 209 points, a phone's width
NAME_CHARACTERS = 20  # longer names beside a plot are cut
HISTOGRAM_BINS = 30
CONFIDENCE_EDGES = np.linspace(0.5, 1.0, 6)  # of the bins of the calibration

# Placeholders that matplotlib draws with. _inline replaces them by the colour variables of the page.
TEXT, MUTED, RULE, GOOD, BAD, FIRST, SECOND, THIRD = (f"#0000f{digit}" for digit in range(1, 9))
VARIABLES = {
    TEXT: "--text",
    MUTED: "--muted",
    RULE: "--rule",
    GOOD: "--good",
    BAD: "--bad",
    FIRST: "--first",
    SECOND: "--second",
    THIRD: "--third",
}
LOSS_CURVES = {"loss": ("loss", TEXT), "cl": ("L_CL", THIRD), "kd": ("L_KD", FIRST), "pair": ("L_pair", SECOND)}

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": TEXT,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
}


def change_plot(measures: Measures, system: int, name: str) -> str:
    """The change of each measure from the base with its 95 % interval. Zero is marked."""
    found = {}
    for measure, result in measures.items():
        comparison = result.against_base(system)
        found[measure] = comparison.change, comparison.interval or (comparison.change, comparison.change)

    def draw(axes: Axes) -> None:
        for row, (change, (low, high)) in enumerate(found.values()):
            colour = GOOD if low > 0 else BAD if high < 0 else MUTED
            axes.plot([low, high], [row, row], color=colour, linewidth=2.5, solid_capstyle="round")
            axes.plot([change], [row], "o", color=colour, markersize=7)
        axes.axvline(0, color=TEXT, linewidth=1)
        axes.set_yticks(range(len(found)), list(map(_short, found)), color=TEXT)
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("change, with its 95 % interval")
        axes.xaxis.set_major_locator(MaxNLocator(5))

    said = "; ".join(f"{measure} {change:+.4f}" for measure, (change, _) in found.items())
    return _svg(name, f"Change from the base to the adapted student with 95 % intervals: {said}", draw)


def gains(before: Sequence[float], after: Sequence[float], measure: str, queries: str, name: str) -> str:
    """The gain of each query, the largest first. queries: what the axis calls them."""
    values, counts = np.unique(np.round(np.subtract(after, before), 9), return_counts=True)
    values, edges = values[::-1], np.concatenate([[0], np.cumsum(counts[::-1])])
    rose, fell = int(counts[::-1][values > 0].sum()), int(counts[::-1][values < 0].sum())

    def draw(axes: Axes) -> None:
        axes.stairs(np.maximum(values, 0), edges, fill=True, color=GOOD)
        axes.stairs(np.minimum(values, 0), edges, fill=True, color=BAD)
        axes.axhline(0, color=TEXT, linewidth=1)
        axes.set_xlim(0, edges[-1])
        axes.set_xlabel(f"{queries}, sorted")
        axes.set_ylabel(f"gain in {_short(measure)}")
        _counted(axes, "x")

    label = f"Gain in {measure} of each of {edges[-1]:,} {queries}: {rose:,} rose, {fell:,} fell, the rest stayed"
    return _svg(name, label, draw)


def point_histogram(points: Sequence[float], name: str) -> str:
    """The distribution of the point labels."""
    found = np.asarray(points)

    def draw(axes: Axes) -> None:
        heights, edges = np.histogram(found, HISTOGRAM_BINS)
        axes.stairs(heights, edges, fill=True, color=FIRST)
        axes.set_xlabel("point label")
        axes.set_ylabel("documents")
        _counted(axes, "y")

    spread = f"median {np.median(found):.2f}, from {found.min():.2f} to {found.max():.2f}"
    return _svg(name, f"Distribution of {len(found):,} point labels: {spread}", draw)


def pair_labels(log_odds: Sequence[float], name: str) -> str:
    """The distribution of the pairs' log-odds. Below zero they contradict the points."""
    found = np.asarray(log_odds)

    def draw(axes: Axes) -> None:
        most = max(np.abs(found).max(), 1e-9)
        heights, edges = np.histogram(found, np.linspace(-most, most, HISTOGRAM_BINS + 1))  # one edge is at 0
        half = HISTOGRAM_BINS // 2
        axes.stairs(heights[half:], edges[half:], fill=True, color=FIRST)
        axes.stairs(heights[:half], edges[: half + 1], fill=True, color=SECOND)
        axes.axvline(0, color=TEXT, linewidth=1)
        axes.set_xlim(min(-most / HISTOGRAM_BINS, found.min()), max(most / HISTOGRAM_BINS, found.max()))
        axes.set_xlabel("log-odds for the document with the higher point")
        axes.set_ylabel("pairs")
        _counted(axes, "y")

    below = (found < 0).sum()
    return _svg(name, f"Distribution of the log-odds of {len(found):,} pairs: {below:,} are below zero", draw)


def calibration(log_odds: Sequence[float], name: str) -> str:
    """The share of the pairs on which the points agree, by the teacher's confidence, with the number of pairs."""
    found = np.asarray(log_odds)
    sure = expit(np.abs(found))
    places = np.clip(np.digitize(sure, CONFIDENCE_EDGES) - 1, 0, len(CONFIDENCE_EDGES) - 2)
    counts = np.bincount(places, minlength=len(CONFIDENCE_EDGES) - 1)
    agreeing = np.bincount(places, weights=found >= 0, minlength=len(CONFIDENCE_EDGES) - 1)
    shares = np.divide(agreeing, counts, out=np.zeros(len(counts)), where=counts > 0)
    centers = (CONFIDENCE_EDGES[1:] + CONFIDENCE_EDGES[:-1]) / 2
    bins = list(zip(CONFIDENCE_EDGES, CONFIDENCE_EDGES[1:], counts, strict=False))

    def draw(axes: Axes) -> None:
        axes.bar(centers, shares, width=0.085, color=FIRST)
        axes.plot([0.5, 1], [0.5, 1], color=TEXT, linewidth=1, linestyle=(0, (3, 3)))
        axes.set_xlim(0.5, 1)
        axes.set_ylim(0, 1.02)
        axes.set_xticks(centers, [f"{low:.1f}–{high:.1f}\n{count:,}" for low, high, count in bins])
        axes.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
        axes.set_xlabel("the teacher's confidence; how many pairs")
        axes.set_ylabel("points agree")

    said = "; ".join(
        f"{low:.1f} to {high:.1f}: {share:.0%} of {count:,}"
        for (low, high, count), share in zip(bins, shares, strict=True)
        if count
    )
    return _svg(name, f"Share of the pairs on which the points agree, by the teacher's confidence: {said}", draw)


def loss_plot(rows: Sequence[Mapping[str, float]], name: str) -> str:
    """The loss and its terms over the optimizer steps."""
    steps = [row["step"] for row in rows]
    curves = {term: [row.get(term, 0.0) for row in rows] for term in LOSS_CURVES if any(row.get(term) for row in rows)}
    if len(curves) == 2:
        del curves["loss"]  # the loss equals its only term

    def draw(axes: Axes) -> None:
        for term, values in curves.items():
            label, colour = LOSS_CURVES[term]
            axes.plot(steps, values, color=colour, label=label, marker="o" if len(steps) == 1 else "")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("loss")
        axes.legend(ncols=len(curves), loc="lower center", bbox_to_anchor=(0.5, 1.0), borderpad=0, handlelength=1.2)
        _counted(axes, "x")

    said = "; ".join(f"{LOSS_CURVES[term][0]} {values[0]:.4f} to {values[-1]:.4f}" for term, values in curves.items())
    return _svg(name, f"Loss over {steps[-1]:,.0f} steps, first to last logged: {said}", draw)


def check_plot(rows: Sequence[Mapping[str, float]], name: str) -> str:
    """Agreement with the teacher over the optimizer steps. The best check is marked."""
    steps, values = [row["step"] for row in rows], [row["value"] for row in rows]
    best = int(np.argmax(values))

    def draw(axes: Axes) -> None:
        axes.plot(steps, values, color=FIRST, marker=".")
        axes.plot(steps[best], values[best], "o", color=GOOD, markersize=8)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("pairs ordered alike")
        _counted(axes, "x")

    said = f"best {values[best]:.4f} at step {steps[best]:,.0f} of {steps[-1]:,.0f}"
    return _svg(name, f"Agreement with the teacher at {len(rows)} checks during training: {said}", draw)


def _short(name: str) -> str:
    """A name, cut so that it leaves room for the plot."""
    return name if len(name) <= NAME_CHARACTERS else name[: NAME_CHARACTERS - 1] + "…"


def _counted(axes: Axes, axis: str) -> None:
    """Label an axis with whole numbers and thousands separators."""
    chosen = axes.xaxis if axis == "x" else axes.yaxis
    chosen.set_major_locator(MaxNLocator(5, integer=True))
    chosen.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _svg(name: str, label: str, draw: Callable[[Axes], None]) -> str:
    """The plot as SVG; the same plot gives the same bytes. name: unique on the page. label: text for screen readers."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        draw(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(
            buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    return _inline(buffer.getvalue(), label)


def _inline(svg: str, label: str) -> str:
    """Turn an SVG file into an element of the page: with the page's colours, unique ids and no style of its own."""
    width, height = (round(size * 72, 1) for size in (WIDTH, HEIGHT))
    head = f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">'
    body = svg[svg.index("<svg") :]
    body = body[body.index(">") + 1 :]
    for unwanted in (r"<!--.*?-->", r"<metadata>.*?</metadata>", r"<style.*?</style>", r' id="[\w.]+_\d+"'):
        body = re.sub(unwanted, "", body, flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    return head + re.sub(r"\n\s*", "\n", body).strip()
