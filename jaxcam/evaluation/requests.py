"""The methods of an evaluation: names with options -> what `explain` is asked for."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jaxcam.explanation import arguments as _arguments
from jaxcam.explanation.batch import Request
from jaxcam.explanation.raw_maps import takes
from jaxcam.methods.method import METHODS

Methods = Sequence[str] | Mapping[str, str | Mapping[str, Any]]


def requests_of(methods: Methods, layer: Any) -> dict[str, Request]:
    """By the names of the table's rows.

    Raises:
        TypeError, ValueError: no such method or option, no methods, the same twice.
    """
    if isinstance(methods, str) or not isinstance(methods, Mapping | Sequence):
        raise TypeError(f"methods must be a list of names, as ['grad_cam', 'cam'], not {methods!r}")
    if not methods:
        raise ValueError(f"methods is empty: name one or more of {', '.join(METHODS)}")
    if not isinstance(methods, Mapping):
        twice = [name for i, name in enumerate(methods) if name in methods[:i]]
        if twice:
            raise ValueError(f"methods has {twice[0]!r} twice")
        methods = {_text(name): name for name in methods}
    requests: dict[str, Request] = {}
    for row, choice in methods.items():
        options = dict(choice) if isinstance(choice, Mapping) else parsed(choice)
        if "method" not in options:
            raise ValueError(f"methods[{row!r}] must be a name, or a dictionary with method=, not {choice!r}")
        name, score = options.pop("method"), options.pop("score", None)
        key = jax.random.key(0) if name in METHODS and takes(name, "key") else None
        try:
            chosen = _arguments.checked_choice(name, score, key, options)
            layers = _arguments.checked_layers(None if name == "guided_backprop" else layer, "max", name)
        except (TypeError, ValueError) as error:
            raise type(error)(f"methods: {error}") from None
        requests[_text(row)] = Request(chosen, layers, several=False, fusion="max", num_classes=None)
    return requests


def parsed(choice: str) -> dict[str, Any]:
    """A name with options, `grad_cam_pp:alphas=exact`, as a dictionary with "method" and the options."""
    name, *options = _text(choice).split(":")
    found: dict[str, Any] = {"method": name}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"methods: {choice!r} must look like grad_cam_pp:alphas=exact:normalize_alphas=true")
        found[key] = _value(value)
    return found


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _text(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"methods must be names, but one is {name!r}")
    return name
