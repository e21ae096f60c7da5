"""Find the files of corpus, queries and qrels in a folder, in any accepted format."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pdadapt.data.lines import file_ending, is_gzip
from pdadapt.data.notices import Notices
from pdadapt.errors import DataError

TABLE_ENDINGS = (".jsonl", ".json", ".tsv", ".csv", ".parquet")  # files of documents or queries
QRELS_ENDINGS = (".tsv", ".txt", ".qrels", ".qrel", ".trec", "", ".csv", ".jsonl", ".json", ".parquet")
DEFAULT_SPLIT = "test"  # the split that is used unless --split names another
QRELS_LIKE_NAME = re.compile("qrel|judg|relevan")  # occurs in names of files or folders that may hold judgments
NEVER_QRELS_ENDINGS = (".py", ".sh", ".ipynb", ".md")  # files that never hold judgments
CONSEQUENCE = "Nothing is measured, and all queries are used for training."


def find_file(folder: Path, stem: str, endings: Sequence[str] = TABLE_ENDINGS) -> Path | None:
    """The file `stem` with one of these endings, also with `.gz`. If there are several, the first ending wins.

    Returns None if there is no such file.
    """
    files = [(_known_ending(file, endings), is_gzip(file), file) for file in _visible_files(folder)]
    known = [(endings.index(ending), gzipped, file) for ending, gzipped, file in files if ending in endings]
    return next((file for *_, file in sorted(known) if _stem(file, endings) == stem), None)


def require_file(folder: Path, stem: str) -> Path:
    """The file `stem` with one of TABLE_ENDINGS, also with `.gz`. Raises DataError if there is none."""
    if (file := find_file(folder, stem)) is None:
        raise DataError(
            f"{folder} has no {stem}.jsonl. Choose a BEIR folder with corpus.jsonl, queries.jsonl and qrels/test.tsv, "
            "or a folder of .txt or .md files."
        )
    return file


def find_qrels(folder: Path, split: str) -> Path | None:
    """The file of a split's judgments: `qrels/SPLIT.*`, `qrels.SPLIT.*` or `SPLIT.qrels`, else None.

    The default split may also be `qrels.*`.
    """
    return (
        find_file(folder / "qrels", split, QRELS_ENDINGS)
        or find_file(folder, f"qrels.{split}", QRELS_ENDINGS)
        or find_file(folder, split, (".qrels", ".qrel"))
        or (find_file(folder, "qrels", QRELS_ENDINGS) if split == DEFAULT_SPLIT else None)
    )


def check_split(folder: Path, split: str, asked: bool, notices: Notices) -> None:
    """Note that the folder has judgments, or files that look like judgments, but none for this split.

    Without this notice, test queries would silently become training queries.

    asked: whether the user named the split. Raises DataError if so, if the split's file has an unknown format, or if
    no file in `qrels/` can be read.
    """
    if find_qrels(folder, split):
        return
    inside = _visible_files(folder / "qrels")
    readable = [file for file in inside if file_ending(file) in QRELS_ENDINGS]
    named = [file for file in inside if file.name.startswith(f"{split}.")]
    named += [file for file in _visible_files(folder) if file.name.startswith(f"qrels.{split}.")]
    if unread := [file for file in named if file_ending(file) not in QRELS_ENDINGS]:
        raise DataError(f"{unread[0]}: unknown file format. Use .tsv, .txt, .csv, .jsonl (also with .gz) or .parquet.")
    if not readable and (folder / "qrels").is_dir():
        raise DataError(
            f"{folder / 'qrels'} contains no file of judgments. Put {split}.tsv into it, or remove the folder."
        )
    beside = [file for file in _visible_files(folder) if file_ending(file) in QRELS_ENDINGS and "qrel" in file.name]
    stems = [
        *(_stem(file, QRELS_ENDINGS) for file in readable),
        *(_stem(file, QRELS_ENDINGS).removeprefix("qrels.") for file in beside),
    ]
    judged = sorted(stem for stem in {*stems} if find_qrels(folder, stem))
    if asked:
        remedy = f"Add qrels/{split}.tsv, or leave out --split (evaluate.split)."
        if judged:
            remedy = f"Pass one of these as --split (evaluate.split): {', '.join(judged)}. Or add qrels/{split}.tsv."
        raise DataError(f"{folder} has no judgments for split {split!r}. {remedy}")
    used = {file for stem in judged if (file := find_qrels(folder, stem))}
    near = [
        path
        for path in (*_paths_like_qrels(folder, split), *_paths_like_qrels(folder / "qrels", split))
        if path not in used
    ]
    if tests := [name for name in judged if "train" not in name]:
        problem = f"{folder} has judgments for {', '.join(tests)}, but not for split {split!r}."
        remedy = "Use --split (evaluate.split) to choose one of them"
        notices.add("split", f"{problem} {CONSEQUENCE} {remedy}.", f"{problem} {remedy}, or leave out --strict.")
    elif near:
        names = ", ".join(str(path.relative_to(folder)) for path in near)
        problem = f"{folder} has no judgments for split {split!r}, but these may be judgments: {names}."
        remedy = f"{'Rename it' if near[0].is_file() else 'Move the file in it'} to qrels/{split}.tsv"
        notices.add(
            "split",
            f"{problem} {CONSEQUENCE} {remedy}, or pass it with --qrels if the command has that option.",
            f"{problem} {remedy}, or leave out --strict.",
        )


def _paths_like_qrels(folder: Path, split: str) -> list[Path]:
    """Files and folders whose name looks like judgments, except training judgments. In `qrels/`, also every folder."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        name = path.name.lower()
        like = QRELS_LIKE_NAME.search(name) or (name.startswith(f"{split}.") and path.is_file())
        inner = folder.name == "qrels" and path.is_dir()
        if (
            (like or inner)
            and "train" not in name
            and name[0] != "."
            and path.suffix not in NEVER_QRELS_ENDINGS
            and path.name != "qrels"
        ):
            found.append(path)
    return found


def _visible_files(folder: Path) -> list[Path]:
    """The files of a folder that are not hidden, sorted by name."""
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))


def _known_ending(file: Path, endings: Sequence[str]) -> str:
    """The file's ending if it is one of these, else empty: `dev.small` has no ending."""
    return ending if (ending := file_ending(file)) in endings else ""


def _stem(file: Path, endings: Sequence[str]) -> str:
    """The file's name without `.gz` and without a known ending."""
    name = file.name[: -len(".gz")] if is_gzip(file) else file.name
    return name[: len(name) - len(_known_ending(file, endings))]
