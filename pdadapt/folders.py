"""Which file of a corpus' folder is what, whatever its format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pdadapt.errors import DataError
from pdadapt.lines import ending, is_packed
from pdadapt.notices import Notices

TABLES = (".jsonl", ".json", ".tsv", ".csv", ".parquet")  # of documents and queries
QRELS = (".tsv", ".txt", ".qrels", ".qrel", ".trec", "", ".csv", ".jsonl", ".json", ".parquet")
DEFAULT = "test"  # the split that nobody need ask for


def one_of(folder: Path, stem: str, endings: Sequence[str] = TABLES) -> Path | None:
    """The file of this name with one of the endings, `.gz` too: of several, that whose ending is named first."""
    found = [(_format(file, endings), is_packed(file), file) for file in _files(folder)]
    known = [(endings.index(each), packed, file) for each, packed, file in found if each in endings]
    return next((file for *_, file in sorted(known) if _stem(file, endings) == stem), None)


def needed(folder: Path, stem: str) -> Path:
    """The same. Raises DataError when there is none."""
    if (found := one_of(folder, stem)) is None:
        raise DataError(
            f"{folder} has no {stem}.jsonl: a BEIR folder holds corpus.jsonl, queries.jsonl and qrels/test.tsv; a "
            "folder of documents .txt or .md files."
        )
    return found


def find_qrels(folder: Path, split: str) -> Path | None:
    """The judgments of a split: `qrels/SPLIT.*`, `qrels.SPLIT.*` or `SPLIT.qrels`; of the default `qrels.*` too."""
    return (
        one_of(folder / "qrels", split, QRELS)
        or one_of(folder, f"qrels.{split}", QRELS)
        or one_of(folder, split, (".qrels", ".qrel"))
        or (one_of(folder, "qrels", QRELS) if split == DEFAULT else None)
    )


def check_split(folder: Path, split: str, notices: Notices) -> None:
    """Say that the folder has judgments, but not of this split: its test queries would be adapted on without a word.

    Raises DataError when the split is not the default, so that it was asked for, or when its file cannot be read.
    """
    if find_qrels(folder, split):
        return
    inside = _files(folder / "qrels")
    readable = [file for file in inside if ending(file) in QRELS]
    if unread := [file for file in inside if file.name.startswith(f"{split}.") and file not in readable]:
        raise DataError(f"{unread[0]}: cannot tell the format; use .tsv, .txt, .csv, .jsonl (.gz too) or .parquet.")
    beside = [file for file in _files(folder) if "qrels" in file.name.lower()]
    there = sorted({_stem(file, QRELS) for file in readable} | {file.name for file in beside})
    if split != DEFAULT and there:
        raise DataError(
            f"{folder} has no judgments for split {split!r}, but for {', '.join(there)}; give one of these as --split "
            f"(evaluate.split), or add qrels/{split}.tsv."
        )
    if tests := [name for name in there if "train" not in name]:
        notices.add(
            "split",
            f"{folder} has judgments for {', '.join(tests)}, but not for split {split!r}: nothing is measured, and "
            "all queries are adapted on. Give --split (evaluate.split) to use one of them.",
        )


def _files(folder: Path) -> list[Path]:
    """Those that are not hidden, in the order of their names."""
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))


def _format(file: Path, endings: Sequence[str]) -> str:
    """Its ending, if it is one of these: `dev.small` has none."""
    return found if (found := ending(file)) in endings else ""


def _stem(file: Path, endings: Sequence[str]) -> str:
    """Its name without the ending."""
    name = file.name[: -len(".gz")] if is_packed(file) else file.name
    return name[: len(name) - len(_format(file, endings))]
