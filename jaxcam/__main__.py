"""`python -m jaxcam`: explain pictures; `python -m jaxcam train`: train the embedded networks."""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

_COMMANDS = {"train": "jaxcam._command_train", "verify": "jaxcam._command_verify"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0, 1 if a picture among several failed, 2 for a wrong call."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    module = "jaxcam._command_explain"
    if arguments and arguments[0] in _COMMANDS:
        module = _COMMANDS[arguments.pop(0)]
    run: Callable[[list[str]], int] = import_module(module).run
    try:
        return run(arguments)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
