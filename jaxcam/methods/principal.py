"""Principal components of positions by channels: EigenGrad-CAM (of the gradient's product) and KPCA-CAM (by a kernel).

A component has no sign of its own: each docstring says which one is taken.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcam.checks import check_number
from jaxcam.derivatives.of_score import gradient_of_score
from jaxcam.methods.eigen_cam import first_direction
from jaxcam.precision import widened
from jaxcam.scores import ClassIdx, Score
from jaxcam.types import Head


def eigen_grad_cam(
    head: Head, activations: Float[Array, "*spatial k"], class_idx: ClassIdx, *, score: str | Score = "logit"
) -> Float[Array, "*spatial"]:
    """EigenGrad-CAM: the first principal component of g ∘ A, positions by channels: Eigen-CAM that knows the class.

    P = M v_1 with M = g ∘ A less each channel's mean, and its first right singular vector v_1. The sign is the one with
    which P does not go against the sum over the channels, HiResCAM's map before its ReLU: <P, M 1> = s_1² sum_k v_k, so
    that sum_k v_k >= 0. (The grad-cam package, of which the method is, leaves the sign to the decomposition.)

    Arguments and errors as in `grad_cam`.

    Returns:
        The raw map `[*spatial]`, after a ReLU, not normalised.

    **Source**: the grad-cam package (EigenGradCAM), after Muhammad and Yeasin 2020 (Eigen-CAM).
    """
    gradient, (wide,) = gradient_of_score(head, activations, class_idx, score=score), widened(activations)
    matrix = _centred((gradient * wide).reshape(-1, activations.shape[-1]))
    direction = first_direction(matrix)
    projection = (matrix @ jnp.where(direction.sum() < 0, -direction, direction)).reshape(activations.shape[:-1])
    return jax.nn.relu(projection).astype(activations.dtype)


def kpca_cam(
    activations: Float[Array, "*spatial k"], *, kernel: str = "sigmoid", width: float | None = None
) -> Float[Array, "*spatial"]:
    """KPCA-CAM: the first component of a kernel PCA of the activations, one vector of channels a position. No class.

    With the activations x_i of position i, less each channel's mean, K_ij = tanh(width x_i·x_j + 1) ("sigmoid") or
    exp(-width |x_i - x_j|²) ("rbf"), K less its means by row and column, and its largest eigenvalue l and vector u:
    sqrt(l) u. The sign is the one with which it does not go against the sum of the channels. (The grad-cam package
    takes the one with which the largest magnitude is positive.)

    It holds `[n, n]` numbers for n positions.

    Args:
        activations: A, `[*spatial, k]`.
        kernel: "sigmoid" or "rbf".
        width: the kernel's, above 0; 1 / k unless given.

    Returns:
        The raw map `[*spatial]`, after a ReLU, not normalised; zero where all positions are alike.

    Raises:
        TypeError: activations are not floating point, or width is no number.
        ValueError: there is no spatial axis, the kernel is not known, or width is not above 0.

    **Source**: Karmani et al. 2024 (KPCA-CAM); the defaults are those of the grad-cam package.
    """
    if not jnp.issubdtype(activations.dtype, jnp.floating):
        raise TypeError(f"activations must be floating point, but their dtype is {activations.dtype}")
    if activations.ndim < 2:
        raise ValueError(f"activations must be [*spatial, k], but their shape is {activations.shape}")
    if kernel not in ("sigmoid", "rbf"):
        raise ValueError(f"kernel={kernel!r} is not known: use 'sigmoid' or 'rbf'")
    if width is not None:
        check_number("width", width, above=0)
    (wide,) = widened(activations)
    matrix = _centred(wide.reshape(-1, activations.shape[-1]))
    by = 1 / activations.shape[-1] if width is None else width
    products, squares = matrix @ matrix.T, (matrix**2).sum(1)
    if kernel == "sigmoid":
        gram = jnp.tanh(by * products + 1)
    else:
        gram = jnp.exp(-by * (squares[:, None] + squares[None, :] - 2 * products))
    gram = _centred(_centred(gram).T)
    # The sigmoid's matrix may have eigenvalues below zero. Moved above it by a multiple of the identity, it has the
    # same eigenvectors, and its first one is that of the largest eigenvalue, not of the largest magnitude.
    shift = jax.lax.stop_gradient(jnp.abs(gram).sum(1).max())
    vector = first_direction(gram + shift * jnp.eye(gram.shape[0], dtype=gram.dtype))
    value = vector @ gram @ vector
    component = jnp.where(value > 0, jnp.sqrt(jnp.where(value > 0, value, 1)), 0) * vector
    component = jnp.where(component @ matrix.sum(1) < 0, -component, component)
    return jax.nn.relu(component.reshape(activations.shape[:-1])).astype(activations.dtype)


def _centred(matrix: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """Less each column's mean. What is left of a constant column is rounding, and no direction: zero."""
    mean = matrix.mean(0, keepdims=True)
    left = matrix - mean
    return jnp.where(jnp.abs(left) > 8 * jnp.finfo(matrix.dtype).eps * jnp.abs(mean), left, 0)
