"""Which file of a corpus' folder is what, whatever its format."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pdadapt.data.lines import file_ending, is_gzip
from pdadapt.data.notices import Notices
from pdadapt.errors import DataError

TABLE_ENDINGS = (".jsonl", ".json", ".tsv", ".csv", ".parquet")  # of documents and queries
QRELS_ENDINGS = (".tsv", ".txt", ".qrels", ".qrel", ".trec", "", ".csv", ".jsonl", ".json", ".parquet")
DEFAULT_SPLIT = "test"  # the split that nobody need ask for
QRELS_LIKE_NAME = re.compile("qrel|judg|relevan")  # in the name of a file or folder that may hold judgments
NEVER_QRELS_ENDINGS = (".py", ".sh", ".ipynb", ".md")  # and do not
CONSEQUENCE = "nothing is measured, and all queries are adapted on."


def find_file(folder: Path, stem: str, endings: Sequence[str] = TABLE_ENDINGS) -> Path | None:
    """The file of this name with one of the endings, `.gz` too: of several, that whose ending is named first."""
    found = [(_known_ending(file, endings), is_gzip(file), file) for file in _visible_files(folder)]
    known = [(endings.index(each), packed, file) for each, packed, file in found if each in endings]
    return next((file for *_, file in sorted(known) if _stem(file, endings) == stem), None)


def require_file(folder: Path, stem: str) -> Path:
    """The same. Raises DataError when there is none."""
    if (found := find_file(folder, stem)) is None:
        raise DataError(
            f"{folder} has no {stem}.jsonl: a BEIR folder holds corpus.jsonl, queries.jsonl and qrels/test.tsv; a "
            "folder of documents .txt or .md files."
        )
    return found


def find_qrels(folder: Path, split: str) -> Path | None:
    """The judgments of a split: `qrels/SPLIT.*`, `qrels.SPLIT.*` or `SPLIT.qrels`; of the default `qrels.*` too."""
    return (
        find_file(folder / "qrels", split, QRELS_ENDINGS)
        or find_file(folder, f"qrels.{split}", QRELS_ENDINGS)
        or find_file(folder, split, (".qrels", ".qrel"))
        or (find_file(folder, "qrels", QRELS_ENDINGS) if split == DEFAULT_SPLIT else None)
    )


def check_split(folder: Path, split: str, asked: bool, notices: Notices) -> None:
    """Say that the folder has judgments, or what may be some, but not of this split: its test queries would be adapted
    on without a word.

    Raises DataError when the split was asked for, when its file cannot be read, or when no file in `qrels/` can.
    """
    if find_qrels(folder, split):
        return
    inside = _visible_files(folder / "qrels")
    readable = [file for file in inside if file_ending(file) in QRELS_ENDINGS]
    named = [file for file in inside if file.name.startswith(f"{split}.")]
    named += [file for file in _visible_files(folder) if file.name.startswith(f"qrels.{split}.")]
    if unread := [file for file in named if file_ending(file) not in QRELS_ENDINGS]:
        raise DataError(f"{unread[0]}: cannot tell the format; use .tsv, .txt, .csv, .jsonl (.gz too) or .parquet.")
    if not readable and (folder / "qrels").is_dir():
        raise DataError(
            f"{folder / 'qrels'}: holds no file of judgments. Put {split}.tsv into it, or remove the folder."
        )
    beside = [file for file in _visible_files(folder) if file_ending(file) in QRELS_ENDINGS and "qrel" in file.name]
    stems = [
        *(_stem(file, QRELS_ENDINGS) for file in readable),
        *(_stem(file, QRELS_ENDINGS).removeprefix("qrels.") for file in beside),
    ]
    there = sorted(stem for stem in {*stems} if find_qrels(folder, stem))
    if asked:
        some = f", but for {', '.join(there)}; give one of these as --split (evaluate.split), or add qrels/{split}.tsv."
        none = f". Add qrels/{split}.tsv, or leave out --split (evaluate.split)."
        raise DataError(f"{folder} has no judgments for split {split!r}{some if there else none}")
    used = {found for stem in there if (found := find_qrels(folder, stem))}
    near = [
        path
        for path in (*_paths_like_qrels(folder, split), *_paths_like_qrels(folder / "qrels", split))
        if path not in used
    ]
    if tests := [name for name in there if "train" not in name]:
        notices.add(
            "split",
            f"{folder} has judgments for {', '.join(tests)}, but not for split {split!r}: {CONSEQUENCE} Give --split "
            "(evaluate.split) to use one of them.",
            f"{folder} has judgments for {', '.join(tests)}, but not for split {split!r}. Give --split "
            "(evaluate.split) to use one of them, or leave out --strict.",
        )
    elif near:
        names = ", ".join(str(path.relative_to(folder)) for path in near)
        lacks = f"{folder} has no judgments for split {split!r}, but what may be some ({names})"
        rename = f"{'Rename it' if near[0].is_file() else 'Move the file in it'} to qrels/{split}.tsv"
        notices.add(
            "split",
            f"{lacks}: {CONSEQUENCE} {rename}, or give it with --qrels, where a command has that.",
            f"{lacks}. {rename}, or leave out --strict.",
        )


def _paths_like_qrels(folder: Path, split: str) -> list[Path]:
    """What is there whose name is like that of judgments, but for those of training; in `qrels/` every folder."""
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
    """Those that are not hidden, in the order of their names."""
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))


def _known_ending(file: Path, endings: Sequence[str]) -> str:
    """Its ending, if it is one of these: `dev.small` has none."""
    return found if (found := file_ending(file)) in endings else ""


def _stem(file: Path, endings: Sequence[str]) -> str:
    """Its name without the ending."""
    name = file.name[: -len(".gz")] if is_gzip(file) else file.name
    return name[: len(name) - len(_known_ending(file, endings))]
