"""The program of `explain`: one forward pass, and for every example, class and layer a map with its status."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jaxcam import maps, scores
from jaxcam.cuts.cut import Cut, Network, cuts, network
from jaxcam.cuts.inputs import grids_of
from jaxcam.cuts.logits import probability_of
from jaxcam.cuts.model import Adapted, Probability
from jaxcam.explanation.costs import check_cost
from jaxcam.explanation.explanation import Explanation, Status
from jaxcam.explanation.statuses import Found, all_finite, status_of, worst
from jaxcam.methods.method import Bound
from jaxcam.programs.notes import watch
from jaxcam.programs.specs import batch_of_one, without_batch
from jaxcam.programs.traced import Traced

__all__ = ["Request", "cuts_of", "explained"]

_CLASS_BYTES = 2**30


class Request(NamedTuple):
    """Everything static about a call, hashable."""

    method: Bound
    layers: tuple[Any, ...]
    several: bool
    fusion: str
    num_classes: int | str | None
    """None: one class an example; "all"; or as many as are likeliest."""
    scores: tuple[int, ...] | None = None
    """The shape of a target's scores, all of which are explained."""
    num_shards: int = 1
    """Into how many parts the batch is divided among devices."""


class _Place(NamedTuple):
    """Where a map of one example is made: a layer of the model and the values there."""

    cut: Cut
    activations: Array
    head: Traced


class Explained(NamedTuple):
    """An explanation, and what it was made from."""

    explanation: Explanation
    logits: Array
    """`[n, c]`, or a target's scores `[n, m]`."""
    probability: Probability
    """What makes probabilities of the logits."""


def explained(model: Adapted, request: Request, inputs: Any, class_idx: Array | None, key: Array | None) -> Explained:
    """The explanation of a batch, a pytree of arrays; to be compiled.

    Where several inputs have a grid there is a map for each, made from the same forward pass.
    """
    batch = batch_of_one(inputs)
    leaves, structure = jax.tree.flatten(inputs)
    mains = grids_of(model, batch, jax.tree.leaves(batch))
    found = [_explained(model, request, inputs, main, class_idx, key) for main in mains]
    explanation = found[0].explanation
    if len(found) > 1:
        parts = [each.explanation for each in found]

        def like_inputs(name: str) -> Any:
            values = [getattr(part, name) for part in parts]
            slots: list[Any] = [None] * len(leaves)
            for main, value in zip(mains, values, strict=True):
                slots[main] = value
            return None if values[0] is None else jax.tree.unflatten(structure, slots)

        explanation = Explanation(
            like_inputs("heatmap"),
            like_inputs("cam_map"),
            explanation.class_idx,
            explanation.value,
            explanation.confidence,
            worst([part.status for part in parts]),
            like_inputs("gradient"),
        )
    if request.scores is not None:
        explanation = _shaped(explanation, request)
    return found[0]._replace(explanation=explanation)


