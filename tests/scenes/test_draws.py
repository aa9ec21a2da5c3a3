"""Random numbers do not depend on the x64 switch, which changes the default types, nor on the input's type."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr
from support import cut_model, gap_head

from jaxcam import methods, scenes
from jaxcam.evaluation.shuffled import _shuffled
from jaxcam.models.train import Drawn, dimmed
from jaxcam.programs.program import inner_programs
from jaxcam.scenes.drawing import pair_contents, scene_contents
from jaxcam.scenes.layout import layout

KEY = jax.random.key(0)
MODEL = cut_model(lambda x: jax.nn.relu(x), lambda a, x: gap_head(jnp.eye(3, dtype=a.dtype))(a))
DRAWN = Drawn(jnp.zeros((2, 32, 32, 3), jnp.float32), jnp.zeros((2, 32, 32), bool), jnp.zeros((2,), jnp.int32))
DRAWS = {
    "scene": (lambda: scene_contents(KEY, None, None)),
    "pair": (lambda: pair_contents(KEY, None)),
    "layout": (lambda: layout(KEY, jnp.zeros((4,), jnp.int32), jnp.ones((4,), bool))),
    "clip": (lambda: scenes.clip(KEY)),
    "series": (lambda: scenes.series(KEY)),
    "volume": (lambda: scenes.volume(KEY, size=16)),
    "caption": (lambda: scenes.caption(KEY)),
    "question": (lambda: scenes.question(KEY)),
    "training": (lambda: dimmed(DRAWN, KEY)),
    "noise": (lambda: methods.smooth_grad_cam_pp(MODEL, jnp.ones((4, 4, 3), jnp.float64), 0, key=KEY)),
    "shuffled weights": (lambda: _shuffled(jnp.ones((3, 4), jnp.float64), 0)),
}


def widths(program: ClosedJaxpr) -> set[int]:
    """How many random bits each number is made of, wherever numbers are drawn."""
    own = {eqn.params["bit_width"] for eqn in program.jaxpr.eqns if eqn.primitive.name == "random_bits"}
    return own.union(*(widths(inner) for eqn in program.jaxpr.eqns for inner in inner_programs(eqn)))


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.sample(3)
def test_all_draws_are_of_32_bits_under_x64(name):
    assert jax.config.jax_enable_x64
    assert widths(jax.make_jaxpr(DRAWS[name])()) == {32}


def test_what_a_pair_shows_is_the_same_without_x64():
    def shown():
        keys = jax.vmap(jax.random.key)(np.arange(8, dtype=np.uint32))
        found = jax.jit(jax.vmap(lambda key: pair_contents(key, None)[1:]))(keys)
        return [np.asarray(leaf) for leaf in found]

    with jax.enable_x64(False):
        narrow = shown()
    for a, b in zip(narrow, shown(), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
