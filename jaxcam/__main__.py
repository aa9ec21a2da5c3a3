"""`python -m jaxcam`: explain pictures; `python -m jaxcam train`: train the embedded networks."""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from jaxcam.commands.parser import hint, one_line, printable, report

_COMMANDS = {name: f"jaxcam.commands.{name}" for name in ("evaluate", "layers", "train", "verify")}
_DRAWN = ("series", "volume", "clip", "caption", "question")
"""Kinds of inputs that are drawn and explained; the command reads which by itself."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0, 1 if a picture among several failed, 2 for what cannot be done."""
    if getattr(sys, "stderr", None) is None:  # closed, and Python would print to standard output instead
        sys.stderr = io.StringIO()
    if getattr(sys, "stdout", None) is None:
        report("standard output is closed: give it somewhere to go, as > /dev/null")
        return 2
    arguments = list(sys.argv[1:] if argv is None else argv)
    module = "jaxcam.commands.explain"
    if arguments and arguments[0] in _COMMANDS:
        module = _COMMANDS[arguments.pop(0)]
    elif arguments and arguments[0] in _DRAWN:
        module = "jaxcam.commands.drawn"
    elif arguments and (meant := _meant(arguments[0])):
        report(f"there is no file or command {printable(arguments[0])!r}{meant}: see --help")
        return 2
    try:
        run: Callable[[list[str]], int] = import_module(module).run
        try:
            return run(arguments)
        finally:  # after --help too
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read the table has gone, as `head` does
        _leave_output()
        return 1
    except OSError as error:
        # Files are named in their errors; what has no name is a stream.
        report(one_line(error) if error.filename is not None else f"standard output: {error.strerror or error}")
        _leave_output()
        return 2


def _meant(word: str) -> str:
    """What to do instead of a word that is nearly a command, and no option and no file."""
    is_one = word[:1] != "-" and not Path(word).suffix and not os.path.lexists(word)
    if is_one and word == "explain":
        return ", pictures are explained without one"
    return hint(word, (*_COMMANDS, *_DRAWN)) if is_one else ""


def _leave_output() -> None:
    """What could not be written is dropped: Python would complain once more when it closes the stream."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
