"""Names for the layers of NNX and Equinox modules, which record none by themselves."""

import sys
from dataclasses import fields, replace
from functools import partial
from typing import Any, TypeVar

import jax
from jax.ad_checkpoint import checkpoint_name

from jaxcam.cuts.model import Adapted

M = TypeVar("M")


def named(model: M) -> M:
    """A copy of an NNX or Equinox model whose submodules tag what they return with their path: "blocks.2.conv1".

    `jaxcam.layers`, `split` and `explain` then know the layers by these names, and by what they begin with: "blocks"
    is the last of the blocks. The values are the same, and the compiled program as well: a tag is no computation. A
    module that occurs at several places has the path of the first. What a module returns besides arrays stays as it is.

    The copy shares no parameters with the model: make it where the model is explained, not where it is trained.

    Args:
        model: any nnx.Module or equinox.Module, or an adapted one. Linen and Keras models have names, see
            `jaxcam.layers`.

    Raises:
        TypeError: the model is neither.

    Example:
        >>> tagged = jaxcam.named(model)
        >>> print(jaxcam.layers(tagged, images))
        >>> found = jaxcam.explain(tagged, images, layer="blocks.2.conv1")
    """
    from flax import nnx

    if isinstance(model, Adapted):
        return replace(model, state=named(model.state))
    if "equinox" in sys.modules and isinstance(model, sys.modules["equinox"].Module):
        return _named(model, ())
    if not isinstance(model, nnx.Module):
        raise TypeError(
            f"model must be an nnx.Module or an equinox.Module, but is {type(model).__name__}: "
            "jaxcam.layers(model, images) lists the names that other models have; where they have none, use "
            "jax.ad_checkpoint.checkpoint_name(value, name)"
        )
    copy = nnx.clone(model)
    for path, module in nnx.iter_modules(copy):
        if path and callable(module) and not isinstance(module, _Tagged):
            tagged: Any = module
            tagged.__class__ = _tagging(type(module))
            tagged._jaxcam_name = ".".join(map(str, path))
    return copy


def _named(part: Any, path: tuple[str, ...]) -> Any:
    """A part of an Equinox model, which cannot be changed, made anew with tags; as it is where there is nothing to tag.

    Its fields are taken as they are: what the class does when it is made was done.
    """
    if isinstance(part, list | tuple):
        parts = [_named(each, (*path, str(i))) for i, each in enumerate(part)]
        if all(new is old for new, old in zip(parts, part, strict=True)):
            return part
        return type(part)(*parts) if hasattr(part, "_fields") else type(part)(parts)
    if isinstance(part, dict):
        return {name: _named(each, (*path, str(name))) for name, each in part.items()}
    module = sys.modules["equinox"].Module
    if not isinstance(part, module) or isinstance(part, _Tagged):
        return part
    kept = {field.name: getattr(part, field.name) for field in fields(part) if hasattr(part, field.name)}
    new = {name: _named(value, (*path, name)) for name, value in kept.items()}
    is_tagged = bool(path) and callable(part)
    if not is_tagged and all(new[name] is kept[name] for name in kept):
        return part
    made: Any = object.__new__(_tagging(type(part)) if is_tagged else type(part))
    for name, value in new.items():
        object.__setattr__(made, name, value)
    if is_tagged:
        object.__setattr__(made, "_jaxcam_name", ".".join(path))
    return made


def _with_name(name: str, value: Any) -> Any:
    return checkpoint_name(value, name) if isinstance(value, jax.Array) else value


class _Tagged:
    """Marks the classes made here."""

    _jaxcam_name: str

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The class cannot be found by its name, where pickle looks for it: that is the one it was made from.
        reduced: Any = super().__reduce_ex__(protocol)
        _, (kind, *arguments), *state = reduced
        return _new, (kind.__mro__[1], *arguments), *state


def _new(kind: Any, *arguments: Any) -> Any:
    tagging: Any = _tagging(kind)
    return tagging.__new__(tagging, *arguments)


def _tagging(kind: Any) -> Any:
    """The class, tagging what its instances return. One for each class: compiled programs are found by it."""
    # A class knows its subclasses without keeping them, which a cache would do.
    for known in kind.__subclasses__():
        if known.__bases__ == (kind, _Tagged):
            return known
    untagged: Any = kind.__call__

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        results = untagged(self, *args, **kwargs)
        return jax.tree.map(partial(_with_name, self._jaxcam_name), results)

    metaclass: Any = type(kind)
    inside: dict[str, Any] = {"__call__": call, "__module__": kind.__module__}
    if "equinox" in sys.modules and issubclass(kind, sys.modules["equinox"].Module):
        equinox = sys.modules["equinox"]
        inside |= {"__annotations__": {"_jaxcam_name": str}, "_jaxcam_name": equinox.field(static=True, default="")}
        inside["__qualname__"] = kind.__qualname__
    return metaclass(kind.__name__, (kind, _Tagged), inside)
