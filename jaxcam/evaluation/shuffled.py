"""The sanity check's other network: the weights behind the layer shuffled, everything before it the same.

A map that stays the same then does not explain what the network learned about the class. **Source**: Adebayo et al.
2018, "Sanity checks for saliency maps", section 3.1, where the weights are drawn anew; shuffled ones keep their scale.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxcam.cuts.cut import cuts
from jaxcam.cuts.model import Adapted
from jaxcam.explanation.batch import Request, cuts_of


def shuffled(model: Adapted, request: Request, example: Any, main: int = 0) -> Adapted:
    """The model with those arrays of two axes or more that only the head uses in another order of their elements.

    Raises:
        ValueError: the head has no such arrays, as where the layer is the last one with weights.
    """
    where = behind(model, request, example, main)
    if not where:
        raise ValueError(
            'metrics: "sanity" shuffles the weights behind the layer, and there are none behind '
            f"{request.layers[0] or 'the default layer'}: name an earlier layer=, or leave it out"
        )
    arrays, structure = jax.tree.flatten(model)
    return jax.tree.unflatten(structure, [_shuffled(a, i) if i in where else a for i, a in enumerate(arrays)])


def behind(model: Adapted, request: Request, example: Any, main: int = 0) -> set[int]:
    """Which of the model's arrays are weights of the head alone; of the default layer's where the method needs none.

    What a target has captured, as a mask, is no weight of the model.
    """
    arrays = jax.tree.leaves(model)
    own = arrays[: len(arrays) - len(model.state[1])] if model.is_aimed else arrays
    weights = {i for i, array in enumerate(own) if array.ndim > 1 and jnp.issubdtype(array.dtype, jnp.floating)}
    used_before: set[int] = set()
    for cut in cuts_of(model, request, example, main) or cuts(model, example, (None,), main=main):
        halves = cut.halves
        places = {var: i for i, var in enumerate(halves.program.arguments[: len(arrays)])}
        used_before |= {places[var] for var in halves.before.used if var in places}
        weights &= {places[var] for var in halves.after.used if var in places}
    return weights - used_before


def _shuffled(array: Array, seed: int) -> Array:
    key = jax.random.key(seed, impl="threefry2x32")
    return jax.random.permutation(key, array.reshape(-1)).reshape(array.shape)
