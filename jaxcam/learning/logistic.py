"""Multinomial logistic regression with weight decay: the optimum, and how well the data determine it.

With features x_i `[k]`, labels y_i, logits S_i = Wᵀ x_i + b and probabilities p_i = softmax(S_i)

    f(W, b) = mean_i [ log Σ_c exp S_ic - S_i,y_i ] + decay / 2 · ||W||²,

the bias b not being decayed. scikit-learn's C is 1 / (n · decay). (Its two classes have one column w = W_1 - W_0, for
which decay / 2 · ||W||² is decay / 4 · ||w||²: C = 2 / (n · decay) there.)

**Gauge.** Softmax does not change when a vector is added to all columns of W and a number to all biases. At the optimum
the columns of W add up to zero because the decay is least there; the biases are made to, which changes nothing else.
What the data determine, and what has a standard error, are these centred coefficients; a difference of two classes, as
W_1 - W_0, does not depend on the gauge at all.

Computed in float64, whatever JAX computes in otherwise, on the device where JAX computes.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

_TOLERANCE = 1e-9
"""Of the gradient's norm, in coordinates in which the Hessian is near to the identity."""
_FEW = 1e-12
"""A number that a variance is never below."""


class Optimum(NamedTuple):
    """Where f is least."""

    kernel: Float[np.ndarray, "k c"]
    """W."""
    bias: Float[np.ndarray, " c"]
    """b."""
    loss: float
    """f without the decay: the mean cross-entropy."""
    steps: int
    gradient: float
    """The norm of f's gradient there, in the coordinates of the search."""

    @property
    def converged(self) -> bool:
        """Whether the search ended because there is no slope left."""
        return self.gradient <= _TOLERANCE


def optimum(
    x: Float[np.ndarray, "n k"],
    labels: Int[np.ndarray, " n"],
    *,
    num_classes: int,
    decay: float,
    max_steps: int,
    weights: Float[np.ndarray, " n"] | None = None,
    start: Optimum | None = None,
) -> Optimum:
    """The minimum of f by L-BFGS.

    Args:
        x: the features.
        labels: from 0 to below num_classes.
        num_classes: c.
        decay: of W, above 0.
        max_steps: after which the search is given up.
        weights: of the examples; 0 leaves one out.
        start: where to begin; at zero if None.

    **Source**: Liu and Nocedal 1989 (L-BFGS), with optax's search along the line (Nocedal and Wright 2006, Algorithm
    3.5 and 3.6).
    """
    w = np.ones(len(x)) if weights is None else weights
    w = w / w.sum()
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"), jax.default_matmul_precision("highest"):
        wide = np.asarray(x, np.float64)
        middle = w @ wide
        spread = w @ np.square(wide - middle)
        # A step of one unit in any coordinate changes the slope by about one: near W = 0 the Hessian's diagonal is
        # (1/c) (1 - 1/c) times the spread, plus the decay. The optimum is the same in whatever coordinates.
        curvature = (1 - 1 / num_classes) / num_classes
        scale, bias_scale = np.sqrt(curvature * spread + decay), curvature**0.5
        if start is None:
            first = np.zeros((wide.shape[1], num_classes)), np.zeros(num_classes)
        else:
            first = start.kernel * scale[:, None], (start.bias + middle @ start.kernel) * bias_scale
        data = (wide - middle) / scale, labels.astype(np.int64), w
        found = _searched(*data, (scale, bias_scale), decay, first, max_steps)
        (v, u), loss, steps, slope = jax.device_get(found)
    kernel = v / scale[:, None]
    bias = u / bias_scale - middle @ kernel
    return Optimum(kernel, bias - bias.mean(), float(loss), int(steps), float(slope))


