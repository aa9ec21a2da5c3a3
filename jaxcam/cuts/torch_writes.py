"""Writes in place by torch modules, which torchax follows through slices only: `x.view(-1).add_(1)` leaves its x alone.

In torch several tensors may be views of the same memory, and what is written to one is seen in all. torchax has an
array for each tensor. So it is kept here which tensors are views of each other, as far as they still exist, and a write
that another one of them would have to see is refused. With

    y = x.view(-1); y.add_(1)    refused while x exists: it would not change
    x = x.view(-1); x.add_(1)    goes on: nobody sees the old x any more
    x[1:3].zero_()               goes on: a slice writes to what it was taken from
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Generator, Iterable
from typing import Any

import jax

from jaxcam.cuts.refusals import RefusedError

__all__ = ["environment", "share", "watched"]

_COPIES = ("clone", "_to_copy")
"""What returns the same array, and other memory."""


@functools.cache
def environment(torchax: Any) -> Any:
    """The environment in which torch computes with JAX: torchax's, with the rules of this file."""

    class Environment(torchax.tensor.Environment):
        is_writing = False

        def dispatch(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
            writes, views, name = _effect(func)
            kwargs = kwargs or {}
            if self.is_writing:  # what a write is made of
                return super().dispatch(func, types, args, kwargs)
            targets = _tensors([kwargs["out"]] if "out" in kwargs else args[:1], torchax) if writes else []
            if targets:
                for target in targets:
                    _check_write(target, name, torchax)
                self.is_writing = True
                try:
                    return self._written(targets[0], func, types, args, kwargs)
                finally:
                    self.is_writing = False
            result = super().dispatch(func, types, args, kwargs)
            sources = [] if name in _COPIES else _tensors([*args, *kwargs.values()], torchax)
            for made in _tensors([result], torchax):
                for source in sources:
                    if made is not source and ((views and made.dtype == source.dtype) or _is_same(made, source)):
                        share(made, source)
            return result

        def _written(self, target: Any, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
            if not isinstance(target, torchax.view.View) or self._get_op_or_decomp(func).is_view_op:
                return super().dispatch(func, types, args, kwargs)
            # A slice is handed to most operations as a copy: what they wrote to that is written back.
            copied = target.torch()
            if "out" in kwargs:
                super().dispatch(func, types, args, {**kwargs, "out": copied})
            else:
                super().dispatch(func, types, (copied, *args[1:]), kwargs)
            target.update(copied)
            return target

    with jax.ensure_compile_time_eval():  # its random key is no part of whatever is being traced
        return Environment()


def share(made: Any, source: Any) -> None:
    """Notes that two tensors are views of the same memory."""
    family = source.__dict__.setdefault("_jaxcam_family", {id(source): weakref.ref(source)})
    made.__dict__["_jaxcam_family"] = family
    family[id(made)] = weakref.ref(made)


@contextlib.contextmanager
def watched(torchax: Any) -> Generator[None]:
    """Methods of torchax's tensors that are not dispatched, with the same rules."""
    tensor, view = torchax.tensor.Tensor, torchax.view.View
    own = (tensor, "__setitem__"), (view, "__setitem__"), (tensor, "flatten"), (tensor, "detach"), (tensor, "type_as")
    found = {(kind, name): vars(kind)[name] for kind, name in own}

    def shared(method: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        made = method(self, *args, **kwargs)
        share(made, self)
        return made

    def checked(method: Any, self: Any, *args: Any) -> None:
        _check_write(self, "__setitem__", torchax)
        method(self, *args)

    for (kind, name), method in found.items():
        rule = checked if name == "__setitem__" else shared
        setattr(kind, name, functools.partialmethod(functools.partial(rule, method)))
    tensor.type_as = lambda self, other: self.to(other.dtype)  # torchax's changes the tensor itself
    try:
        yield
    finally:
        for (kind, name), method in found.items():
            setattr(kind, name, method)


def _check_write(target: Any, name: str, torchax: Any) -> None:
    """Refuses a write that another tensor would have to see."""

    def root(tensor: Any) -> Any:
        return root(tensor.parent) if isinstance(tensor, torchax.view.View) else tensor

    written = root(target)
    family = {**_family(target), **_family(written)}
    others = [other for ref in family.values() if (other := ref()) is not None]
    if any(root(other) is not written for other in others):
        raise RefusedError(
            f"a module writes in place ({name}) to what it also has as another view of the same memory, which torchax "
            "would not change: compute a new tensor there, x = x + y for x += y, or write to x.clone()"
        )


def _family(tensor: Any) -> dict[int, weakref.ref[Any]]:
    return tensor.__dict__.get("_jaxcam_family", {})


def _is_same(made: Any, source: Any) -> bool:
    """Whether two tensors have the very same array, as dropout in evaluation returns it."""
    arrays = [tensor.__dict__.get("_elem") for tensor in (made, source)]
    return arrays[0] is not None and arrays[0] is arrays[1]


def _tensors(values: Iterable[Any], torchax: Any) -> list[Any]:
    """The tensors among values, and in the lists and tuples among them."""
    found: list[Any] = []
    for value in values:
        if isinstance(value, torchax.tensor.Tensor | torchax.view.View):
            found.append(value)
        elif isinstance(value, list | tuple):
            found.extend(_tensors(value, torchax))
    return found


@functools.cache
def _effect(func: Any) -> tuple[bool, bool, str]:
    """Whether a function of torch writes to its first argument, whether it returns views of it; and its name."""
    import torch  # pyright: ignore[reportMissingImports]

    name = getattr(func, "__name__", "")
    if name == "__get__":  # x.T
        name = getattr(func.__self__, "__name__", "")
    if hasattr(func, "_schema"):
        schemas, name = [func._schema], func.overloadpacket.__name__
    else:
        packet: Any = func if hasattr(func, "overloads") else getattr(torch.ops.aten, name, None)
        schemas = [getattr(packet, each)._schema for each in packet.overloads()] if hasattr(packet, "overloads") else []
    first = [argument for schema in schemas for argument in schema.arguments[:1]]
    if hasattr(func, "_schema"):  # of one overload: it may be that with `out`
        first = list(func._schema.arguments)
    augmented = name.startswith("__i") and name not in ("__int__", "__index__", "__invert__")
    writes = augmented or any(argument.alias_info is not None and argument.alias_info.is_write for argument in first)
    aliases = [result.alias_info for schema in schemas for result in schema.returns if result.alias_info is not None]
    # Dropout in evaluation returns what it is given. (The others are results that were given as `out`.)
    views = "dropout" in name or any(not alias.is_write for alias in aliases)
    return writes, views and not writes, name
