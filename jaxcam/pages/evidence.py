"""One example's maps of all classes, by every method at every layer, and what is known about them -> an exhibit.

Contract: what is said of a map is shown for this network and this example: that its cells are shares of the value by a
proof and a count (`_shares`), how much is left on the explanation map by a forward pass of it.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxcam.cuts.cut import Network, cuts, network
from jaxcam.cuts.layers import LayerName, layers
from jaxcam.cuts.logits import probabilities
from jaxcam.cuts.model import Adapted
from jaxcam.explanation.explain import explain
from jaxcam.explanation.explanation import Explanation
from jaxcam.maps import heatmap
from jaxcam.methods.method import Bound, Method, bind
from jaxcam.methods.signed import signed
from jaxcam.pages.exhibit import Exhibit, Maps
from jaxcam.programs.linearity import has_constant_slope
from jaxcam.programs.specs import batch_of_one, spec_of, without_batch
from jaxcam.types import Target

__all__ = ["Request", "Seen", "exhibit_of"]

_MAPS_BYTES, _HEAT_BYTES = 4_000_000, 2**31
_NUM_ON_E = 5
_OF_LAYERS = ("head", "kernel")
"""What a method is given first, where its map is of a layer's activations and a class."""
_CHUNK = 16
"""Explanation maps that the network sees at once."""
_TOLERANCE = 1e-3
"""Of the largest value: how exactly the cells have to add up to it, in float32."""


class Seen(NamedTuple):
    """One example."""

    inputs: Array
    """`[1, *spatial, d]`, as the model takes it."""
    picture: np.ndarray
    """What is drawn."""
    pixels: np.ndarray | None
    """What the network saw, in [0, 1], before it was normalised; None where the inputs have no pixels."""
    label: str
    frame_name: str = "Frame"


class Request(NamedTuple):
    """What is asked of every example; see `page`."""

    methods: Sequence[str | Callable[..., Array] | Method]
    layers: Sequence[LayerName]
    class_idx: int | None
    target: Target | None
    words: Sequence[str] | None
    top: int | None
    key: Array | None


class _Made(NamedTuple):
    """What one method made at one layer."""

    method: Bound
    layer: LayerName
    found: Explanation


def exhibit_of(known: Adapted, seen: Seen, request: Request) -> Exhibit:
    """The exhibit of one example. Raises as `page`."""
    batch, target = batch_of_one(seen.inputs), request.target
    example = without_batch(batch)
    aimed = known.hoist(batch) if target is None else known.aim(target, batch)[0]
    whole = network(aimed, example)
    total = jax.eval_shape(whole, example).shape[0]
    which = {"target": target} if target is not None else _which(known, batch, request, total)
    made = [_made(known, seen.inputs, method, at, request.key, which) for method, at in _pairs(request)]
    found = made[0].found
    value, confidence = _flat(found.value), _flat(found.confidence)
    num, is_probable = len(value), not np.isnan(confidence).all()
    order = np.arange(num) if target is not None else _flat(found.class_idx)
    start = None if request.class_idx is None else _position(request.class_idx, order, total)
    if request.words is not None and len(request.words) != num:
        raise ValueError(f"words must be one for each of the {num} scores but are {len(request.words)}")
    maps = [_laid(each.found.cam_map, num, len(example.shape) - 1) for each in made]
    ranking = np.argsort(-np.nan_to_num(confidence if is_probable else value, nan=-np.inf), stable=True)
    likeliest = [int(item) for item in ranking[:_NUM_ON_E]]
    chosen = likeliest if start is None or start in likeliest else [start, *likeliest]
    on_e = _on_e(aimed, whole, seen, [each[chosen] for each in maps], chosen, with_confidence=is_probable)
    biases = {
        at: _bias(aimed, seen.inputs[0], at, order) for at in {m.layer for m in made if m.method.needs in _OF_LAYERS}
    }
    shown: list[Maps] = []
    for each, values, left in zip(made, maps, on_e, strict=True):
        bias = biases.get(each.layer) if each.method.needs in _OF_LAYERS else None
        shown.append(
            Maps(
                values=values,
                title=each.method.method.title,
                layer=_name(known, batch, each.layer, target) if each.method.takes_layer else "",
                status=_flat(each.found.status),
                on_e=left,
                share=_share(values, value, bias),
                bias=bias,
            )
        )
    names = request.words if request.words is not None else [_class_name(known, int(i), target) for i in order]
    return Exhibit(
        picture=seen.picture,
        names=list(names),
        maps=shown,
        value=value,
        confidence=confidence if is_probable else None,
        label=seen.label,
        start=start,
        in_order=request.words is not None,
        num_classes=total if target is None else None,
        value_name="score" if target is not None else "logit" if is_probable else "output",
        frame_name=seen.frame_name,
    )


def _pairs(request: Request) -> list[tuple[Any, LayerName]]:
    """Every method at every layer; one that takes no layer once."""
    pairs = itertools.product(request.methods, request.layers)
    return [(m, at) for m, at in pairs if at == request.layers[0] or bind(m, {}, draws=True).takes_layer]


def _made(
    known: Adapted, inputs: Any, method: Any, layer: LayerName, key: Array | None, which: dict[str, Any]
) -> _Made:
    bound = bind(method, {}, draws=True)
    if bound.takes_key and key is None:
        key = jax.random.key(0)
    options: dict[str, Any] = {"key": key} if bound.takes_key else {}
    at = layer if bound.takes_layer else None
    found = explain(known, inputs, method=signed(method), layer=at, **options, **which)
    if found.gradient is not None:
        raise ValueError(
            f"methods must make maps but {bound.name!r} makes a gradient by the input: jaxcam.gradient_picture draws it"
        )
    return _Made(bound, layer, found)


