"""Standard streams that never raise: what cannot be encoded is replaced, and what is not read is dropped."""

import codecs
import errno
import io
import os
import sys
import unicodedata
from contextlib import suppress
from typing import Any, TextIO

PLAIN = {  # what replaces the characters that Plumbline itself writes
    **{"≥": ">=", "≤": "<=", "−": "-", "–": "-", "—": "-", "…": "...", "→": "->", "×": "x", "·": "*", "‖": "||"},
    **{"β": "beta", "±": "+-", "“": '"', "”": '"', "’": "'", "‘": "'", "█": "#", "░": ".", "•": "*"},
}
REPLACE = "plumbline.replace"
STDERR = 2


class Pipe(io.RawIOBase):
    """A stream to a file descriptor; once that cannot be written to, it drops the output instead of raising."""

    def __init__(self, descriptor: int) -> None:
        """Write to `descriptor`, which stays open."""
        self.descriptor = descriptor
        self.broken = False

    def write(self, data: Any, /) -> int:
        """Write all of it, or drop what cannot be written."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest and not self.broken:
            try:
                rest = rest[os.write(self.descriptor, rest) :]
            except BlockingIOError:
                self.broken = not _drained(self.descriptor)
            except OSError as error:  # closed by its reader, or a full disk
                self.broken = True
                if error.errno != errno.EPIPE and self.descriptor != STDERR:
                    with suppress(OSError):
                        os.write(STDERR, f"plumbline: the output is not written: {error.strerror}\n".encode())
        return size

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The file descriptor."""
        return self.descriptor

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self.descriptor)


def make_steady() -> None:
    """Replace this process's standard streams by such ones; call it before other modules keep references to them."""
    codecs.register_error(REPLACE, replace)
    sys.stdout = _steady(sys.stdout, sys.__stdout__)
    sys.stderr = _steady(sys.stderr, sys.__stderr__)


def replace(error: UnicodeError) -> tuple[str, int]:
    """A codecs error handler: a plain spelling of a character that the encoding lacks, or a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(_plainly(sign, error.encoding) for sign in signs), error.end


def _steady(stream: TextIO | None, original: TextIO | None) -> TextIO:
    if stream is None:  # it was closed when we were started
        return open(os.devnull, "w", encoding="utf-8", errors="replace")  # noqa: PTH123 - for good
    if stream is not original or isinstance(getattr(stream.buffer, "raw", None), Pipe):
        return stream  # somebody else's, as a test's
    with suppress(OSError):
        stream.flush()
    at_once = getattr(stream, "line_buffering", False) or getattr(stream, "write_through", False)
    return io.TextIOWrapper(io.BufferedWriter(Pipe(stream.fileno())), stream.encoding, REPLACE, line_buffering=at_once)


def _plainly(sign: str, encoding: str) -> str:
    for other in (PLAIN.get(sign, ""), unicodedata.normalize("NFKD", sign)[:1]):
        with suppress(UnicodeEncodeError):
            if other and other.encode(encoding):
                return other
    return "?"


def _drained(descriptor: int) -> bool:
    """Wait until a pipe that does not block can take more; False where it never will."""
    import select

    try:
        return bool(select.select([], [descriptor], [], 60.0)[1])
    except (OSError, ValueError):
        return False
