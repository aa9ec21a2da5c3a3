"""Signed maps: methods without their last ReLU."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxcam
from jaxcam.methods import signed

RANDOM = np.random.default_rng(3)
WEIGHTS = RANDOM.normal(size=(4, 3))


def test_signed_maps_are_the_methods_without_their_relu():
    names = ["grad_cam", "grad_cam_pp", "hires_cam", "xgrad_cam", "layer_cam", "counterfactual", "finer_cam"]
    names += ["eigen_cam", "shapley_cam", "ablation_cam"]
    a = jnp.asarray(RANDOM.normal(size=(3, 4, 4)))  # of both signs, so that every sum has
    head = lambda a: jnp.tanh(a.mean((0, 1)) @ WEIGHTS)

    @jax.jit
    def both(a):
        found = {}
        for name in names:
            plain, before = jaxcam.methods.METHODS[name].function, signed(name).function
            given = (a,) if name == "eigen_cam" else (head, a, 1)
            found[name] = plain(*given), before(*given)
        return found

    for name, (plain, before) in both(a).items():
        np.testing.assert_allclose(np.maximum(before, 0), plain, rtol=1e-9, atol=1e-12, err_msg=name)
        assert (np.asarray(before) < 0).any() == (name != "eigen_cam"), name


def test_a_mean_of_maps_that_were_cut_off_stays_what_it_is():
    kernel = jnp.asarray(RANDOM.normal(size=(2, 2, 3, 4)))

    def net(images):
        found = jax.lax.conv_general_dilated(images, kernel, (2, 2), "VALID", None, None, ("NHWC", "HWIO", "NHWC"))
        return jax.ad_checkpoint.checkpoint_name(found, "here").mean((1, 2)) @ WEIGHTS

    images = jnp.asarray(RANDOM.normal(size=(1, 10, 10, 3)))
    smooth = jaxcam.methods.smoothed("grad_cam", [jaxcam.methods.Transform(), jaxcam.methods.Transform((-1,))])
    given = {"layer": "here", "class_idx": 1}
    plain = jaxcam.explain(net, images, method=smooth, **given)
    before = jaxcam.explain(net, images, method=signed(smooth), **given)
    np.testing.assert_allclose(before.cam_map, plain.cam_map, rtol=1e-6)
    assert np.asarray(plain.cam_map).any()
    alone = jaxcam.explain(net, images, method=signed("grad_cam"), **given)
    assert (np.asarray(alone.cam_map) < 0).any()
    assert alone.status[0] == jaxcam.Status.OK
