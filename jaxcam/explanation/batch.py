"""The program of `explain`: one forward pass, and for every image, class and layer a map with its status."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxcam import maps, scores
from jaxcam.cuts.grid import Layout
from jaxcam.cuts.halves import Sliced, Subject, halves_of, model_of, network_of, sliced, takes_layer
from jaxcam.explanation.explanation import PRIORITY, Explanation, Status
from jaxcam.explanation.raw_maps import Choice, Found, Seen, is_cheap, raw_map
from jaxcam.methods.guided import guided_gradient

_GUIDED = ("guided_backprop", "guided_grad_cam")
_CLASS_BYTES = 2**28


class Request(NamedTuple):
    """Everything static about a call, hashable."""

    choice: Choice
    layers: tuple[Any, ...]
    several: bool
    fusion: str
    num_classes: int | str | None
    """None: one class an image; "all"; or as many as are likeliest."""


def explained(
    subject: Subject, request: Request, arrays: list[Any], images: Array, class_idx: Array | None, key: Array | None
) -> tuple[Explanation, Array]:
    """The explanation and the logits `[n, c]`; to be compiled."""
    spec = image_of(images)
    model = model_of(subject, arrays)
    network = network_of(subject, arrays, spec)
    choice = request.choice
    parts, cam_kernel = [], None
    if choice.method == "cam":
        cam_layer = _cam_layer(model, subject, request.layers)
        cam_kernel = model.cam_kernel
        parts = [sliced(subject, arrays, cam_layer if takes_layer(model.features) else None, spec)]
    elif choice.method != "guided_backprop":
        apart = len(request.layers) > 1
        parts = [sliced(subject, arrays, layer, spec, apart=apart) for layer in request.layers]
    cut_images = [part.features(images) for part in parts]
    size = images.shape[2:] if subject.layout.channel_axis == 1 else images.shape[1:3]

    def one(image: Array, cut_image: list[Any], class_idx: Array | None, key: Array | None) -> tuple[Any, ...]:
        heads = [part.head(beside) for part, (_, beside) in zip(parts, cut_image, strict=True)]
        # XLA merges this forward pass with the one inside the method, and those of several layers.
        logits = heads[0](cut_image[0][0]) if heads else network(image)
        seen = [
            Seen(image, a, head, halves_of(part, network, subject.layout.channel_axis), cam_kernel, key)
            for part, head, (a, _) in zip(parts, heads, cut_image, strict=True)
        ]
        values = (image, logits, *(a for a, _ in cut_image))

        def for_class(class_idx: Array) -> tuple[Any, ...]:
            return _for_class(request, network, seen, image, class_idx, values, logits, size, subject.layout)

        if request.num_classes is None:
            chosen = logits.argmax().astype(jnp.int32) if class_idx is None else class_idx
            results = for_class(chosen)
        else:
            chosen = _likeliest(logits, request.num_classes)
            chunk = max(1, _CLASS_BYTES // sum(v.size * v.dtype.itemsize * images.shape[0] for v in values))
            results = _mapped(for_class, chosen, chunk)
        return chosen, logits, *results

    over_images = (
        jax.vmap(one) if _is_cheap(request, parts, cut_images) else lambda *xs: jax.lax.map(lambda x: one(*x), xs)
    )
    keys = None if key is None else jax.random.split(key, images.shape[0])
    chosen, logits, heatmap, cam_maps, confidence, status, gradient = over_images(images, cut_images, class_idx, keys)
    cam_map = cam_maps if request.several else cam_maps[0]
    return Explanation(heatmap, cam_map, chosen, confidence, status, gradient), logits


def _for_class(
    request: Request,
    network: Callable[[Array], Array],
    seen: list[Seen],
    image: Array,
    class_idx: Array,
    values: tuple[Array, ...],
    logits: Array,
    size: tuple[int, ...],
    layout: Layout,
) -> tuple[Array, tuple[Array, ...], Array, Array, Array | None]:
    """Heatmap, maps, confidence, status and gradient of one image and one class."""
    choice = request.choice
    is_guided = choice.method in _GUIDED
    on_grid = choice._replace(method="grad_cam", options=()) if is_guided else choice
    found = [raw_map(on_grid, s, class_idx) for s in seen]
    heatmap = _fused([maps.heatmap(f.cam_map, size) for f in found], request.fusion) if found else None
    gradient = None
    if is_guided:
        gradient = guided_gradient(network, image, class_idx, score=choice.score, **dict(choice.options))
        if heatmap is not None:
            gradient = gradient * jnp.expand_dims(heatmap, layout.channel_axis if layout.channel_axis < 0 else 0)
        magnitude = jnp.abs(gradient).max(0 if layout.channel_axis == 1 else -1)
        heatmap = maps.normalised(magnitude)
        if not found:
            found = [Found(magnitude, (magnitude > 0).any(), jnp.array(False))]
    assert heatmap is not None
    status = _status(found, values if gradient is None else (*values, gradient), logits.size, class_idx)
    known = (status != Status.NOT_FINITE) & (status != Status.NO_SUCH_CLASS)
    confidence = jnp.where(known, scores.softmax(logits, class_idx), jnp.nan)
    return jnp.where(known, heatmap, 0), tuple(f.cam_map for f in found), confidence, status, gradient


def _fused(heatmaps: list[Array], fusion: str) -> Array:
    if len(heatmaps) == 1:
        return heatmaps[0]
    stacked = jnp.stack(heatmaps)
    return maps.normalised(stacked.max(0) if fusion == "max" else stacked.mean(0))


def _status(found: list[Found], seen: tuple[Array, ...], num_classes: int, class_idx: Array) -> Int[Array, ""]:
    # Image and activations are looked at too: a ReLU or max-pooling may lose a NaN on its way to the logits.
    finite = jnp.array([jnp.isfinite(values).all() for values in (*(f.cam_map for f in found), *seen)]).all()
    known = (class_idx >= 0) & (class_idx < num_classes)
    return jnp.select(
        [
            ~known,
            ~finite,
            jnp.array([~f.has_gradient for f in found]).any(),
            jnp.array([(f.cam_map <= 0).all() for f in found]).any(),
            jnp.array([f.ill_conditioned for f in found]).any(),
        ],
        [jnp.int32(status) for status in PRIORITY],
        jnp.int32(Status.OK),
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


def _is_cheap(request: Request, parts: list[Sliced], cut_images: list[Any]) -> bool:
    # Exact derivatives and Jacobians hold thousands of gradients for each image: one image after the other then.
    if request.choice.method in _GUIDED:
        return True
    for part, (a, beside) in zip(parts, cut_images, strict=True):
        one = jax.ShapeDtypeStruct(a.shape[1:], a.dtype)
        head = partial(_head_of_first, part, beside)
        if not is_cheap(request.choice, head, one):
            return False
    return True


def _head_of_first(part: Sliced, beside: Any, a: Array) -> Array:
    return part.head(jax.tree.map(lambda value: value[0], beside))(a)


def _cam_layer(model: Any, subject: Subject, layers: tuple[Any, ...]) -> str:
    cam_layer = getattr(model, "cam_layer", None)
    if cam_layer is None:
        name = type(model).__name__ if subject.form is None else subject.form.name
        raise ValueError(
            f'method="cam" needs a head that is global average pooling and one linear layer; {name} '
            'has no cam_layer and cam_kernel: use method="grad_cam", which equals CAM where CAM applies'
        )
    resolved = getattr(model, "resolved", None)  # several names may mean one layer
    for layer in layers:
        if layer is not None and (resolved(layer) if callable(resolved) else layer) != cam_layer:
            raise ValueError(f'method="cam" applies at layer={cam_layer!r} of this model only, not at {layer!r}')
    return cam_layer


def image_of(images: Array) -> jax.ShapeDtypeStruct:
    """What one of the images is like."""
    return jax.ShapeDtypeStruct(images.shape[1:], images.dtype)
