"""The errors that a user can mend.

PdadaptError            names the file, line or key, and the way out (exit code 1, chosen in cli/main.py)
├── DataError           a corpus, queries, qrels or run file
├── RecipeError         a recipe, a --set, or a prompt file
├── ModelError          a model that cannot be found, loaded, or used as asked
└── RunError            a run folder that is in use, or that belongs to other settings
"""

from __future__ import annotations

import errno
from collections.abc import Iterator


class PdadaptError(Exception):
    """A problem that the user can mend. The message says how."""


class DataError(PdadaptError):
    """A corpus, queries, qrels or run file is missing or malformed."""


class RecipeError(PdadaptError):
    """A recipe, a --set, or a prompt file is not valid."""


class ModelError(PdadaptError):
    """A model cannot be found, loaded, or used as asked."""


class RunError(PdadaptError):
    """A run folder is in use or belongs to other settings."""


def reason(error: BaseException) -> str:
    """The message of a library's exception, as one line without a full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")


DISK_FULL = (  # the words of libraries; the last two are torch.save's
    "No space left on device",
    "disk is full",
    "Disk quota exceeded",
    "file write failed",
    "unexpected pos",
)

MEMORY_FULL = ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of a GPU or of this machine is full. It does not import torch."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(words in str(error) for words in MEMORY_FULL)


def explain(error: BaseException) -> str:
    """The message for the user about any error."""
    if isinstance(error, PdadaptError):
        return str(error)
    causes = list(causes_of(error))
    full = [cause for cause in causes if getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT)]
    if full or any(words in str(cause) for cause in causes for words in DISK_FULL):
        return "the disk is full. Finished work is kept. Free some space, and run the same command to continue."
    if is_out_of_memory(error):
        return (
            "memory is full: not even the smallest batch fits. Finished work is kept. Run the same command on a "
            "larger machine, or choose shorter texts (teacher.max_length, train.document_length) or a smaller model."
        )
    # Python puts surrogates in place of bytes that are not UTF-8.
    if isinstance(error, UnicodeEncodeError) and error.encoding == "utf-8":
        near = error.object[max(0, error.start - 40) : error.end + 40]
        return f"{near!r} holds bytes that are not UTF-8. Rename the file or folder. Finished work is kept."
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}. Finished work is kept."
    return f"unexpected {type(error).__name__}: {error} (--debug shows where)"


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
