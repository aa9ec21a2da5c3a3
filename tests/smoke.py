"""What must be right with every version of JAX and Flax that is declared: `python tests/smoke.py`, without pytest.

Figures are those of the definitions, by `jax.grad` on a network that is cut by hand.
"""

import importlib.metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxcam


def main() -> None:
    """Raises an AssertionError where something is wrong."""
    model = jaxcam.models.mini_vgg()
    images = model.preprocessing(np.asarray(jaxcam.scenes.pair(1, size=128).image))[None]
    activations = model.features(images)[0]
    head = lambda a: model.head(a[None])[0]
    class_idx = int(head(activations).argmax())

    gradient = jax.grad(lambda a: head(a)[class_idx])(activations)
    by_hand = jax.nn.relu(activations @ gradient.mean((0, 1)))
    found = jaxcam.explain(model, images)
    assert found.class_idx.tolist() == [class_idx]
    assert found.status.tolist() == [jaxcam.Status.OK]
    np.testing.assert_allclose(found.cam_map[0], by_hand, rtol=1e-3, atol=1e-5)

    alphas = jnp.where(gradient != 0, 1 / (2 + activations.sum((0, 1)) * gradient), 0)
    plus_plus = jax.nn.relu(activations @ (alphas * jax.nn.relu(gradient)).sum((0, 1)))
    for chosen in ("closed_form", "exact"):
        found = jaxcam.explain(model, images, method="grad_cam_pp", alphas=chosen)
        np.testing.assert_allclose(found.cam_map[0], plus_plus, rtol=1e-2, atol=1e-4)

    probabilities = lambda x: jax.nn.softmax(model(x))
    np.testing.assert_allclose(jaxcam.explain(probabilities, images).value[0], head(activations)[class_idx], rtol=1e-4)
    contrast = jaxcam.explain(model, images, target=jaxcam.targets.contrast(1, 2))
    np.testing.assert_allclose(contrast.value[0], (s := head(activations))[1] - s[2], rtol=1e-3)
    for method in ("score_cam", "ablation_cam", "eigen_cam", "guided_grad_cam", "hires_cam"):
        assert jaxcam.explain(model, images, method=method).status.tolist() == [jaxcam.Status.OK]
    jaxcam.save(jaxcam.overlay(model.preprocessing.view(jaxcam.scenes.pair(1).image), found.heatmap[0]), "smoke.png")
    Path("smoke.png").unlink()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "flax", "numpy"))
    print(f"right with {versions}")


if __name__ == "__main__":
    main()
