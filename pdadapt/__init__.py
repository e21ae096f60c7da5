"""pdadapt: adapt a ColBERT retriever to a corpus without relevance judgments (PairDistill, EMNLP 2024)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pdadapt.api import adapt, evaluate, rerank
    from pdadapt.data.load import load_dataset
    from pdadapt.errors import DataError, ModelError, PdadaptError, RecipeError, RunError
    from pdadapt.settings.recipes import load_recipe

__version__ = "0.1.0"
__all__ = [
    "DataError",
    "ModelError",
    "PdadaptError",
    "RecipeError",
    "RunError",
    "adapt",
    "evaluate",
    "load_dataset",
    "load_recipe",
    "rerank",
]
_PLACES = {
    "adapt": "pdadapt.api",
    "evaluate": "pdadapt.api",
    "rerank": "pdadapt.api",
    "load_dataset": "pdadapt.data.load",
    "load_recipe": "pdadapt.settings.recipes",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import pdadapt` stays fast."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES.get(name, "pdadapt.errors")), name)