def _explained(
    model: Adapted, request: Request, inputs: Any, main: int, class_idx: Array | None, key: Array | None
) -> Explained:
    """The same on the way from one of the inputs."""
    example, leaves = without_batch(inputs), jax.tree.leaves(inputs)
    num_examples = leaves[main].shape[0]
    cut_at = cuts_of(model, request, example, main)
    whole = cut_at[0].network if cut_at else network(model, example, main=main)
    _check_score(request.method, whole)
    _check_moves(request.method, leaves[main])
    _check_replaces(request.method, cut_at)
    made = [_features(cut, leaves, main) for cut in cut_at]

    def magnitude(gradient: Array) -> Array:
        """The largest of the channels of each position."""
        return jnp.abs(gradient).max(whole.channel_axis)

    def one(leaves: list[Array], made: list[Any], class_idx: Array | None) -> tuple[Any, ...]:
        here_cut = [cut.given(leaves) for cut in cut_at]
        places = [_Place(cut, a, cut.head(beside)) for cut, (a, beside) in zip(here_cut, made, strict=True)]
        for place in places:
            check_cost(request.method, place.cut, place.head)
        image, here = leaves[main], whole.given(leaves)
        # XLA merges this forward pass with the one inside the method, and those of several layers.
        logits = places[0].head(places[0].activations) if places else here(image)
        floats = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
        values = (*floats, logits, *(place.activations for place in places))
        # Image and activations are looked at too: a ReLU or max-pooling may lose a NaN on its way to the logits. Once
        # for all classes: of 1,000 these would be the same numbers 1,000 times.
        finite = all_finite(values)

        def for_class(class_idx: Array) -> tuple[Any, ...]:
            found = [_found(request.method, place, here, image, class_idx, key) for place in places or [None]]
            # Of a gradient by the image the map is the one behind it, or else the magnitude.
            found = [
                f if f.gradient is None or f.cam_map is not None else f._replace(cam_map=magnitude(f.gradient))
                for f in found
            ]
            return _result(request, found, class_idx, finite, logits, here, here.size(image), magnitude)

        if request.num_classes is None:
            chosen = logits.argmax().astype(jnp.int32) if class_idx is None else class_idx
            results = for_class(chosen)
        else:
            chosen = _likeliest(logits, request.num_classes)
            # What is exported for any number of examples knows none: chunks are then for one.
            count = num_examples if isinstance(num_examples, int) else 1
            chunk = max(1, _CLASS_BYTES // sum(v.size * v.dtype.itemsize * count for v in values))
            results = _mapped(for_class, chosen, chunk)
        return chosen, logits, *results

    # Exact derivatives and Jacobians hold thousands of gradients for each image: one image after the other then.
    is_cheap = all(request.method.is_cheap(cut.halves) for cut in cut_at)
    over_examples = jax.vmap(one) if is_cheap else partial(_one_by_one, one, request.num_shards)
    # All examples have the one key: a map must not depend on the place of its example in the batch.
    chosen, logits, heatmap, cam_maps, value, confidence, status, gradient = over_examples(leaves, made, class_idx)
    cam_map = cam_maps if request.several else cam_maps[0]
    explanation = Explanation(heatmap, cam_map, chosen, value, confidence, status, gradient)
    return Explained(explanation, logits, whole.probability)


def _features(cut: Cut, leaves: Sequence[Array], main: int) -> Any:
    """The layer's value for every example, and what flows beside it.

    One example alone is traced without its axis, in half the time: it is most of the program, and read once more here.
    What comes after keeps the axis, since without it XLA makes two kernels of each extreme of a map.
    """

    def one(*leaves: Array) -> Any:
        return cut.given(leaves).features(leaves[main])

    if {leaf.shape[0] for leaf in leaves} != {1}:
        return jax.vmap(one)(*leaves)
    return jax.tree.map(lambda x: x[None], one(*(jax.lax.squeeze(leaf, (0,)) for leaf in leaves)))


def cuts_of(model: Adapted, request: Request, example: Any, main: int = 0) -> list[Cut]:
    """The model cut at the layers of a request; none where its method goes back to the image alone."""
    layers = request.layers
    if request.method.needs == "kernel":
        layers = (_cam_layer(model, layers),)
    return cuts(model, example, layers, main=main) if request.method.takes_layer else []


def _found(
    method: Bound, place: _Place | None, whole: Network, image: Array, class_idx: Array, key: Array | None
) -> Found:
    """What the method's own function makes of an image, and what it notes."""
    given = {"key": key} if method.takes_key else {}
    with watch() as notes:
        if method.needs == "image":
            result = method(whole if place is None else place.cut, image, class_idx, **given)
        else:
            assert place is not None
            operands = {
                "head": (place.head, place.activations, class_idx),
                "activations": (place.activations,),
                "kernel": (whole.model.told("cam_kernel"), place.activations, class_idx),
            }
            result = method(*operands[method.needs], **given)
    _check_result(method, result, image, place, whole)
    complete = place is None or place.cut.complete
    is_by_image = method.needs == "image" and result.shape == image.shape
    # A gradient by the image goes through the whole network.
    rounded = "has_gradient" in notes and (whole.rounds if place is None or is_by_image else place.cut.halves.rounds)
    if not is_by_image:
        return Found(result, None, notes, complete, rounded)
    return Found(notes["cam_map"][-1] if "cam_map" in notes else None, result, notes, complete, rounded)


def _result(
    request: Request,
    found: Sequence[Found],
    class_idx: Array,
    finite: Bool[Array, ""],
    logits: Array,
    whole: Network,
    size: tuple[int, ...],
    magnitude: Callable[[Array], Array],
) -> tuple[Array, tuple[Array, ...], Array, Array, Array, Array | None]:
    """Heatmap, maps, value, confidence, status and gradient of one example and one class."""
    cam_maps = tuple(f.cam_map for f in found if f.cam_map is not None)
    gradients = [each.gradient for each in found if each.gradient is not None]
    gradient = _fused_gradient(jnp.stack(gradients), request.fusion) if gradients else None
    made = cam_maps if gradient is None else (*cam_maps, gradient)
    status = status_of(found, cam_maps, finite & all_finite(made), logits.size, class_idx)
    known = (status != Status.NOT_FINITE) & (status != Status.NO_SUCH_CLASS)
    # What is not known shows nothing: before it is enlarged, where it is small.
    shown = [maps.normalised(each) for each in (cam_maps if gradient is None else [magnitude(gradient)])]
    heatmap = _fused([maps.resized(jnp.where(known, each, 0), size) for each in shown], request.fusion)
    value = jnp.where(known, scores.logit(logits, class_idx), jnp.nan)
    confidence = jnp.where(known, probability_of(whole.probability, logits, class_idx), jnp.nan)
    return heatmap, cam_maps, value, confidence, status, gradient


def _shaped(explanation: Explanation, request: Request) -> Explanation:
    """The axis of scores in the target's own shape."""
    scores = request.scores
    assert scores is not None
    if request.num_classes is None:  # a scalar: there is no such axis
        return explanation
    return jax.tree.map(lambda x: x.reshape(x.shape[0], *scores, *x.shape[2:]), explanation)


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


def _check_result(method: Bound, result: Any, image: Array, place: _Place | None, whole: Network) -> None:
    expected = [whole.size(image) if place is None else place.activations.shape[:-1]]
    expected += [image.shape] if method.needs == "image" else []
    # Without a layer a map has a grid of its own: that of the patches, for one from a transformer's attention.
    is_own = place is None and getattr(result, "ndim", None) == image.ndim - 1
    if hasattr(result, "dtype") and not jnp.issubdtype(result.dtype, jnp.floating):
        raise TypeError(f"method {method.name!r} must return floating-point numbers but returned {result.dtype}")
    if not hasattr(result, "shape") or not (is_own or result.shape in expected):
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


def _one_by_one(function: Callable[..., Any], num_shards: int, *batches: Any) -> Any:
    """One example after the other; of a batch that is divided among devices one of every part, so that all stay there.

    A loop over the axis that is divided would bring every example to every device.
    """
    if num_shards == 1:
        return jax.lax.map(lambda each: function(*each), batches)

    def by_turns(a: Array) -> Array:
        return jnp.moveaxis(a.reshape(num_shards, -1, *a.shape[1:]), 1, 0)

    def in_order(a: Array) -> Array:
        return jnp.moveaxis(a, 0, 1).reshape(-1, *a.shape[2:])

    found = jax.lax.map(lambda each: jax.vmap(function)(*each), jax.tree.map(by_turns, batches))
    return jax.tree.map(in_order, found)


def _check_score(method: Bound, whole: Network) -> None:
    """Refuses a softmax over what are no classes that exclude each other."""
    if method.score is None or scores.name_of(scores.unsigned(method.score)) not in ("softmax", "log_softmax"):
        return
    if whole.model.is_aimed:
        raise ValueError(f'score={method.score!r} is of classes: with a target use "logit" (t itself) or "exp"')
    if whole.probability == "sigmoid":
        raise ValueError(
            f"score={method.score!r} is not what the outputs of {whole.model.name} mean, whose probability is a "
            "sigmoid: use score=lambda logits, class_idx: jax.nn.sigmoid(logits[class_idx])"
        )


def _check_moves(method: Bound, inputs: Array) -> None:
    """Refuses integers where the method changes the input, or differentiates by it."""
    if method.needs == "image" and not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise TypeError(
            f"inputs must be floating point for method={method.name!r}, which changes them, but their dtype is "
            f"{inputs.dtype}: pass the same numbers as floats"
        )


def _check_replaces(method: Bound, cut_at: Sequence[Cut]) -> None:
    """Refuses to put values in the place of all steps of a recurrent network, which its own state makes anew."""
    for each in cut_at:
        if method.method.replaces and each.halves.feeds_back:
            raise ValueError(
                f"method={method.name!r} puts other activations in the layer's place, but those of "
                f"layer={each.layer!r} follow from each other: use a method of derivatives, such as method='grad_cam', "
                "or a layer before the recurrent network"
            )


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
