"""What jaxcam's annotations say is checked while tests run: types by beartype, shapes by jaxtyping.

jaxtyping's own hook prepares two checks for each of 1,800 functions when the package is imported, and at each call
binds arguments and opens a scope of named axes, also where no annotation has a shape: that took more time than the
tests. Here a check is prepared at a function's first call, functions that annotate nothing are left as they are, and
those that name no shape are checked by beartype alone, or, if they are made anew inside another function, by pyright.
"""

import dataclasses
import functools
import inspect
import threading
import typing

import beartype
import jaxtyping

_with_shapes = jaxtyping.jaxtyped
_of_types = beartype.beartype(conf=beartype.BeartypeConf(violation_type=jaxtyping.TypeCheckError))


def install():
    """Checks what is imported from now on of jaxcam."""
    jaxtyping.jaxtyped = _checked  # under this name the hook's decorators look for it
    jaxtyping.install_import_hook("jaxcam", "beartype.beartype")


def _checked(function=None, *, typechecker):
    if function is None:
        return functools.partial(_checked, typechecker=typechecker)
    if inspect.isclass(function):
        if dataclasses.is_dataclass(function) and "__init__" in vars(function):
            function.__init__ = _checked(function.__init__, typechecker=typechecker)
        return function
    if isinstance(function, classmethod | staticmethod):
        return type(function)(_checked(function.__func__, typechecker=typechecker))
    if isinstance(function, property):
        parts = (function.fget, function.fset, function.fdel)
        return property(*(part and _checked(part, typechecker=typechecker) for part in parts))
    if not function.__annotations__ or function.__name__ == "__del__":  # which may be called when imports have ended
        return function
    if "<locals>" in function.__qualname__:  # made anew at each call, and the same function by what it brings along
        return _with_shapes(function, typechecker=typechecker) if _inner_names_shape(function) else function
    check = _Check(function, typechecker)

    @functools.wraps(function)
    def called(*args, **kwargs):
        __tracebackhide__ = True
        return function(*args, **kwargs) if jaxtyping.config.jaxtyping_disable else check.call(*args, **kwargs)

    return called


class _Check:
    """The function with its annotations checked, made when it is called for the first time."""

    def __init__(self, function, typechecker):
        self._function, self._typechecker = function, typechecker
        self.call = self._first

    def _first(self, *args, **kwargs):
        __tracebackhide__ = True
        with _preparing:  # pictures are read by threads, and another may call it meanwhile
            if self.call == self._first:
                self.call = self._prepared()
        return self.call(*args, **kwargs)

    def _prepared(self):
        try:
            if not _names_shape(self._function):
                return _of_types(self._function)
        except beartype.roar.BeartypeDecorHintException:
            pass
        return _with_shapes(self._function, typechecker=self._typechecker)


_preparing = threading.RLock()
_inner = {}


def _inner_names_shape(function):
    if function.__code__ not in _inner:
        _inner[function.__code__] = _names_shape(function)
    return _inner[function.__code__]


def _names_shape(function):
    """Whether there is something for jaxtyping to check; what cannot be read here, it knows how to leave out."""
    try:
        return any(map(_is_shape, typing.get_type_hints(function, include_extras=True).values()))
    except (NameError, TypeError, AttributeError):
        return True


def _is_shape(annotation):
    if isinstance(annotation, type) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    return any(map(_is_shape, typing.get_args(annotation)))
