"""Names of files and folders for what a user names: models, runs, corpora."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

MAX_NAME_BYTES = 120  # bytes that are kept of a name


def file_names(names: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """A file name for each name. It is the same in every call, and two names never share one.

    Characters that a file name cannot hold become `_`. A hash is added to names that are too long, that are `taken`,
    or that would be equal otherwise (case is ignored).
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
    """A file name: the name, or the end of a long one, with eight digits of a hash of the name and `more`."""
    kept = _slug(name).encode()[-MAX_NAME_BYTES:].decode(errors="ignore")
    digest = hashlib.sha256("\0".join([name, *more]).encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{kept}-{digest}".lstrip("-")


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip("._")


def _fold_case(name: str) -> str:
    """Equal for names that some file systems cannot tell apart."""
    return unicodedata.normalize("NFC", name).casefold()
