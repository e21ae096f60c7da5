"""Numbers as people read them: durations, sizes, speeds, p-values."""

from __future__ import annotations


def duration(seconds: float) -> str:
    for unit, length in (("days", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= (2 if unit == "days" else 1) * length:
            return f"{seconds / length:,.{0 if seconds >= 100 * length else 1}f} {unit}"
    return f"{seconds:,.1f} s"


def size(number: float) -> str:
    """A number of bytes as text."""
    for unit, length in (("GB", 1e9), ("MB", 1e6)):
        if number >= length:
            return f"{number / length:,.1f} {unit}"
    return f"{number / 1e3:,.0f} kB"


def p_value(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def speed(units: float, unit: str, seconds: float) -> str:
    """Units per second, or seconds per unit, whichever is more than 1. Empty for a single unit."""
    if units < 2 or not seconds:
        return ""
    return f"{seconds / units:,.1f} s each" if units < seconds else f"{units / seconds:,.1f} {unit}/s"
