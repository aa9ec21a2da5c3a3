"""The program of `explain`: one forward pass, and for every image, class and layer a map with its status."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jaxcam import maps, scores
from jaxcam.cuts.cut import Cut, cuts, network
from jaxcam.cuts.model import Adapted
from jaxcam.explanation.explanation import PRIORITY, Explanation, Status
from jaxcam.methods.method import Bound
from jaxcam.programs.notes import Notes, watch
from jaxcam.programs.traced import Traced

__all__ = ["Request", "cuts_of", "explained", "image_of"]

_CLASS_BYTES = 2**28


class Request(NamedTuple):
    """Everything static about a call, hashable."""

    method: Bound
    layers: tuple[Any, ...]
    several: bool
    fusion: str
    num_classes: int | str | None
    """None: one class an image; "all"; or as many as are likeliest."""


class _Place(NamedTuple):
    """Where a map of one image is made: a layer of the model and the values there."""

    cut: Cut
    activations: Array
    head: Traced


class _Found(NamedTuple):
    """What a method made for one image, class and layer."""

    cam_map: Array | None
    gradient: Array | None
    """Of methods that go back to the image."""
    notes: Notes


def explained(
    model: Adapted, request: Request, images: Array, class_idx: Array | None, key: Array | None
) -> tuple[Explanation, Array]:
    """The explanation and the logits `[n, c]`; to be compiled."""
    example = image_of(images)
    cut_at = cuts_of(model, request, example)
    whole, channel_axis = network(cut_at[0] if cut_at else model, example)
    made = [jax.vmap(cut.features)(images) for cut in cut_at]

    size = example.shape[1:] if channel_axis == 0 else example.shape[:-1]

    def magnitude(gradient: Array) -> Array:
        """The largest of the channels of each pixel."""
        return jnp.abs(gradient).max(channel_axis)

    def one(image: Array, made: list[Any], class_idx: Array | None, key: Array | None) -> tuple[Any, ...]:
        places = [_Place(cut, a, cut.head(beside)) for cut, (a, beside) in zip(cut_at, made, strict=True)]
        # XLA merges this forward pass with the one inside the method, and those of several layers.
        logits = places[0].head(places[0].activations) if places else whole(image)
        values = (image, logits, *(place.activations for place in places))

        def for_class(class_idx: Array) -> tuple[Any, ...]:
            found = [_found(request.method, place, model, image, class_idx, key) for place in places or [None]]
            # Of a gradient by the image the map is the one behind it, or else the magnitude.
            found = [
                f if f.gradient is None or f.cam_map is not None else f._replace(cam_map=magnitude(f.gradient))
                for f in found
            ]
            return _result(request, found, class_idx, values, logits, size, magnitude)

        if request.num_classes is None:
            chosen = logits.argmax().astype(jnp.int32) if class_idx is None else class_idx
            results = for_class(chosen)
        else:
            chosen = _likeliest(logits, request.num_classes)
            chunk = max(1, _CLASS_BYTES // sum(v.size * v.dtype.itemsize * images.shape[0] for v in values))
            results = _mapped(for_class, chosen, chunk)
        return chosen, logits, *results

    # Exact derivatives and Jacobians hold thousands of gradients for each image: one image after the other then.
    is_cheap = all(request.method.is_cheap(cut.halves) for cut in cut_at)
    over_images = jax.vmap(one) if is_cheap else lambda *xs: jax.lax.map(lambda x: one(*x), xs)
    keys = None if key is None else jax.random.split(key, images.shape[0])
    chosen, logits, heatmap, cam_maps, confidence, status, gradient = over_images(images, made, class_idx, keys)
    cam_map = cam_maps if request.several else cam_maps[0]
    return Explanation(heatmap, cam_map, chosen, confidence, status, gradient), logits


def image_of(images: Array) -> jax.ShapeDtypeStruct:
    """What one of the images is like."""
    return jax.ShapeDtypeStruct(images.shape[1:], images.dtype)


def cuts_of(model: Adapted, request: Request, example: jax.ShapeDtypeStruct) -> list[Cut]:
    """The model cut at the layers of a request; none where its method goes back to the image alone."""
    layers = request.layers
    if request.method.needs == "kernel":
        layers = (_cam_layer(model, layers),)
    return cuts(model, example, layers) if request.method.takes_layer else []


def _found(
    method: Bound, place: _Place | None, model: Adapted, image: Array, class_idx: Array, key: Array | None
) -> _Found:
    """What the method's own function makes of an image, and what it notes."""
    given = {"key": key} if method.takes_key else {}
    with watch() as notes:
        if method.needs == "image":
            result = method(model if place is None else place.cut, image, class_idx, **given)
        else:
            assert place is not None
            operands = {
                "head": (place.head, place.activations, class_idx),
                "activations": (place.activations,),
                "kernel": (model.told("cam_kernel"), place.activations, class_idx),
            }
            result = method(*operands[method.needs], **given)
    _check_result(method, result, image, place)
    if method.needs != "image" or result.shape != image.shape:
        return _Found(result, None, notes)
    return _Found(notes["cam_map"][-1] if "cam_map" in notes else None, result, notes)


