"""What the commands share: a parser whose errors are one line and say what may have been meant, and files to write."""

import argparse
import contextlib
import difflib
import os
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jaxcam.tables import printable

_NEAR = 0.7
"""How like a known word another must be for it to be meant, from 0 to 1."""


class UsageError(Exception):
    """A wrong option or weights file: one line on standard error, exit code 2."""


class Parser(argparse.ArgumentParser):
    """argparse without the usage text before every error, and with the option that may have been meant."""

    def error(self, message: str) -> NoReturn:
        """One line on standard error, exit code 2."""
        self.exit(2, f"{self.prog}: {printable(message)}\n")

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As argparse does, but for what is said of an option that there is not."""
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            wrong = unknown[0].partition("=")[0]
            kind = "option" if wrong.startswith("-") else "place for"
            self.error(f"there is no {kind} {wrong}{hint(wrong, self._option_string_actions)}: see --help")
        return options

    def _print_message(self, message: str, file: Any = None) -> None:
        # argparse drops what a full disk says where the output is not buffered.
        if message:
            (sys.stderr if file is None else file).write(message)


def hint(word: str, among: Iterable[str]) -> str:
    """What may have been meant, after a comma, where one of the known words is near; else nothing."""
    near = difflib.get_close_matches(word.lower(), list(among), 1, _NEAR)
    return f", did you mean {near[0]}?" if near else ""


def known(kind: str, names: Collection[str]) -> Callable[[str], str]:
    """For `type=` of an option: one of the names, or an error that says which is near."""

    def one(text: str) -> str:
        if text in names:
            return text
        listed = ", ".join([*names][:12]) + (", ..." if len(names) > 12 else "")
        raise argparse.ArgumentTypeError(f"there is no {kind} {text!r}{hint(text, names) or f': use one of {listed}'}")

    return one


def checked_place(option: str, file: str | Path, suffixes: Collection[str]) -> Path:
    """A file that can be written, as far as that can be known before there is something to write.

    Raises:
        UsageError: its ending is another, it is a folder, or there is no folder for it that may be written to.
    """
    path = Path(file)
    given = printable(str(file))
    try:
        if path.is_dir():
            raise UsageError(f"{option}: {given!r} is a folder: add the name of a file")
        if suffixes and path.suffix.lower() not in suffixes:
            raise UsageError(f"{option} must end in one of {', '.join(suffixes)}, not {given!r}")
        folder = path.parent
        if not folder.exists():
            raise UsageError(f"{option}: there is no folder {printable(str(folder))!r}")
        if not folder.is_dir():
            raise UsageError(f"{option}: {printable(str(folder))!r} is a file and no folder")
        if not os.access(folder, os.W_OK):
            raise UsageError(f"{option}: nothing may be written to the folder {printable(str(folder))!r}")
    except OSError as error:  # a name that the system does not take
        raise UsageError(f"{option}: {given[:80]!r} cannot be a file ({error.strerror})") from None
    return path


def one_line(error: BaseException) -> str:
    """The message of an error, in one line."""
    return printable(str(error)) or type(error).__name__


def report(message: str) -> None:
    """One line on standard error."""
    with contextlib.suppress(OSError):  # of a full or closed standard error, where nobody could be told
        print(f"jaxcam: {message}", file=sys.stderr, flush=True)
