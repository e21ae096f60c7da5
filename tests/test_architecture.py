"""Folders are floors: imports only run down, and no two modules import each other, not even lazily or for types."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pdadapt

PACKAGE = Path(pdadapt.__file__).parent
FLOORS = [  # from the ground; a module imports from its own floor and from those before it
    "errors",
    "runtime",
    "settings",
    "data",
    "models",
    "students",
    "teachers",
    "runs",
    "retrieval",
    "labeling",
    "evaluation",
    "training",
    "preflight",
    "generation",
    "reporting",
    "planning",
    "pipeline",
    "api",
    "cli",
    "__main__",
]


def modules() -> dict[str, Path]:
    files = (file for file in PACKAGE.rglob("*.py") if "workers" not in file.parts)  # they run in other environments
    return {".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts): file for file in files}


def imported(file: Path, known: dict[str, Path]) -> set[str]:
    """The modules of pdadapt that a file imports: at its top, within functions, and for types."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pdadapt"):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("pdadapt")}
    return found


def floor(module: str) -> int:
    return FLOORS.index(module.split(".")[1])


def imports() -> dict[str, set[str]]:
    known = modules()
    return {name: imported(file, known) for name, file in known.items() if name != "pdadapt.__init__"}


def test_every_folder_is_a_floor():
    assert {name.split(".")[1] for name in modules()} - {"__init__"} == set(FLOORS)


def test_imports_only_run_down():
    upwards = [
        f"{name} imports {other}"
        for name, others in imports().items()
        for other in others
        if other != "pdadapt" and floor(other) > floor(name)
    ]
    assert not upwards


def test_no_modules_import_each_other():
    try:
        TopologicalSorter(imports()).prepare()
    except CycleError as error:
        raise AssertionError(error.args[1]) from None
