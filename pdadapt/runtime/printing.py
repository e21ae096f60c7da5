"""Print any text on any terminal.

Control characters are escaped. Characters that the encoding of the terminal lacks are replaced.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import re
import sys
import textwrap

# Characters that control a terminal (C0 without line feed and tab, DEL, C1), that change the direction of writing or
# break the line, and surrogates. Python uses surrogates for the bytes of a file's name that are not UTF-8.
CONTROL = re.compile("[\0-\b\v-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]")
REPLACED = {
    **dict(zip("→←±…−–—•·×≤≥≈\xa0", ("->", "<-", "+/-", "...", *"---*", ".", "x", "<=", ">=", "~", " "), strict=True)),
    **dict(zip("‘’‚“”„«»", "''," + '"' * 5, strict=True)),
    **dict.fromkeys("─━╌╍┄┅╴╶╸╺", "-"),
    **dict.fromkeys("│┃╎╏┆┇╵╷╹╻", "|"),
    **{chr(code): "*" for code in range(0x2800, 0x2900)},  # Braille patterns, which spinners consist of
}
ERRORS = "pdadapt.replace"  # the name of the error handler


def printable(text: str) -> str:
    """The text with control characters as escapes, such as \\x1b and \\u202e."""
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text.replace("\r\n", "\n"))


def shorten(text: str, width: int, placeholder: str) -> str:
    """The first `width` characters of a text. White space is collapsed.

    The cut is between words, unless less than half of the width would remain.
    """
    whole = " ".join(text.split())
    cut = textwrap.shorten(whole, width, placeholder=placeholder)
    return cut if 2 * len(cut) >= min(width, len(whole)) else whole[: width - len(placeholder)] + placeholder


def markdown(text: str) -> str:
    """The text as one line of Markdown, with all markup escaped."""
    return re.sub(r"[\\|*<`\[\]]", r"\\\g<0>", " ".join(printable(text).split()))


def encodable(text: str, encoding: str) -> str:
    """The text with characters that the encoding lacks as similar characters, or as escapes such as \\u4e2d."""
    return text.encode(encoding, ERRORS).decode(encoding)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(REPLACED.get(one) or one.encode("unicode_escape").decode() for one in lacking), error.end


codecs.register_error(ERRORS, _replace)


def open_streams() -> None:
    """Make standard output and error accept any text, and standard input any bytes, whatever their encoding."""
    for stream, errors in ((sys.stdout, ERRORS), (sys.stderr, ERRORS), (sys.stdin, "replace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def close_streams() -> None:
    """Write what is buffered. If the reader is gone (`pdadapt ... | head`), be silent."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except (AttributeError, ValueError):  # no stream, or a closed one
            pass