@jax.jit
def _searched(x: Array, labels: Array, w: Array, scales: Any, decay: Any, first: Any, most: Any) -> Any:
    """The search, in the coordinates V = W · scale and u = b' · bias_scale of centred and scaled features."""
    import optax  # here, since it takes as long to import as a large part of jaxcam

    scale, bias_scale = scales

    def cross_entropy(parameters: Any) -> Array:
        v, u = parameters
        return w @ optax.softmax_cross_entropy_with_integer_labels(x @ v + (u / bias_scale)[None], labels)

    def objective(parameters: Any) -> Array:
        return cross_entropy(parameters) + decay / 2 * jnp.square(parameters[0] / scale[:, None]).sum()

    search = optax.lbfgs()
    value_and_gradient = optax.value_and_grad_from_state(objective)

    def step(carry: Any) -> Any:
        parameters, state, _, steps = carry
        value, gradient = value_and_gradient(parameters, state=state)
        by_v, by_u = jax.tree.leaves(gradient)
        moves, state = search.update(gradient, state, parameters, value=value, grad=gradient, value_fn=objective)
        slope = jnp.sqrt(jnp.square(by_v).sum() + jnp.square(by_u).sum())
        return optax.apply_updates(parameters, moves), state, slope, steps + 1

    def goes_on(carry: Any) -> Array:
        _, _, slope, steps = carry
        return (steps < most) & (slope > _TOLERANCE)

    begin = (first, search.init(first), jnp.asarray(jnp.inf), jnp.asarray(0))
    parameters, _, slope, steps = jax.lax.while_loop(goes_on, step, begin)
    return parameters, cross_entropy(parameters), steps, slope


def probabilities(found: Optimum, x: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n c"]:
    """softmax(Wᵀ x + b)."""
    logits = np.asarray(x, np.float64) @ found.kernel + found.bias
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def num_free(num_features: int, num_classes: int) -> int:
    """How many numbers are free in the gauge: the side of the matrix that standard errors need."""
    return (num_features + 1) * (num_classes - 1)


def standard_errors(
    found: Optimum, x: Float[np.ndarray, "n k"], *, decay: float
) -> tuple[Float[np.ndarray, "k c"], Float[np.ndarray, " c"]]:
    """Of W and b, in the gauge: the square roots of the diagonal of J⁻¹, J being the observed information.

        J = Σ_i x̃_i x̃_iᵀ ⊗ Qᵀ (diag p_i - p_i p_iᵀ) Q + n · decay · (1 on W, 0 on b),   x̃ = (x, 1),

    the Hessian of n · f by θ in W = θ Qᵀ, Q `[c, c - 1]` being an orthonormal basis of what adds up to zero. It is also
    the covariance of the normal approximation of the posterior, the decay being a normal prior of the variance
    1 / (n · decay). With a small decay it is the usual one of maximum likelihood; what a decay adds in bias to the
    coefficients is no part of it.

    **Source**: Efron and Hinkley 1978 (observed information); MacKay 1992 (the decay as a prior).
    """
    from scipy import linalg  # here, as optax above

    p = probabilities(found, x)
    n, c = p.shape
    wide = np.concatenate([np.asarray(x, np.float64), np.ones((n, 1))], 1)
    basis = linalg.helmert(c).T  # [c, c - 1]
    num_rows, free = wide.shape[1], c - 1
    information = np.empty((num_rows, free, num_rows, free))
    inner = np.einsum("ic,ca,cb->iab", p, basis, basis) - (p @ basis)[:, :, None] * (p @ basis)[:, None, :]
    for a in range(free):
        for b in range(a + 1):
            block = wide.T @ (wide * inner[:, a, b, None])
            information[:, a, :, b] = information[:, b, :, a] = block
    square = information.reshape(num_rows * free, num_rows * free)
    square[np.diag_indices((num_rows - 1) * free)] += n * decay
    # Where classes are told apart without doubt there is next to no information on the biases: not singular for that.
    square[np.diag_indices(len(square))] += _FEW
    inverse = linalg.inv(square, overwrite_a=True, check_finite=False).reshape(num_rows, free, num_rows, free)
    variance = np.einsum("ca,jajb,cb->jc", basis, inverse, basis, optimize=True)
    errors = np.sqrt(np.maximum(variance, 0))
    return errors[:-1], errors[-1]


def held_out_accuracy(
    x: Float[np.ndarray, "n k"], labels: Int[np.ndarray, " n"], found: Optimum, *, num_folds: int, **options: Any
) -> float:
    """The share of examples that are right when they are left out, `num_folds`-fold; every fold has all classes' share.

    Args:
        x: the features.
        labels: their classes.
        found: the optimum of all of them, where the searches begin.
        num_folds: at least 2.
        **options: of `optimum`.
    """
    folds = np.empty(len(labels), int)
    folds[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % num_folds
    one = partial(optimum, x, labels, start=found, **options)
    right = [
        (probabilities(one(weights=(folds != fold).astype(float)), x[folds == fold]).argmax(1) == labels[folds == fold])
        for fold in range(num_folds)
    ]
    return float(np.concatenate(right).mean())
