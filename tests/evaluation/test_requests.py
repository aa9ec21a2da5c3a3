"""What is evaluated where nobody names the methods."""

import jax
import numpy as np
import pytest

import jaxcam
from jaxcam.explanation import costs

RANDOM = np.random.default_rng(0)
KERNEL, MIX, LAST = RANDOM.normal(size=(3, 5)), RANDOM.normal(size=(60, 60)) / 8, RANDOM.normal(size=(60, 4))
IMAGES = RANDOM.normal(size=(2, 6, 8, 3))


def linear(x):
    return jax.nn.relu(x[:, ::2, ::2] @ KERNEL).reshape(-1, 60) @ LAST


def smooth(x):  # 60 activations that meet in smooth layers: one pass for each
    return jax.nn.gelu(jax.nn.gelu(jax.nn.relu(x[:, ::2, ::2] @ KERNEL).reshape(-1, 60) @ MIX) @ MIX) @ LAST


def test_a_default_method_that_costs_too_much_is_left_out_and_says_so(monkeypatch):
    monkeypatch.setattr(costs, "_FREE", 0)
    options = {"metrics": ["confidence"], "num_resamples": 0, "show_progress": False}
    assert jaxcam.evaluate(linear, IMAGES, **options).methods == ("grad_cam", "grad_cam_pp")
    found = jaxcam.evaluate(smooth, IMAGES, **options)
    assert found.methods == ("grad_cam",)
    assert "without grad_cam_pp: method='grad_cam_pp' needs exact derivatives" in str(found)
    named = jaxcam.evaluate(smooth, IMAGES, methods=["grad_cam"], **options)
    assert found["grad_cam", "average_drop"].value == named["grad_cam", "average_drop"].value
    with pytest.raises(ValueError, match="alphas='exact'"):
        jaxcam.evaluate(smooth, IMAGES, methods=["grad_cam", "grad_cam_pp"], **options)
