"""The sanity checks' other networks: the weights behind the layer shuffled, those before it, or all of them.

A map that stays the same with those behind the layer shuffled does not explain what the network learned about the
class. What lies before stays as it is then, the activations with it, and they are what a map is made of: with the
weights before the layer shuffled, from the bottom up, these are lost as well. **Source**: Adebayo et al. 2018, "Sanity
checks for saliency maps", section 3.1, where the weights are drawn anew; shuffled ones keep their scale. From the
bottom up: Hedström et al. 2023, "Sanity checks revisited".
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxcam.cuts.cut import cuts
from jaxcam.cuts.model import Adapted
from jaxcam.explanation.batch import Request, cuts_of

Part = Literal["behind", "before", "all"]
_GROUP = {"behind": ("sanity", "an earlier"), "before": ("randomised", "a later")}


def shuffled(model: Adapted, request: Request, example: Any, main: int = 0, *, part: Part = "behind") -> Adapted:
    """The model with its arrays of two axes or more in another order of their elements.

    Those that only the head uses, "behind" the layer; those "before" it, which its activations depend on; or "all".

    Raises:
        ValueError: there are no such arrays, as behind the last layer with weights.
    """
    where = _PARTS[part](model, request, example, main)
    if not where:
        group, other = _GROUP.get(part, ("randomised", "another"))
        raise ValueError(
            f'metrics: "{group}" shuffles the weights {part} the layer, and there are none {part} '
            f"{request.layers[0] or 'the default layer'}: name {other} layer=, or leave it out"
        )
    arrays, structure = jax.tree.flatten(model)
    return jax.tree.unflatten(structure, [_shuffled(a, i) if i in where else a for i, a in enumerate(arrays)])


def behind(model: Adapted, request: Request, example: Any, main: int = 0) -> set[int]:
    """Which of the model's arrays are weights of the head alone; of the default layer's where the method needs none.

    What a target has captured, as a mask, is no weight of the model.
    """
    used = [after for _, after in _used(model, request, example, main)]
    return _weights(model).intersection(*used) - before(model, request, example, main)


def before(model: Adapted, request: Request, example: Any, main: int = 0) -> set[int]:
    """Which of the model's arrays are weights that the layer's activations depend on."""
    used = [earlier for earlier, _ in _used(model, request, example, main)]
    return _weights(model) & set[int]().union(*used)


_PARTS = {"behind": behind, "before": before, "all": lambda model, *_: _weights(model)}


def _weights(model: Adapted) -> set[int]:
    arrays = jax.tree.leaves(model)
    own = arrays[: len(arrays) - len(model.state[1])] if model.is_aimed else arrays
    return {i for i, array in enumerate(own) if array.ndim > 1 and jnp.issubdtype(array.dtype, jnp.floating)}


def _used(model: Adapted, request: Request, example: Any, main: int) -> list[tuple[set[int], set[int]]]:
    """Of each layer the arrays that the network uses before it, and after it."""
    num = len(jax.tree.leaves(model))
    found: list[tuple[set[int], set[int]]] = []
    for cut in cuts_of(model, request, example, main) or cuts(model, example, (None,), main=main):
        halves = cut.halves
        places = {var: i for i, var in enumerate(halves.program.arguments[:num])}
        earlier, later = ({places[var] for var in half.used if var in places} for half in (halves.before, halves.after))
        found.append((earlier, later))
    return found


def _shuffled(array: Array, seed: int) -> Array:
    key = jax.random.key(seed, impl="threefry2x32")
    return jax.random.permutation(key, array.reshape(-1)).reshape(array.shape)
