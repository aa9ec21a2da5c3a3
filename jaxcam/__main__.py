"""`python -m jaxcam`: explain pictures; `python -m jaxcam train`: train the embedded networks."""

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

_COMMANDS = {name: f"jaxcam.commands.{name}" for name in ("evaluate", "train", "verify")}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0, 1 if a picture among several failed, 2 for a wrong call."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    module = "jaxcam.commands.explain"
    if arguments and arguments[0] in _COMMANDS:
        module = _COMMANDS[arguments.pop(0)]
    run: Callable[[list[str]], int] = import_module(module).run
    try:
        code = run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read the table has gone, as `head` does. Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
