"""Any text on any terminal: control characters are escaped, and what the terminal's encoding lacks is replaced."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import re
import sys
import textwrap

# Characters that steer a terminal (C0 without line feed and tab, DEL, C1), that turn the direction of writing or break
# the line, and halves of surrogate pairs, which stand for the bytes of a file's name that are not UTF-8.
CONTROL = re.compile("[\0-\b\v-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]")
REPLACED = {
    **dict(zip("→←±…−–—•·×≤≥≈\xa0", ("->", "<-", "+/-", "...", *"---*", ".", "x", "<=", ">=", "~", " "), strict=True)),
    **dict(zip("‘’‚“”„«»", "''," + '"' * 5, strict=True)),
    **dict.fromkeys("─━╌╍┄┅╴╶╸╺", "-"),
    **dict.fromkeys("│┃╎╏┆┇╵╷╹╻", "|"),
    **{chr(code): "*" for code in range(0x2800, 0x2900)},  # braille, of which spinners are made
}
ERRORS = "pdadapt.replace"  # the name of the error handler


def printable(text: str) -> str:
    """The text, with characters that are no text as escapes, such as \\x1b and \\u202e."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text.replace("\r\n", "\n"))


def shorten(text: str, width: int, placeholder: str) -> str:
    """At most so many characters of a text, white space made one, cut between words where that leaves enough of it."""
    whole = " ".join(text.split())
    cut = textwrap.shorten(whole, width, placeholder=placeholder)
    return cut if 2 * len(cut) >= min(width, len(whole)) else whole[: width - len(placeholder)] + placeholder


def markdown(text: str) -> str:
    """The text in one line of Markdown, of which nothing in it is markup."""
    return re.sub(r"[\\|*<`\[\]]", r"\\\g<0>", " ".join(printable(text).split()))


def encodable(text: str, encoding: str) -> str:
    """The text, with characters that the encoding lacks replaced by like ones, or by escapes such as \\u4e2d."""
    return text.encode(encoding, ERRORS).decode(encoding)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return "".join(REPLACED.get(letter) or letter.encode("unicode_escape").decode() for letter in found), error.end


codecs.register_error(ERRORS, _replace)


def open_streams() -> None:
    """From now on standard output and error take any text, whatever their encoding; standard input any bytes."""
    for stream, errors in ((sys.stdout, ERRORS), (sys.stderr, ERRORS), (sys.stdin, "replace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def close_streams() -> None:
    """Write what is left; where nobody reads any more (`pdadapt ... | head`), without a word."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except (AttributeError, ValueError):  # there is none, or it is closed
            pass
