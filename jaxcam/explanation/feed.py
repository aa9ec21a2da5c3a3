"""How the examples of a data set come to the model: pictures through its preprocessing, or inputs as they are."""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcam.cuts.cut import network
from jaxcam.cuts.inputs import grids_of
from jaxcam.cuts.model import Adapted
from jaxcam.datasets.examples import View
from jaxcam.datasets.prepared import Prepared, input_of
from jaxcam.datasets.sources import Source
from jaxcam.explanation.arguments import inputs_of
from jaxcam.images.preprocessing import Preprocessing
from jaxcam.programs.specs import batch_of_one, without_batch
from jaxcam.types import Target

_Aim = Callable[[Adapted, Any], Adapted]


class Feed(NamedTuple):
    """What is known once the first example is; `evaluate` and `fit_cam` run on it."""

    model: Adapted
    """Hoisted for such inputs, and aimed at the target."""
    example: Any
    """What one example is like as the model takes it, without the axis n."""
    form: Preprocessing | Prepared
    like: Any
    """What the image of a view is like."""
    channel_axis: int
    main: int


def fed(model: Adapted, source: Source, target: Target | None) -> Feed:
    """The feed of pictures for a model that knows its preprocessing, else of inputs that are prepared for it.

    Raises:
        ValueError, TypeError: the model does not take them; several inputs have a grid; the target is no single number.
    """

    def aim(known: Adapted, batch: Any) -> Adapted:
        if target is None:
            return known
        aimed, scores = known.aim(target, batch)
        if scores:
            raise ValueError(
                f"target must return one number for each example in evaluate but returned {list(scores)}: pick one, as "
                "lambda outputs, inputs: target(outputs, inputs)[0], and evaluate each by itself"
            )
        return aimed

    return _inputs(model, source, aim) if model.preprocessing is None else _pictures(model, source, aim)


def _inputs(model: Adapted, source: Source, aim: _Aim) -> Feed:
    """Of the shapes that the first example has."""
    item = source.first()
    given = input_of(item.image)
    if max((leaf.ndim for leaf in jax.tree.leaves(given)), default=0) < 2:
        shapes = [list(leaf.shape) for leaf in jax.tree.leaves(given)]
        raise ValueError(
            f"dataset: an input must be [*spatial, d] but that of {item.name} is {', '.join(map(str, shapes))}: add "
            "the channels' axis with series[..., None]"
        )
    batch = batch_of_one(inputs_of(jax.tree.map(lambda array: array[None], given)))
    leaves = jax.tree.leaves(batch)
    known = model.hoist(batch)
    mains = grids_of(known, batch, leaves)
    if len(mains) > 1:
        raise ValueError(
            f"dataset: {len(mains)} of the {len(leaves)} inputs have positions, and evaluate measures one heatmap: say "
            "which with jaxcam.adapt(model, input=...), its key or position; the others are left as they are"
        )
    (main,), example = mains, without_batch(batch)
    known = aim(known, batch)
    channel_axis = network(known, example, main=main).channel_axis
    like = jax.tree.map(lambda each: jax.ShapeDtypeStruct(each.shape, each.dtype), example)
    shape = jax.tree.leaves(like)[main].shape
    size = shape[1:] if channel_axis == 0 else shape[:-1]
    return Feed(known, example, Prepared(like, size), like, channel_axis, main)


def _pictures(model: Adapted, source: Source, aim: _Aim) -> Feed:
    preprocessing = model.preprocessing
    assert preprocessing is not None
    like = jax.ShapeDtypeStruct((*_size(preprocessing, source), len(preprocessing.mean)), np.float32)
    known, batch, channel_axis = _for_pictures(model, like.shape)
    return Feed(aim(known, batch), without_batch(batch), preprocessing, like, channel_axis, 0)


def _for_pictures(model: Adapted, shape: tuple[int, ...]) -> tuple[Adapted, jax.ShapeDtypeStruct, int]:
    """The model for pictures `[H, W, d]`, one of them as the model takes it `[1, ...]`, and where its channels are.

    A model that takes channels first is known by what it takes: it fails on the others.
    """
    *size, channels = shape
    last, first = (jax.ShapeDtypeStruct((1, *each), jnp.float32) for each in (shape, (channels, *size)))
    try:
        known = model.hoist(last)
        jax.eval_shape(known, last)
    except Exception as error:  # whatever a model raises for images that it cannot take
        try:
            known = model.hoist(first)
            jax.eval_shape(known, first)
        except Exception:
            _check_channels(model, size, 1 if channels == 3 else 3)
            raise error from None
        return known, first, 0
    return known, last, -1


def _check_channels(model: Adapted, size: list[int], others: int) -> None:
    """Refuses a model that takes pictures of other channels than the preprocessing makes."""
    try:
        jax.eval_shape(model, jax.ShapeDtypeStruct((1, *size, others), jnp.float32))
    except Exception:
        return
    numbers, pictures = ("three numbers", "coloured") if others == 3 else ("one number", "grey")
    raise ValueError(
        f"preprocessing must have a mean and a std of {numbers} for {model.name}, which takes {pictures} pictures: "
        "give jaxcam.adapt(model, preprocessing=...) one that has"
    )


def _size(preprocessing: Preprocessing, source: Source) -> tuple[int, int]:
    """Of all views."""
    if preprocessing.crop is not None:
        return preprocessing.crop, preprocessing.crop
    if source.length is None:
        raise ValueError("preprocessing must have a crop= for a data set without a length: all pictures need one size")
    with closing(source.views(range(source.length), preprocessing=preprocessing, num_workers=0, prefetch=1)) as views:
        for view in views:
            if view.image is not None:
                height, width = view.image.shape[:2]
                return height, width
    raise ValueError("dataset: none of its pictures can be read")


def of_size(view: View, like: Any) -> View:
    """The view, or none where its picture has another size than the first; prepared inputs have been looked at."""
    if not isinstance(view.image, np.ndarray) or view.image.shape == like.shape:
        return view
    return view._replace(
        image=None,
        error=f"the network would see {list(view.image.shape[:2])} pixels of it and {list(like.shape[:2])} of the "
        "others: give a preprocessing with crop=",
    )


def stacked(views: Sequence[View | None], like: Any, size: int) -> Any:
    """The images of a block, zero where there is none: all blocks have one size, for one program."""
    arrays = jax.tree.map(lambda each: np.zeros((size, *each.shape), each.dtype), like)
    for i, view in enumerate(views):
        if view is not None and view.image is not None:
            for whole, one in zip(jax.tree.leaves(arrays), jax.tree.leaves(view.image), strict=True):
                whole[i] = one
    return arrays
