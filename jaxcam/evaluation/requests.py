"""The methods of an evaluation: names with options, or functions -> what `explain` is asked for."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax

from jaxcam.cuts.model import Adapted
from jaxcam.explanation.arguments import layers_of
from jaxcam.explanation.batch import Request, explained
from jaxcam.explanation.costs import CostError
from jaxcam.methods.method import METHODS, Method, bind

__all__ = ["Choice", "Methods", "affordable", "parsed", "requests_of"]

Choice = str | Callable[..., Any] | Method
"""A method, by its name with options or as it is."""
Methods = Sequence[Choice] | Mapping[str, Choice | Mapping[str, Any]]


def requests_of(methods: Methods, layer: Any) -> dict[str, Request]:
    """By the names of the table's rows.

    Raises:
        TypeError, ValueError: no such method or option, no methods, the same twice.
    """
    if isinstance(methods, str) or not isinstance(methods, Mapping | Sequence):
        raise TypeError(f"methods must be a list of names or functions, as ['grad_cam', 'cam'], but is {methods!r}")
    if not methods:
        raise ValueError(f"methods must not be empty: name one or more of {', '.join(METHODS)}")
    if not isinstance(methods, Mapping):
        names = [_row(choice) for choice in methods]
        twice = [name for i, name in enumerate(names) if name in names[:i]]
        if twice:
            raise ValueError(f"methods has {twice[0]!r} twice: give the rows names of their own in a dictionary")
        methods = dict(zip(names, methods, strict=True))
    requests: dict[str, Request] = {}
    for row, choice in methods.items():
        options: dict[str, Any] = {"method": choice}
        if isinstance(choice, Mapping):
            options = dict(choice)
        elif isinstance(choice, str):
            options = parsed(choice)
        if "method" not in options:
            raise ValueError(f"methods[{row!r}] must be a method, or a dictionary with method=, but is {choice!r}")
        method, score = options.pop("method"), options.pop("score", None)
        try:
            bound = bind(method, options, score=score, key=None, draws=True)
            layers = layers_of(layer if bound.takes_layer else None, "max", bound)
        except (TypeError, ValueError) as error:
            raise type(error)(f"methods: {error}") from None
        requests[_text(row)] = Request(bound, layers, several=False, fusion="max", num_classes=None)
    return requests


def _row(choice: Any) -> str:
    """What a method is called in the table unless it is said."""
    return choice if isinstance(choice, str) else bind(choice, {}, draws=True).name


def affordable(
    requests: Mapping[str, Request], model: Adapted, example: Any
) -> tuple[dict[str, Request], dict[str, str]]:
    """Those whose maps do not cost very much more than the model, and why the others are left out, by their rows.

    For methods that nobody has named: what is named and dear is refused when it is traced. The example is one input's
    shapes, without the axis n.
    """
    batch = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), example)
    dear: dict[str, str] = {}
    for row, request in requests.items():
        if "alphas" in request.method.parameters:
            found = partial(explained, request=request, class_idx=None, key=None)
            try:
                jax.eval_shape(lambda model, inputs, found=found: found(model, inputs=inputs).logits, model, batch)
            except CostError as error:
                dear[row] = str(error)
    return {row: request for row, request in requests.items() if row not in dear}, dear


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
