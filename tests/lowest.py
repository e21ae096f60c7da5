"""The lowest versions that pyproject.toml allows, one a line: `python tests/lowest.py > lowest.txt`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

EXTRAS = ("small", "cpu", "ray")  # onnx needs a newer torch; gpu and plaid are for other machines or environments


def lowest(project: Path) -> list[str]:
    """Each requirement of the package and of its extras, at its lower bound: `name[extra]==version`."""
    settings = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    extras = settings["optional-dependencies"]
    requirements = settings["dependencies"] + [one for name in EXTRAS for one in extras[name]]
    found = []
    for requirement in requirements:
        matched = re.fullmatch(r"([\w.-]+(?:\[[\w,]+\])?)>=([\w.]+)", requirement)
        if matched is None:
            raise SystemExit(f"{requirement!r} has no lower bound. Write it as name>=version.")
        found.append(f"{matched[1]}=={matched[2]}")
    return found


if __name__ == "__main__":
    print("\n".join(lowest(Path(__file__).parents[1] / "pyproject.toml")))
