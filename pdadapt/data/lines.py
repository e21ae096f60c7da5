"""Read text files: encodings, gzip, and access to single lines by their position in the file."""

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
    """A file's name as printable text. Bytes that are not UTF-8 become \\x..."""
    return os.fsencode(name).decode(errors="backslashreplace")


BYTE_ORDER_MARKS = {  # the longer ones first, since UTF-32's begins with UTF-16's
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
    b"\xef\xbb\xbf": "utf-8-sig",
}


def check_file(path: Path) -> None:
    """Raises DataError if there is no such file."""
    if os.path.isdir(path):
        raise DataError(f"{path} is a folder, not a file. Choose a file.")
    if not os.path.isfile(path):
        raise DataError(f"File {path} not found. Check its name.")


def has_utf8_name(path: Path) -> bool:
    """Whether the file's name is valid UTF-8.

    Python represents other bytes in a name as halves of surrogate pairs, which most libraries refuse.
    """
    try:
        return bool(str(path).encode())
    except UnicodeEncodeError:
        return False


def file_ending(path: Path) -> str:
    """The ending of a file's name in lower case, without `.gz`: `.tsv` for `x.tsv` and `x.TSV.gz`."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def is_gzip(path: Path) -> bool:
    """Whether the file's name ends in `.gz`."""
    return path.name.lower().endswith(".gz")


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """Open a text file, also with `.gz`, without translating line breaks.

    A byte order mark selects the encoding; the default is UTF-8. Raises DataError if the file is missing, if it cannot
    be decompressed, or (while it is read) if it is not text.
    """
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
    """The lines of a text file, addressed by the byte at which they start.

    A UTF-8 file stays on disk (mmap). A compressed file, or one in UTF-16 or UTF-32, is held in memory.
    """

    def __init__(self, path: Path):
        """Raises DataError if the file is missing or cannot be decompressed."""
        check_file(path)
        self.path = path
        self.bytes = _read_utf8(path)
        self._begin = 3 if _detect_encoding(self.bytes[:4]) == "utf-8-sig" else 0
        old_mac = self.bytes.find(b"\n") < 0 <= self.bytes.find(b"\r")
        self._break = b"\r" if old_mac else b"\n"

    def __iter__(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield (line number from 1, start, line without its break)."""
        number, start, size = 1, self._begin, len(self.bytes)
        while start < size:
            end = self._end(start)
            yield number, start, self.bytes[start:end].removesuffix(b"\r")
            number, start = number + 1, end + 1

    def at(self, start: int) -> bytes:
        """The line that starts at this byte, without its break."""
        return self.bytes[start : self._end(start)].removesuffix(b"\r")

    def decode(self, line: bytes, where: str) -> str:
        """The line as text. where: "file:line". Raises DataError if it is not UTF-8."""
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            raise _not_utf8_line_error(self.path, where, error, self.bytes[:4096]) from None

    def start_of(self, position: int) -> int:
        """The byte at which the line that contains this byte starts."""
        return max(self._begin, self.bytes.rfind(self._break, 0, position) + 1)

    def next_line(self, start: int) -> bytes:
        """The next line after the one that starts at this byte. Blank lines are skipped. Empty at the end."""
        start = self._end(start) + 1
        while start < len(self.bytes):
            if line := self.at(start).strip():
                return line
            start = self._end(start) + 1
        return b""

    def where(self, start: int) -> str:
        """ "file:line" of the line that starts at this byte. This reads all lines before it."""
        return f"{self.path}:{next(number for number, line_start, _ in self if line_start == start)}"

    def _end(self, start: int) -> int:
        """The byte after the last one of a line, without its break."""
        end = self.bytes.find(self._break, start)
        return len(self.bytes) if end < 0 else end


def _detect_encoding(head: bytes) -> str:
    """The encoding that a file's first bytes tell, by a byte order mark; else UTF-8."""
    return next((encoding for mark, encoding in BYTE_ORDER_MARKS.items() if head.startswith(mark)), "utf-8")


def _read_utf8(path: Path) -> bytes | mmap.mmap:
    """The file's content in UTF-8. Uncompressed UTF-8 files are mapped from disk."""
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
    """The error for a file that is not UTF-8. It names the first bad line."""
    lines = Lines(path)
    for number, _, line in lines:
        try:
            lines.decode(line, f"{path}:{number}")
        except DataError as error:
            return error
    return DataError(f"{path} changed while it was read. Repeat the command.")


def _not_utf8_line_error(path: Path, where: str, error: UnicodeDecodeError, head: bytes) -> DataError:
    """The error for a line that is not UTF-8. It names a command that converts the file from its likely encoding.

    head: the first bytes of the file.
    """
    if b"\0" in error.object:
        likely = "utf-16le" if head[1::2].count(0) >= head[::2].count(0) else "utf-16be"
    else:
        likely = "windows-1252" if any(0x80 <= byte < 0xA0 for byte in error.object) else "latin1"
    name = shlex.quote(str(path))
    command = f"iconv -f {likely} -t utf-8"
    command = f"gunzip -c {name} | {command} | gzip" if is_gzip(path) else f"{command} {name}"
    return DataError(f"{where}: not UTF-8 text ({reason(error)}). If it is text, convert it: {command} > NEW.")


def _wide_text_error(path: Path, encoding: str, error: UnicodeDecodeError) -> DataError:
    return DataError(
        f"{path} starts with the byte order mark of {encoding.upper()}, but cannot be decoded ({reason(error)}). Save "
        "it as UTF-8."
    )


def _gzip_error(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} cannot be decompressed as gzip ({reason(error)}). Download or compress it again.")
