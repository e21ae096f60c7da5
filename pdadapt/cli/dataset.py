"""Read what --corpus, --queries, --qrels and --passages name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pdadapt.cli.options import new_progress

if TYPE_CHECKING:
    from pdadapt.data.corpus import Dataset


def open_dataset(
    corpus: str | None,
    queries: Path | None = None,
    split: str = "test",
    strict: bool = False,
    passages: str | None = None,
    qrels: Path | None = None,
    summary: bool = False,
) -> Dataset:
    """Read a dataset and print what was left out of it (with `summary`, also how large it is).

    Without a corpus, the dataset consists of the judgments in `qrels`. Raises DataError when a file cannot be used.
    """
    from pdadapt.data.judgments import load_qrels_only, with_qrels
    from pdadapt.data.load import load_dataset
    from pdadapt.data.passages import split_documents

    if corpus is not None:
        dataset = load_dataset(corpus, queries, split, strict)
        dataset = with_qrels(dataset, qrels) if qrels else dataset
    elif qrels is not None:
        dataset = load_qrels_only(qrels, strict)
    else:
        raise ValueError("neither a corpus nor qrels")
    dataset = split_documents(dataset, passages) if passages else dataset
    progress = new_progress()
    if summary:
        progress.say(dataset.summary)
    dataset.notices.say(progress.say)
    return dataset
