"""The sanity check's other network: the weights behind the layer shuffled, everything before it the same.

A map that stays the same then does not explain what the network learned about the class. **Source**: Adebayo et al.
2018, "Sanity checks for saliency maps", section 3.1, where the weights are drawn anew; shuffled ones keep their scale.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, Literal
from jaxtyping import Array

from jaxcam.cuts.halves import Subject, model_of, sliced, takes_layer
from jaxcam.explanation.batch import Request


def shuffled(subject: Subject, request: Request, arrays: list[Any], image: jax.ShapeDtypeStruct) -> list[Any]:
    """The model's arrays, those with two axes or more that only the head uses in another order of their elements.

    Raises:
        ValueError: the head has no such arrays, as where the layer is the last one with weights.
    """
    where = behind(subject, request, arrays, image)
    if not where:
        raise ValueError(
            'metrics: "sanity" shuffles the weights behind the layer, and there are none behind '
            f"{request.layers[0] or 'the default layer'}: name an earlier layer=, or leave it out"
        )
    return [_shuffled(array, i) if i in where else array for i, array in enumerate(arrays)]


def behind(subject: Subject, request: Request, arrays: list[Any], image: jax.ShapeDtypeStruct) -> set[int]:
    """Which arrays are weights of the head alone."""
    layer = request.layers[0] if request.layers else None
    if request.choice.method == "cam":
        model = model_of(subject, arrays)
        layer = model.cam_layer if takes_layer(model.features) else None
    batch = jax.ShapeDtypeStruct((1, *image.shape), image.dtype)

    def features(arrays: list[Any], images: Array) -> Any:
        return sliced(subject, arrays, layer, image).features(images)

    def head(arrays: list[Any], a: Array, beside: Any) -> Array:
        return sliced(subject, arrays, layer, image).head(jax.tree.map(lambda value: value[0], beside))(a[0])

    before = _used(jax.make_jaxpr(features)(arrays, batch).jaxpr, len(arrays))
    a, beside = jax.eval_shape(features, arrays, batch)
    after = _used(jax.make_jaxpr(head)(arrays, a, beside).jaxpr, len(arrays))
    return {i for i in after - before if arrays[i].ndim > 1 and jnp.issubdtype(arrays[i].dtype, jnp.floating)}


def _used(program: Jaxpr, num_arrays: int) -> set[int]:
    inside = {atom for eqn in program.eqns for atom in eqn.invars if not isinstance(atom, Literal)}
    inside |= {atom for atom in program.outvars if not isinstance(atom, Literal)}
    return {i for i, var in enumerate(program.invars[:num_arrays]) if var in inside}


def _shuffled(array: Array, seed: int) -> Array:
    key = jax.random.key(seed, impl="threefry2x32")
    return jax.random.permutation(key, array.reshape(-1)).reshape(array.shape)
