"""Names of files and folders, for whatever a user names: models, runs, corpora."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

MAX_NAME_BYTES = 120  # bytes of a name that are kept


def file_names(names: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """A name of a file for each name: the same in every call, and another for every other name.

    What a file's name cannot hold becomes `_`. A hash is added to names that would meet then, also where only upper
    and lower case tell them apart, that are too long, or that are `taken`.
    """
    found = {name: _slug(name) for name in names}
    met = Counter(map(_fold_case, [*found.values(), *taken]))
    plain = {
        name
        for name, slug in found.items()
        if slug and met[_fold_case(slug)] == 1 and len(slug.encode()) <= MAX_NAME_BYTES
    }
    return [found[name] if name in plain else hashed_name(name) for name in names]


def hashed_name(name: str, *more: str) -> str:
    """The name as a file can have it, the end of a long one, with eight digits of a hash of it and `more`."""
    kept = _slug(name).encode()[-MAX_NAME_BYTES:].decode(errors="ignore")
    digest = hashlib.sha256("\0".join([name, *more]).encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{kept}-{digest}".lstrip("-")


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._")


def _fold_case(name: str) -> str:
    """The same for names that some file systems take for one."""
    return unicodedata.normalize("NFC", name).casefold()
