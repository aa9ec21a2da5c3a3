"""Eigen-CAM: the first principal direction of the activations, without a class or a gradient."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam.precision import widened

__all__ = ["eigen_cam", "first_direction"]


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


def _first_projection(matrix: Float[Array, "n k"]) -> Float[Array, " n"]:
    """A v_1, with the first right singular vector v_1."""
    return matrix @ first_direction(matrix)


@jax.custom_jvp
def first_direction(matrix: Float[Array, "n k"]) -> Float[Array, " k"]:
    """v_1, the first right singular vector, with a derivative that is finite where others are equal."""
    return jnp.linalg.svd(matrix, full_matrices=False)[2][0]


@first_direction.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # The derivative of the whole SVD is NaN where any two singular values are equal, as the zeros of dead channels
    # are. For v_1 only the gaps to s_1 count. From C v = s² v with C = A'A, and |v| = 1,
    #     (s² - C + s² v v') dv = dC v - v (v' dC v),
    # whose solution has the part (v_j' dC v) / (s² - s_j²) along each other v_j. A gap of zero, as in a map of zeros,
    # gives zero. JAX differentiates the equation and not how it is solved, so that this holds for every order.
    (matrix,), (tangent,) = primals, tangents
    v = first_direction(matrix)
    projection = matrix @ v
    largest = projection @ projection
    moved = tangent.T @ projection + matrix.T @ (tangent @ v)
    _, s, right = jnp.linalg.svd(jax.lax.stop_gradient(matrix), full_matrices=False)
    gaps = (s[0] ** 2 - s**2).at[0].set(s[0] ** 2)

    def operator(x: Array) -> Array:
        return largest * x - matrix.T @ (matrix @ x) + largest * v * (v @ x)

    def solution(_: object, b: Array) -> Array:
        parts = right @ b
        return right.T @ _divided(parts, gaps) + _divided(b - right.T @ parts, s[0] ** 2)

    change = jax.lax.custom_linear_solve(operator, moved - v * (v @ moved), solution, symmetric=True)
    return v, change


def _divided(x: Array, by: Array) -> Array:
    return jnp.where(by > 0, x / jnp.where(by > 0, by, 1), 0)
