"""What the commands share: a parser whose errors are one line, and how an error ends a command."""

import argparse
import contextlib
import sys
from typing import Any, NoReturn

from jaxcam.tables import printable


class UsageError(Exception):
    """A wrong option or weights file: one line on standard error, exit code 2."""


class Parser(argparse.ArgumentParser):
    """argparse without the usage text before every error."""

    def error(self, message: str) -> NoReturn:
        """One line on standard error, exit code 2."""
        self.exit(2, f"{self.prog}: {message}\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        # argparse drops what a full disk says where the output is not buffered.
        if message:
            (sys.stderr if file is None else file).write(message)


def one_line(error: BaseException) -> str:
    """The message of an error, in one line."""
    return printable(str(error)) or type(error).__name__


def report(message: str) -> None:
    """One line on standard error."""
    with contextlib.suppress(OSError):  # of a full or closed standard error, where nobody could be told
        print(f"jaxcam: {message}", file=sys.stderr, flush=True)