def _result(
    request: Request,
    found: Sequence[_Found],
    class_idx: Array,
    values: tuple[Array, ...],
    logits: Array,
    size: tuple[int, ...],
    magnitude: Callable[[Array], Array],
) -> tuple[Array, tuple[Array, ...], Array, Array, Array | None]:
    """Heatmap, maps, confidence, status and gradient of one image and one class."""
    cam_maps = tuple(f.cam_map for f in found if f.cam_map is not None)
    gradients = [each.gradient for each in found if each.gradient is not None]
    gradient = None
    if gradients:
        gradient = _fused_gradient(jnp.stack(gradients), request.fusion)
        heatmap = maps.normalised(magnitude(gradient))
    else:
        heatmap = _fused([maps.heatmap(cam_map, size) for cam_map in cam_maps], request.fusion)
    status = _status(found, cam_maps, values if gradient is None else (*values, gradient), logits.size, class_idx)
    known = (status != Status.NOT_FINITE) & (status != Status.NO_SUCH_CLASS)
    confidence = jnp.where(known, scores.logit(jax.nn.softmax(logits), class_idx), jnp.nan)
    return jnp.where(known, heatmap, 0), cam_maps, confidence, status, gradient


def _status(
    found: Sequence[_Found],
    cam_maps: tuple[Array, ...],
    seen: tuple[Array, ...],
    num_classes: int,
    class_idx: Array,
) -> Int[Array, ""]:
    # Image and activations are looked at too: a ReLU or max-pooling may lose a NaN on its way to the logits.
    # All of them in one reduction: each one more would take longer to compile than the map.
    finite = jnp.concatenate([jnp.isfinite(values).reshape(-1) for values in (*cam_maps, *seen)]).all()
    known = (class_idx >= 0) & (class_idx < num_classes)
    return jnp.select(
        [
            ~known,
            ~finite,
            _noted(found, "has_gradient", lambda each: ~jnp.stack(each).any()),
            jnp.array([(cam_map <= 0).all() for cam_map in cam_maps]).any(),
            _noted(found, "ill_conditioned", lambda each: jnp.stack(each).any()),
        ],
        [jnp.int32(status) for status in PRIORITY],
        jnp.int32(Status.OK),
    )


def _noted(found: Sequence[_Found], name: str, says: Callable[[list[Array]], Array]) -> Bool[Array, ""]:
    """Whether that was noted of the map of any layer."""
    told = [says(each.notes[name]) for each in found if name in each.notes]
    return jnp.stack(told).any() if told else jnp.array(False)


def _fused(heatmaps: list[Array], fusion: str) -> Array:
    if len(heatmaps) == 1:
        return heatmaps[0]
    stacked = jnp.stack(heatmaps)
    return maps.normalised(stacked.max(0) if fusion == "max" else stacked.mean(0))


def _fused_gradient(gradients: Array, fusion: str) -> Array:
    """Of several layers' gradients the mean, or in every place the one of the largest magnitude."""
    if fusion == "mean" or gradients.shape[0] == 1:
        return gradients.mean(0)
    return jnp.take_along_axis(gradients, jnp.abs(gradients).argmax(0, keepdims=True), 0)[0]


def _check_result(method: Bound, result: Any, image: Array, place: _Place | None) -> None:
    expected = [] if place is None else [place.activations.shape[:-1]]
    expected += [image.shape] if method.needs == "image" else []
    if hasattr(result, "dtype") and not jnp.issubdtype(result.dtype, jnp.floating):
        raise TypeError(f"method {method.name!r} must return floating-point numbers but returned {result.dtype}")
    if not hasattr(result, "shape") or result.shape not in expected:
        raise ValueError(
            f"method {method.name!r} must return a map of shape {' or '.join(map(str, map(list, expected)))} but "
            f"returned {list(getattr(result, 'shape', [type(result).__name__]))}: one value for each position"
        )


def _likeliest(logits: Array, count: int | str) -> Int[Array, " m"]:
    if count == "all":
        return jnp.arange(logits.size, dtype=jnp.int32)
    if int(count) > logits.size:
        raise ValueError(f"top={count} is more than the {logits.size} classes of the model")
    return jax.lax.top_k(logits, int(count))[1].astype(jnp.int32)


def _mapped(function: Callable[[Array], Any], classes: Array, chunk: int) -> Any:
    """All classes at once if their gradients fit into memory, else in chunks; nothing is batched that is shared."""
    if classes.size <= chunk:
        return jax.vmap(function)(classes)
    return jax.lax.map(function, classes, batch_size=chunk)


def _cam_layer(model: Adapted, layers: tuple[Any, ...]) -> str:
    cam_layer = model.told("cam_layer")
    if cam_layer is None:
        raise ValueError(
            f'method="cam" needs a head that is global average pooling and one linear layer; {model.name} '
            'has no cam_layer and cam_kernel: use method="grad_cam", which equals CAM where CAM applies'
        )
    resolved = model.told("resolved")  # several names may mean one layer
    for layer in layers:
        if layer is not None and (resolved(layer) if callable(resolved) else layer) != cam_layer:
            raise ValueError(f'method="cam" applies at layer={cam_layer!r} of this model only, not at {layer!r}')
    return cam_layer
