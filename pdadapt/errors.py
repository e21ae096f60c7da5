"""What can go wrong in a way that the user can mend.

PdadaptError            one clear sentence that names the file, line or key, and the way out (exit code 1)
├── DataError           a corpus, queries, qrels or run file
├── RecipeError         a recipe, a --set, or a prompt file
├── ModelError          a model that cannot be found, loaded, or used as asked
└── RunError            a run folder that is in use, or that belongs to other settings
"""

from __future__ import annotations

import errno
from collections.abc import Iterator


class PdadaptError(Exception):
    """A problem that the user can mend; the message is one sentence with the way out."""


class DataError(PdadaptError):
    """A corpus, queries, qrels or run file is missing or malformed."""


class RecipeError(PdadaptError):
    """A recipe, a --set, or a prompt file is not valid."""


class ModelError(PdadaptError):
    """A model cannot be found, loaded, or used as asked."""


class RunError(PdadaptError):
    """A run folder is in use or belongs to other settings."""


def reason(error: BaseException) -> str:
    """What a library's exception says, in one line without a full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")


DISK_FULL = (  # how libraries say so; the last two are torch.save
    "No space left on device",
    "disk is full",
    "Disk quota exceeded",
    "file write failed",
    "unexpected pos",
)

MEMORY_FULL = ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU's memory, or this machine's, is full; torch is not imported for it."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(words in str(error) for words in MEMORY_FULL)


def explain(error: BaseException) -> str:
    """What to tell the user of whatever went wrong: one sentence."""
    if isinstance(error, PdadaptError):
        return str(error)
    causes = list(causes_of(error))
    full = [cause for cause in causes if getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT)]
    if full or any(words in str(cause) for cause in causes for words in DISK_FULL):
        return "the disk is full; what is finished is kept: free some space, and the same command goes on from there."
    if is_out_of_memory(error):
        return (
            "memory is full, and not even the smallest batch fits; what is finished is kept: go on with the same "
            "command on a larger machine, or give shorter texts (teacher.max_length, train.document_length) or a "
            "smaller model."
        )
    if isinstance(error, UnicodeEncodeError) and error.encoding == "utf-8":  # as Python has a name of other bytes
        near = error.object[max(0, error.start - 40) : error.end + 40]
        return f"{near!r} holds bytes that are not UTF-8: rename the file or folder; what is finished is kept."
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}; what is finished is kept."
    return f"unexpected {type(error).__name__}: {error} (--debug shows where)"


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
