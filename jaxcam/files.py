"""Files that are written whole or not at all, and what a file must be to be read or written.

`replace_file`: at every moment the path holds what it held before or all of the new bytes.
"""

import contextlib
import os
import secrets
import stat
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO


def replace_file(target: Path, data: bytes) -> None:
    """The bytes at `target`, through a temporary file beside it that is removed if anything fails.

    A new file gets the permissions that the umask leaves it, an existing one keeps its own.

    Raises:
        OSError: it cannot be written; the error names `target`.
    """
    temporary = target.with_name(f".jaxcam-{secrets.token_hex(8)}.tmp")
    try:
        with naming(target):
            # Not by tempfile, whose files are private to the user and would stay so.
            with temporary.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            if target.exists():
                temporary.chmod(stat.S_IMODE(target.stat().st_mode))
            temporary.replace(target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_regular(path: Path) -> bytes:
    """What a file holds; a device may have no end, and a pipe keeps one waiting.

    Raises:
        ValueError: it is no regular file.
        OSError: it cannot be read.
    """
    with open(path, "rb", opener=_without_waiting) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise ValueError(f"{os.fspath(path)!r} is a pipe or a device, where a regular file is needed")
        return stream.read()


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Generator[None]:
    """Errors of the operating system with the name of this file: of a full disk they have none."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def check_regular(name: str, path: Path) -> None:
    """That a file to be written is a regular one, or not there yet: a device may have no end, a pipe keeps one waiting.

    Raises:
        ValueError: it is something else; the error names the argument.
    """
    with naming(path):
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise ValueError(f"{name} must be a regular file but {os.fspath(path)!r} is none: choose another name")


def lock(name: str, stream: BinaryIO, path: Path) -> None:
    """That no other run writes the file, for as long as the stream is open.

    Raises:
        ValueError: one does; the error names the argument.
    """
    with contextlib.suppress(ImportError):  # no such module on Windows
        import fcntl

        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(
                f"{name}: another run is writing {os.fspath(path)!r}: wait for it, or choose another file"
            ) from None
