"""Eigen-CAM: the first principal direction of the activations, without a class or a gradient."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam.derivatives.closed_forms import widened

__all__ = ["eigen_cam"]


def eigen_cam(activations: Float[Array, "*spatial k"]) -> Float[Array, "*spatial"]:
    """Eigen-CAM: the projection of A, positions by channels, on its first right singular vector. It knows no class.

    A singular vector has no sign of its own: the one is taken with which the map's sum is not negative. The matrix is
    not centred first, as in the paper (the grad-cam package subtracts each channel's mean).

    Args:
        activations: A, `[*spatial, k]`.

    Returns:
        The raw map `[*spatial]`, after a ReLU, not normalised.

    Raises:
        TypeError: activations are not floating point.
        ValueError: there is no spatial axis.

    **Source**: Muhammad and Yeasin 2020 (Eigen-CAM), section III.
    """
    if not jnp.issubdtype(activations.dtype, jnp.floating):
        raise TypeError(f"activations must be floating point, but their dtype is {activations.dtype}")
    if activations.ndim < 2:
        raise ValueError(f"activations must be [*spatial, k], but their shape is {activations.shape}")
    (wide,) = widened(activations)  # no SVD in half precision
    projection = _first_projection(wide.reshape(-1, activations.shape[-1])).reshape(activations.shape[:-1])
    return jax.nn.relu(jnp.where(projection.sum() < 0, -projection, projection)).astype(activations.dtype)


@jax.custom_jvp
def _first_projection(matrix: Float[Array, "n k"]) -> Float[Array, " n"]:
    """A v_1, with the first right singular vector v_1."""
    return matrix @ jnp.linalg.svd(matrix, full_matrices=False)[2][0]


@_first_projection.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # The derivative of the whole SVD is NaN where any two singular values are equal, as the zeros of dead channels
    # are. For v_1 only the gaps to s_1 count: dv_1 = sum_j v_j (v_j' dC v_1) / (s_1^2 - s_j^2), with C = A'A. What
    # dv_1 has outside of the v_j is lost in A dv_1. A gap of zero, as in a map of zeros, gives zero.
    (matrix,), (tangent,) = primals, tangents
    _, s, right = jnp.linalg.svd(matrix, full_matrices=False)
    v, gaps = right[0], s[0] ** 2 - s**2
    parts = right @ (tangent.T @ (matrix @ v) + matrix.T @ (tangent @ v))
    change = right.T @ jnp.where(gaps > 0, parts / jnp.where(gaps > 0, gaps, 1), 0)
    return matrix @ v, tangent @ v + matrix @ change
