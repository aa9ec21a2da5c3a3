"""explain as an exported program: its parameters are arguments, and the number of examples is open."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from support import normal, positive

import jaxcam

KERNELS, DENSE = (normal(0, 3, 3, 2, 4) / 3, normal(1, 3, 3, 4, 5) / 3), normal(2, 5, 4)
DIMENSIONS = ("NHWC", "HWIO", "NHWC")
PARAMETERS = [*KERNELS, DENSE]


def convolved(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=DIMENSIONS)


def features(parameters, x):
    return jax.nn.gelu(convolved(jax.nn.gelu(convolved(x, parameters[0])), parameters[1]))


def head(parameters, a):
    return a.mean((1, 2)) @ parameters[2]


def network(parameters, x):
    return head(parameters, features(parameters, x))


def explained(parameters, images, class_idx):
    """What is exported: plain containers of arrays, for a process without jaxcam."""
    model = jaxcam.adapt(parameters, apply=network)
    grad_cam = jaxcam.explain(model, images, class_idx=class_idx)
    # Example by example, in a loop of open length; and classes in chunks, of as many as fit into memory.
    exact = jaxcam.explain(model, images, class_idx=class_idx, method="grad_cam_pp", alphas="exact")
    two = jaxcam.explain(model, images, top=2)
    return {
        "heatmap": grad_cam.heatmap,
        "status": grad_cam.status,
        "exact": exact.heatmap,
        "two": two.heatmap,
        "confidence": two.confidence,
    }


def like(value, shape=None):
    return jax.ShapeDtypeStruct(value.shape if shape is None else shape, value.dtype)


def inputs(n):
    """Parameters other than those that were there at the export, images, and a class for each."""
    return [2 * p for p in PARAMETERS], positive(3 + n, n, 5, 6, 2), jnp.asarray(np.arange(n) % 4, np.int32)


@pytest.fixture(scope="module")
def exported():
    (n,) = export.symbolic_shape("n")
    parameters, images, class_idx = inputs(1)
    specs = [like(p) for p in parameters], like(images, (n, 5, 6, 2)), like(class_idx, (n,))
    return export.export(jax.jit(explained))(*specs)


def test_any_number_of_examples_and_other_parameters(exported):
    given = inputs(3)
    found, expected = exported.call(*given), jax.jit(explained)(*given)
    assert found["two"].shape == (3, 2, 5, 6)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-13, err_msg=name)


@pytest.mark.thorough
def test_a_process_that_has_jax_only(exported, tmp_path):
    pytest.importorskip("flatbuffers")  # what JAX writes programs with
    (tmp_path / "program").write_bytes(exported.serialize())
    given = {f"parameter_{i}": p for i, p in enumerate(inputs(1)[0])}
    for n in (1, 3):
        _, given[f"images_{n}"], given[f"class_idx_{n}"] = inputs(n)
    np.savez(tmp_path / "given.npz", **given)
    script = Path(__file__).parent / "export_process.py"
    paths = [tmp_path / name for name in ("program", "given.npz", "results.npz")]
    env = {**os.environ, "JAX_ENABLE_X64": "1"}
    subprocess.run([sys.executable, script, *paths], check=True, env=env)
    found = np.load(tmp_path / "results.npz")
    for n in (1, 3):
        for name, value in jax.jit(explained)(*inputs(n)).items():
            np.testing.assert_allclose(found[f"{name}_{n}"], value, rtol=1e-12, atol=1e-13, err_msg=f"{name} of {n}")


def test_an_explanation_itself_is_written_and_read():
    pytest.importorskip("flatbuffers")
    explanation = jaxcam.Explanation(*(normal(i, 2, 3) for i in range(6)))
    program = export.export(jax.jit(lambda e: jax.tree.map(lambda x: 2 * x, e)))(explanation)
    again = export.deserialize(program.serialize()).call(explanation)
    assert isinstance(again, jaxcam.Explanation)
    assert again.gradient is None
    np.testing.assert_array_equal(again.status, 2 * explanation.status)


@pytest.fixture(scope="module")
def program():
    return export.export(jax.jit(network))([like(p) for p in PARAMETERS], like(TestAnExportedModel.images[:1]))


class TestAnExportedModel:
    """Nothing is known of what is in it."""

    images = inputs(2)[1]

    @pytest.mark.parametrize("method", ["grad_cam", "guided_backprop"])
    def test_is_refused(self, program, method):
        with pytest.raises(ValueError, match="export its features and its head separately"):
            jaxcam.explain(lambda x: program.call(PARAMETERS, x), self.images, method=method)

    def test_is_refused_as_it_is_and_by_layers(self, program):
        with pytest.raises(ValueError, match="export its features and its head separately"):
            jaxcam.explain(program, self.images)
        with pytest.raises(ValueError, match="export its features and its head separately"):
            jaxcam.layers(jax.tree_util.Partial(program.call, PARAMETERS), self.images[:1])

    def test_two_halves_are_explained_as_the_message_says(self):
        a = features(PARAMETERS, self.images)
        halves = [
            export.export(jax.jit(half))([like(p) for p in PARAMETERS], like(value[:1]))
            for half, value in ((features, self.images), (head, a))
        ]
        found = jaxcam.grad_cam(
            lambda a: halves[1].call(PARAMETERS, a[None])[0], halves[0].call(PARAMETERS, self.images[:1])[0], 2
        )
        expected = np.maximum(a[0] @ (DENSE[:, 2] / 30), 0)  # of global average pooling over 5 x 6
        np.testing.assert_allclose(found, expected, rtol=1e-12)
