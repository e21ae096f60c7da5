"""What can go wrong in a way that the user can mend.

PdadaptError            one clear sentence that names the file, line or key, and the way out (exit code 1)
├── DataError           a corpus, queries, qrels or run file
├── RecipeError         a recipe, a --set, or a prompt file
├── ModelError          a model that cannot be found, loaded, or used as asked
└── RunError            a run folder that is in use, or that belongs to other settings
"""


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
