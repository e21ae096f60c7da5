"""Documents, queries and judgments.

Ids are strings. A document's text for every model, student or teacher, is `Document.contents`.
"""

from __future__ import annotations

import gzip
import mmap
import os
import shlex
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pdadapt.errors import DataError, reason


def path_text(name: str | Path) -> str:
    """A file's name as text, with \\x.. for bytes that are not UTF-8."""
    return os.fsencode(name).decode(errors="backslashreplace")


BYTE_ORDER_MARKS = {  # byte order marks, the longer first
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
    b"\xef\xbb\xbf": "utf-8-sig",
}


def check_file(path: Path) -> None:
    """Raises DataError when there is no such file."""
    if os.path.isdir(path):
        raise DataError(f"{path} is a folder; give a file.")
    if not os.path.isfile(path):
        raise DataError(f"File {path} was not found; check its name.")


def has_utf8_name(path: Path) -> bool:
    """Whether the file's name is. Else Python has it with halves of surrogate pairs, which most libraries refuse."""
    try:
        return bool(str(path).encode())
    except UnicodeEncodeError:
        return False


def file_ending(path: Path) -> str:
    """What a file's name says about its format, as `.tsv`; of `.tsv.gz` too."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def is_gzip(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """A text file, its line breaks as they are. Raises DataError when it is missing, or turns out to be no text."""
    check_file(path)
    opened = gzip.open if is_gzip(path) else open
    try:
        with opened(path, "rb") as file:
            encoding = _detect_encoding(file.read(4))
        with opened(path, "rt", encoding=encoding, newline="") as lines:
            yield lines
    except UnicodeDecodeError as error:
        raise (
            _not_utf8_file_error(path) if encoding.startswith("utf-8") else _wide_text_error(path, encoding, error)
        ) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _gzip_error(path, error) from None


class Lines:
    """The lines of a text file by where they start, in bytes: on disk, or in memory if packed or not in UTF-8."""

    def __init__(self, path: Path):
        """Raises DataError when the file is missing, or cannot be unpacked."""
        check_file(path)
        self.path = path
        self.bytes = _read_utf8(path)
        self._begin = 3 if _detect_encoding(self.bytes[:4]) == "utf-8-sig" else 0
        old_mac = self.bytes.find(b"\n") < 0 <= self.bytes.find(b"\r")
        self._break = b"\r" if old_mac else b"\n"

    def __iter__(self) -> Iterator[tuple[int, int, bytes]]:
        """(number, start, line without its break) of each."""
        number, start, size = 1, self._begin, len(self.bytes)
        while start < size:
            end = self._end(start)
            yield number, start, self.bytes[start:end].removesuffix(b"\r")
            number, start = number + 1, end + 1

    def at(self, start: int) -> bytes:
        """The line that starts there, without its break."""
        return self.bytes[start : self._end(start)].removesuffix(b"\r")

    def text(self, line: bytes, where: str) -> str:
        """Raises DataError when the line is no text."""
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            raise _not_utf8_line_error(self.path, where, error, self.bytes[:4096]) from None

    def start_of(self, position: int) -> int:
        """Where the line begins that this byte is in."""
        return max(self._begin, self.bytes.rfind(self._break, 0, position) + 1)

    def after(self, start: int) -> bytes:
        """The next line that is not blank; empty when there is none."""
        start = self._end(start) + 1
        while start < len(self.bytes):
            if line := self.at(start).strip():
                return line
            start = self._end(start) + 1
        return b""

    def where(self, start: int) -> str:
        """ "file:line" of the line that starts there; what is before it is read."""
        return f"{self.path}:{next(number for number, begun, _ in self if begun == start)}"

    def _end(self, start: int) -> int:
        found = self.bytes.find(self._break, start)
        return len(self.bytes) if found < 0 else found


def _detect_encoding(head: bytes) -> str:
    return next((encoding for mark, encoding in BYTE_ORDER_MARKS.items() if head.startswith(mark)), "utf-8")


def _read_utf8(path: Path) -> bytes | mmap.mmap:
    """The file's content: mapped from disk where it can be."""
    if is_gzip(path):
        try:
            with gzip.open(path) as packed:
                content: bytes | mmap.mmap = packed.read()
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise _gzip_error(path, error) from None
    else:
        with open(path, "rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if os.fstat(file.fileno()).st_size else b""
    if (encoding := _detect_encoding(content[:4])) in ("utf-16", "utf-32"):
        try:
            return content[:].decode(encoding).encode()
        except UnicodeDecodeError as error:
            raise _wide_text_error(path, encoding, error) from None
    return content


def _not_utf8_file_error(path: Path) -> DataError:
    """What is wrong with a file that is not UTF-8, and in which line."""
    lines = Lines(path)
    for number, _, line in lines:
        try:
            lines.text(line, f"{path}:{number}")
        except DataError as error:
            return error
    return DataError(f"{path} changed while it was read; give the same command again.")


def _not_utf8_line_error(path: Path, where: str, error: UnicodeDecodeError, head: bytes) -> DataError:
    """Names the command that makes UTF-8 of what the line most likely is. head: what the file begins with."""
    if b"\0" in error.object:
        likely = "utf-16le" if head[1::2].count(0) >= head[::2].count(0) else "utf-16be"
    else:
        likely = "windows-1252" if any(0x80 <= byte < 0xA0 for byte in error.object) else "latin1"
    name = shlex.quote(str(path))
    command = f"iconv -f {likely} -t utf-8"
    command = f"gunzip -c {name} | {command} | gzip" if is_gzip(path) else f"{command} {name}"
    return DataError(f"{where}: not UTF-8 text ({reason(error)}); convert it, if it is text ({command} > NEW).")


def _wide_text_error(path: Path, encoding: str, error: UnicodeDecodeError) -> DataError:
    return DataError(
        f"{path} begins like {encoding.upper()} text, but is none ({reason(error)}); write it anew, in UTF-8."
    )


def _gzip_error(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read as gzip ({reason(error)}); fetch or pack it anew.")
