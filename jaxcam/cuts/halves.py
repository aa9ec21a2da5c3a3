"""A model cut in two: by its own `features` and `head`, or, for any other callable, by its program.

`Halves` is the cut model for one image, which the methods that need the image work on. `sliced` is the same for a
batch, as `explain` needs it: what flows past the layer is computed once, and handed from one half to the other.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun
from jaxtyping import Array, Float

from jaxcam.cuts.cut import LayerName, cut, grid_of
from jaxcam.cuts.grid import Layout
from jaxcam.cuts.model import Form, ModelFn, formed, name_of, program_of
from jaxcam.cuts.refusals import check_channels, check_images_layout, check_is_logits
from jaxcam.programs.partition import Static, merged, partitioned
from jaxcam.types import Head


class Halves(NamedTuple):
    """network(image) = head(features(image), image), for one image `[H, W, d]`."""

    network: Callable[[Array], Array]
    """Image -> logits `[c]`."""
    features: Callable[[Array], Array]
    """Image -> activations A `[*spatial, k]`."""
    head: Callable[[Array, Array], Array]
    """A and the image it came from (for skip connections) -> logits `[c]`."""
    channel_axis: int = -1
    """Of one image: -1, or 0 for channels first."""

    def size(self, image: Array) -> tuple[int, ...]:
        """The image's spatial size."""
        return image.shape[1:] if self.channel_axis == 0 else image.shape[:-1]


@runtime_checkable
class Sliced(Protocol):
    """A model cut at one layer, for batches."""

    def features(self, images: Array) -> tuple[Array, Any]:
        """Images `[n, ...]` -> activations `[n, *spatial, k]`, and what the head needs besides, for each image."""
        ...

    def head(self, beside: Any) -> Head:
        """For one image: activations `[*spatial, k]` -> logits `[c]`."""
        ...


class Subject(NamedTuple):
    """A model without its arrays: hashable, a static argument of compiled functions."""

    form: Form | None
    """Of a model that is cut by its program; None where it has features and head."""
    static: Static
    layout: Layout


def subject_of(
    model: Any, layer: Any, image: jax.ShapeDtypeStruct, model_fn: ModelFn | None, layout: Layout
) -> tuple[Subject, list[Any]]:
    """The static part of a model, for batches of such images, and its arrays.

    `model_fn` is not part of it but by its program: a new lambda on every call is compiled once.
    """
    if _has_halves(model) and model_fn is None and not _by_position(layer):
        static, arrays = partitioned(model)
        return Subject(None, static, layout), arrays
    check_images_layout(image, layout)
    one = jax.ShapeDtypeStruct((1, *image.shape), image.dtype)
    form, arrays = formed(model, model_fn, one)
    return Subject(form, form.static, layout), arrays


def model_of(subject: Subject, arrays: list[Any]) -> Any:
    """The model itself, where it has features and head; else None."""
    return None if subject.form else merged(subject.static, arrays)


def network_of(subject: Subject, arrays: list[Any], image: jax.ShapeDtypeStruct) -> Callable[[Array], Array]:
    """One image -> logits `[c]`."""
    one = jax.ShapeDtypeStruct((1, *image.shape), image.dtype)
    if subject.form is not None:
        run = jaxpr_as_fun(program_of(subject.form, arrays, one))
        return lambda image: run(*arrays, image[None])[0][0]
    model = merged(subject.static, arrays)
    return lambda image: model.head(model.features(image[None]))[0]


def sliced(
    subject: Subject, arrays: list[Any], layer: LayerName, image: jax.ShapeDtypeStruct, *, apart: bool = False
) -> Sliced:
    """The model cut at a layer, for batches of such images.

    Several cuts of one model are best taken `apart`, image by image and vmapped: the head of one repeats what comes
    before the next in this form, and XLA merges only what is the same.
    """
    if subject.form is None:
        cut_at = {} if layer is None else {"layer": layer}
        return _Own(merged(subject.static, arrays), cut_at, subject.layout, apart=apart)
    return _Foreign(subject.form, arrays, layer, subject.layout, image)


def halves(
    model: Any,
    image: Float[Array, "..."],
    *,
    layer: LayerName = None,
    model_fn: ModelFn | None = None,
    channel_axis: int = -1,
    reshape: Callable[[Array], Array] | None = None,
) -> Halves:
    """The model cut after `layer`, for images like this one; `Halves` are returned as they are."""
    if isinstance(model, Halves):
        return model
    check_model(model, model_fn)
    if image.ndim != 3 or not jnp.issubdtype(image.dtype, jnp.floating):
        raise (ValueError if image.ndim != 3 else TypeError)(
            f"image must be one image [H, W, 3], floating point and normalised for the model, but came as "
            f"{image.dtype}{list(image.shape)}: use images[0], and jaxcam.explain for a batch"
        )
    spec = jax.ShapeDtypeStruct(image.shape, image.dtype)
    subject, arrays = subject_of(model, layer, spec, model_fn, Layout(channel_axis, reshape))
    network = network_of(subject, arrays, spec)
    return halves_of(sliced(subject, arrays, layer, spec), network, channel_axis)


def halves_of(parts: Sliced, network: Callable[[Array], Array], channel_axis: int) -> Halves:
    """The same for one image."""

    def features(image: Array) -> Array:
        return parts.features(image[None])[0][0]

    def head(a: Array, image: Array) -> Array:
        beside = jax.tree.map(lambda value: value[0], parts.features(image[None])[1])
        return parts.head(beside)(a)

    return Halves(network, features, head, 0 if channel_axis == 1 else -1)