def _which(known: Adapted, batch: Any, request: Request, total: int) -> dict[str, Any]:
    """All classes, or as many of the likeliest as were asked for or fit into a page."""
    top = request.top
    if top is None:
        # What a page holds, and the heatmaps that are made on the way.
        one = {"class_idx": 0}

        def shape_of(method: Any, layer: LayerName) -> tuple[int, ...]:
            made = jax.eval_shape(lambda x: _made(known, x, method, layer, request.key, one).found.cam_map, batch)
            return made.shape

        positions = sum(math.prod(shape_of(method, at)) for method, at in _pairs(request))
        pixels = math.prod(batch.shape[1:]) // min(batch.shape[1:])
        top = min(_MAPS_BYTES // positions, _HEAT_BYTES // (4 * pixels))
        top = max(1, min(total, top))
    return {"class_idx": "all"} if top == total else {"top": top}


def _bias(aimed: Adapted, example: Array, layer: LayerName, order: np.ndarray) -> np.ndarray | None:
    """What the head makes of activations that are zero, if it is proven to have the same slope for all of them."""
    cut = cuts(aimed, spec_of(example), (layer,))[0]

    def head(activations: Array, x: Array) -> Array:
        return cut.head(cut.features(x)[1])(activations)

    if not has_constant_slope(head, cut.activations, spec_of(example)):
        return None
    return np.asarray(_of_zeros(aimed, example, layer), np.float64)[order]


@partial(jax.jit, static_argnames="layer")
def _of_zeros(aimed: Adapted, example: Array, layer: LayerName) -> Array:
    cut = cuts(aimed, spec_of(example), (layer,))[0]
    activations, beside = cut.features(example)
    return cut.head(beside)(jnp.zeros_like(activations))


def _share(values: np.ndarray, value: np.ndarray, bias: np.ndarray | None) -> float | None:
    """How much of the value a cell is: 1 where they add up to it with the bias, 1 / N where their mean does; or None.

    The proof of `_bias` is of the head, and this is a count of every map: of Grad-CAM's behind pooling and a linear
    layer the cells add up, behind a linear layer that tells places apart they do not, and no more those of Grad-CAM++.
    """
    if bias is None:
        return None
    sums, slack = values.astype(np.float64).reshape(len(values), -1).sum(1), _TOLERANCE * np.abs(value).max()
    fits = (share for share in (1.0, 1 / values[0].size) if (np.abs(share * sums + bias - value) <= slack).all())
    return next(fits, None)


def _on_e(
    aimed: Adapted,
    whole: Network,
    seen: Seen,
    maps: Sequence[np.ndarray],
    chosen: Sequence[int],
    *,
    with_confidence: bool,
) -> list[dict[int, float]]:
    """What the network says of each of the chosen when it sees only the explanation map E = L ∘ I, for each method."""
    size = whole.size(seen.inputs[0])
    heats = np.concatenate([_heats(each, size) for each in maps])
    told: list[float] = []
    for begin in range(0, len(heats), _CHUNK):
        heat = heats[begin : begin + _CHUNK]
        # The last ones are filled up, so that there is one program.
        full = np.resize(heat, (min(_CHUNK, len(heats)), *heat.shape[1:]))
        if seen.pixels is not None and aimed.preprocessing is not None:
            inputs = aimed.preprocessing.normalise(seen.pixels * full[..., np.newaxis])
        else:
            axis = -1 if whole.channel_axis == -1 else 1
            inputs = np.asarray(seen.inputs) * np.expand_dims(full, axis)
        found = _outputs(aimed, jnp.asarray(inputs, seen.inputs.dtype))[with_confidence]
        told += [float(found[i, chosen[(begin + i) % len(chosen)]]) for i in range(len(heat))]
    return [dict(zip(chosen, told[i : i + len(chosen)], strict=True)) for i in range(0, len(told), len(chosen))]


def _heats(maps: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    finite = jnp.asarray(np.nan_to_num(maps, posinf=0, neginf=0))
    return np.asarray(jax.vmap(lambda each: heatmap(each, size))(finite), np.float32)


@jax.jit
def _outputs(aimed: Adapted, inputs: Array) -> tuple[Array, Array]:
    whole = network(aimed, without_batch(inputs))
    values = jax.vmap(whole)(inputs)
    return values, jax.vmap(lambda each: probabilities(whole.probability, each))(values)


def _name(known: Adapted, batch: Any, layer: LayerName, target: Target | None) -> str:
    """What a layer is called; the default one by its name, if it has one."""
    if layer is None:
        layer = next((each.layer for each in layers(known, batch, target=target) if each.default), None)
    return "the default" if layer is None else f"convolution {layer}" if isinstance(layer, int) else layer


def _class_name(known: Adapted, index: int, target: Target | None) -> str:
    if target is not None:
        return f"score {index}"
    return known.class_names[index] if index < len(known.class_names) else f"class {index}"


def _position(class_idx: int, order: np.ndarray, total: int) -> int:
    if not 0 <= class_idx < total:
        raise ValueError(f"class_idx={class_idx} is out of range: the model has {total} classes, 0 to {total - 1}")
    places = np.flatnonzero(order == class_idx)
    if not places.size:
        raise ValueError(
            f"class_idx={class_idx} is not among the {len(order)} likeliest of {total} classes, which the page holds: "
            f"pass top={total} for all"
        )
    return int(places[0])


def _laid(cam_map: Any, num: int, num_axes: int) -> np.ndarray:
    """`[num, *grid]`, of maps `[1, *m, *grid]`."""
    found = np.asarray(cam_map)
    return found.reshape(num, *found.shape[-num_axes:])


def _flat(values: Any) -> np.ndarray:
    """Of the one example."""
    return np.asarray(values).reshape(-1)