def check_model(model: Any, model_fn: ModelFn | None) -> None:
    """Refuses what is no model before anything else is looked at."""
    if isinstance(model, type):
        raise TypeError(f"model must be an instance, but is the class {name_of(model)} itself")
    if model_fn is None and not _has_halves(model) and not callable(model):
        raise TypeError(
            f"model of type {type(model).__name__} can neither be called nor has it features(images) -> activations "
            "and head(activations) -> logits: pass model_fn=, a function (model, images) -> logits"
        )


def takes_layer(function: Callable[..., Any]) -> bool:
    """Whether a model's own function has a `layer` argument."""
    parameters = inspect.signature(function).parameters
    return "layer" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _has_halves(model: Any) -> bool:
    parts = [getattr(model, name, None) for name in ("features", "head")]
    # Many networks keep submodules of these names, between which they pool and flatten: those are no halves.
    return all(map(callable, parts)) and (all(map(inspect.isroutine, parts)) or not callable(model))


def _by_position(layer: Any) -> bool:
    return any(type(name) is int for name in (layer if isinstance(layer, tuple | list) else (layer,)))


class _Own:
    """Cut by the model's own two functions, in batches."""

    def __init__(self, model: Any, cut: dict[str, Any], layout: Layout, *, apart: bool) -> None:
        self._model, self._cut, self._layout, self._apart = model, cut, layout, apart

    def features(self, images: Array) -> tuple[Array, Any]:
        if self._apart:
            return jax.vmap(lambda image: jax.tree.map(lambda v: v[0], self._of_batch(image[None])))(images)
        return self._of_batch(images)

    def _of_batch(self, images: Array) -> tuple[Array, Any]:
        name = type(self._model).__name__
        if self._cut and not takes_layer(self._model.features):
            raise TypeError(f"layer: {name}.features takes no layer argument, so this model is cut at one place only")
        value = self._model.features(images, **self._cut)
        _check_batch(value, images, f"{name}.features")
        a = self._layout.grid(value)
        _check_grid(a, images, f"{name}.features")
        logits = jax.eval_shape(lambda a: self._model.head(a, **self._cut), value)
        if not hasattr(logits, "shape") or logits.ndim != 2 or logits.shape[0] != images.shape[0]:
            raise ValueError(
                f"{name}.head must return logits [n, c] for activations {list(value.shape)}, but returned "
                f"{list(getattr(logits, 'shape', [type(logits).__name__]))}: keep the batch axis"
            )
        return a, (value if self._layout.keeps_value else ())

    def head(self, beside: Any) -> Head:
        return _OwnHead(self._model, self._cut, self._layout, beside)


class _OwnHead:
    """The head for one image, and, if the model has it, the shorter way to the logit of one class."""

    def __init__(self, model: Any, cut: dict[str, Any], layout: Layout, beside: Any) -> None:
        self._model, self._cut, self._layout, self._beside = model, cut, layout, beside
        if hasattr(model, "class_logit"):
            self.logit = self._logit

    def __call__(self, a: Array) -> Array:
        return self._model.head(self._value(a), **self._cut)[0]

    def _logit(self, a: Array, class_idx: Array) -> Array:
        return self._model.class_logit(self._value(a), class_idx, **self._cut)[0]

    def _value(self, a: Array) -> Array:
        value = self._beside[None] if self._layout.keeps_value else None
        return self._layout.value(a[None], value)


class _Foreign:
    """Cut by the program for one image, which is vmapped."""

    def __init__(
        self, form: Form, arrays: list[Any], layer: LayerName, layout: Layout, image: jax.ShapeDtypeStruct
    ) -> None:
        self._arrays, self._layout, self._name = arrays, layout, form.name
        one = jax.ShapeDtypeStruct((1, *image.shape), image.dtype)
        grid = grid_of(one, layout.channel_axis if layout.reshape is None else -1, layout.reshape)
        self._cut = cut(program_of(form, arrays, one), layer, grid)
        check_channels(self._cut, layout)
        check_is_logits(self._cut, form.name)

    def features(self, images: Array) -> tuple[Array, Any]:
        def one(image: Array) -> tuple[Array, Any]:
            value, beside = self._cut.features(self._arrays, image[None])
            _check_batch(value, image[None], f"the layer of {self._name}")
            a = self._layout.grid(value)
            _check_grid(a, image[None], f"the layer of {self._name}")
            return a[0], (value if self._layout.keeps_value else (), beside)

        return jax.vmap(one)(images)

    def head(self, beside: Any) -> Head:
        value, others = beside

        def head(a: Array) -> Array:
            whole = self._layout.value(a[None], value if self._layout.keeps_value else None)
            return self._cut.head(self._arrays, whole, others)[0]

        return head


def _check_batch(value: Any, images: Array, where: str) -> None:
    if not hasattr(value, "shape") or value.ndim < 2 or value.shape[0] != images.shape[0]:
        raise ValueError(
            f"{where} must return activations [n, i, j, k] for {images.shape[0]} images, but returned "
            f"{list(getattr(value, 'shape', [type(value).__name__]))}: keep the batch axis first"
        )


def _check_grid(a: Array, images: Array, where: str) -> None:
    if a.ndim != 4 or a.shape[0] != images.shape[0] or not jnp.issubdtype(a.dtype, jnp.floating):
        raise ValueError(
            f"{where} must return activations [n, i, j, k] for {images.shape[0]} images, but returned "
            f"{list(a.shape)}: return what comes before the pooling (or choose another layer; for tokens pass "
            "reshape=, which makes them a grid); for other numbers of spatial axes use jaxcam.grad_cam and "
            "jaxcam.grad_cam_pp on one image"
        )
