"""The front door: a model and a batch of normalised images in, heatmaps out, in one compiled program."""

import inspect
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from jaxcam import maps, methods, scores
from jaxcam._partition import Static, merged, partitioned
from jaxcam._score_derivatives import gradient_of_score, is_one_backward_pass, terms

METHODS = ("grad_cam_pp", "grad_cam", "cam")
_ILL_SHARE = 0.01


class Status(IntEnum):
    """What became of an image; `Explanation.status` holds these numbers.

    Of several that apply, the first of NO_SUCH_CLASS, NOT_FINITE, ZERO_GRADIENT, ZERO_MAP, ILL_CONDITIONED is given.

    Attributes:
        OK: the map can be used.
        ZERO_MAP: nothing speaks for the class; the weighted sum is negative or zero at every position.
        ZERO_GRADIENT: the score does not depend on the activations, as behind a dead ReLU.
        NOT_FINITE: NaN or infinity in the image, the activations, the logits or the map; look at input and parameters.
            The heatmap is zero and the confidence NaN.
        ILL_CONDITIONED: more than 1 % of Grad-CAM++'s weights come from alphas whose denominator crosses zero or
            cancels. Common with smooth heads (GELU, SiLU, tanh): use Grad-CAM there.
        NO_SUCH_CLASS: a traced class_idx is out of range. The heatmap is zero and the confidence NaN.
    """

    OK = 0
    ZERO_MAP = 1
    ZERO_GRADIENT = 2
    NOT_FINITE = 3
    ILL_CONDITIONED = 4
    NO_SUCH_CLASS = 5


_PRIORITY = (
    Status.NO_SUCH_CLASS,
    Status.NOT_FINITE,
    Status.ZERO_GRADIENT,
    Status.ZERO_MAP,
    Status.ILL_CONDITIONED,
)


class Explanation(NamedTuple):
    """What `explain` returns, a pytree of arrays.

    Attributes:
        heatmap: `[n, H, W]` in [0, 1], of the images' size. The map is divided by its maximum on the feature grid and
            then resized, so that its own maximum may be a little below 1.
        cam_map: `[n, *spatial]`, the method's raw map on the feature grid.
        class_idx: `[n]`, the class that was explained.
        confidence: `[n]`, its softmax probability on the image.
        status: `[n]`, see `Status`.
    """

    heatmap: Float[Array, "n H W"]
    cam_map: Float[Array, "n *spatial"]
    class_idx: Int[Array, " n"]
    confidence: Float[Array, " n"]
    status: Int[Array, " n"]


@runtime_checkable
class Model(Protocol):
    """What `explain` takes: any pytree (an nnx.Module, an equinox.Module, a registered dataclass) with these two."""

    def features(self, images: Array) -> Array:
        """Images `[n, H, W, 3]` -> activations `[n, *spatial, k]`."""
        ...

    def head(self, activations: Array) -> Array:
        """Activations `[n, *spatial, k]` -> logits `[n, c]`."""
        ...


class _Options(NamedTuple):
    method: str
    layer: str | None
    score: str | scores.Score
    alphas: str
    normalize_alphas: bool


def explain(
    model: Model,
    images: Float[Array, "n H W d"] | Float[np.ndarray, "n H W d"],
    *,
    class_idx: int | Sequence[int] | Int[Array, ""] | Int[Array, " n"] | Int[np.ndarray, " n"] | None = None,
    method: str = "grad_cam_pp",
    layer: str | None = None,
    score: str | scores.Score | None = None,
    alphas: str = "auto",
    normalize_alphas: bool = False,
) -> Explanation:
    """Heatmaps of what speaks for a class, for a batch of images.

    One forward pass to the layer, and then the head alone is differentiated. Compiled once for each model structure,
    shape and set of options; the parameters are arguments of the compiled program. May be called inside jit, and
    differentiated.

    Args:
        model: a pytree with `features(images)` and `head(activations)`, such as those of `jaxcam.models`.
        images: `[n, H, W, 3]`, floating point and normalised for the model (`model.preprocessing(picture)`).
        class_idx: the class to explain: one for all images, `[n]`, or None for the model's prediction. May be traced
            (one out of range then gives `Status.NO_SUCH_CLASS`).
        method: "grad_cam_pp", "grad_cam" or "cam"; the functions of the same names in `jaxcam.methods`.
        layer: where the model is cut, passed on to `features` and `head`; None for the model's default.
        score: the score that is differentiated; None for the method's own ("exp" for Grad-CAM++, "logit" for Grad-CAM).
        alphas: for Grad-CAM++: "auto", "exact" or "closed_form".
        normalize_alphas: for Grad-CAM++: as the authors' code, see `methods.grad_cam_pp`.

    Raises:
        ValueError: images are not `[n, H, W, 3]`, class_idx is out of range or of another length, an unknown method,
            an option that the method does not have, a model that the method does not apply to, or one whose features
            and head do not return `[n, i, j, k]` and `[n, c]`.
        TypeError: images are not floating point, class_idx is not an integer, or the model is not a pytree, has no
            features and head, or takes no layer though one is given.
    """
    images = _checked_images(images)
    _check_model(model)
    options = _checked_options(method, layer, score, alphas, normalize_alphas)
    if class_idx is not None:
        class_idx = _checked_classes(class_idx, images.shape[0])
    static, arrays = partitioned(model)
    explanation, logits = _compiled(static, options, arrays, images, class_idx)
    if class_idx is not None and not isinstance(class_idx, Tracer):
        _check_range(np.asarray(class_idx), logits.shape[1])
    return explanation


def _explained(
    static: Static, options: _Options, arrays: list[Any], images: Array, class_idx: Array | None
) -> tuple[Explanation, Array]:
    model = merged(static, arrays)
    if getattr(model, "training", None) is True:
        raise ValueError("model is in training mode, where images depend on each other: call model.eval() first")
    cut = {} if options.layer is None else {"layer": options.layer}
    if options.method == "cam":
        cam_layer = _cam_layer(model, options.layer)
        cut = {"layer": cam_layer} if _takes_layer(model.features) else cut
    activations = _checked_activations(model, images, cut)

    head = _Head(model, cut)

    def one(image: Array, a: Array, class_idx: Array | None) -> tuple[Array, ...]:
        logits = head(a)
        # XLA merges this forward pass with the one inside the method.
        chosen = logits.argmax().astype(jnp.int32) if class_idx is None else class_idx
        found = _raw_map(model, head, a, chosen, options)
        status = _status(found, (image, a, logits), chosen)
        known = (status != Status.NOT_FINITE) & (status != Status.NO_SUCH_CLASS)
        return found.cam_map, chosen, jnp.where(known, scores.softmax(logits, chosen), jnp.nan), status, logits

    cheap = _is_cheap(head, activations, options)
    # Exact derivatives and Jacobians hold thousands of gradients for each image: one image after the other.
    over_images = jax.vmap(one) if cheap else lambda *xs: jax.lax.map(lambda x: one(*x), xs)
    cam_map, chosen, confidence, status, logits = over_images(images, activations, class_idx)
    heatmap = jax.vmap(lambda m: maps.heatmap(m, images.shape[1:3]))(cam_map)
    known = (status != Status.NOT_FINITE) & (status != Status.NO_SUCH_CLASS)
    return Explanation(jnp.where(known[:, None, None], heatmap, 0), cam_map, chosen, confidence, status), logits


_compiled = jax.jit(_explained, static_argnums=(0, 1))


class _Head:
    """The head for one image, and, if the model has it, the shorter way to the logit of one class."""

    def __init__(self, model: Any, cut: dict[str, str]) -> None:
        self._model, self._cut = model, cut
        if hasattr(model, "class_logit"):
            self.logit = self._logit

    def __call__(self, a: Array) -> Array:
        return self._model.head(a[None], **self._cut)[0]

    def _logit(self, a: Array, class_idx: Array) -> Array:
        return self._model.class_logit(a[None], class_idx, **self._cut)[0]


class _Found(NamedTuple):
    cam_map: Array
    has_gradient: Bool[Array, ""]
    ill_conditioned: Bool[Array, ""]


def _raw_map(model: Any, head: Callable[[Array], Array], a: Array, class_idx: Array, options: _Options) -> _Found:
    fine = jnp.array(False)
    if options.method == "cam":
        return _Found(methods.cam(model.cam_kernel, a, class_idx), ~fine, fine)
    if options.method == "grad_cam":
        gradient = gradient_of_score(head, a, class_idx, score=options.score)
        weights = methods.mean_over_positions(gradient)
        return _Found(maps.weighted_map(weights, a), (gradient != 0).any(), fine)
    found = terms(head, a, class_idx, score=options.score, alphas=options.alphas)
    weights = methods.weights_of(found, normalize_alphas=options.normalize_alphas).astype(a.dtype)
    share = jnp.abs(found.alphas) * jax.nn.relu(found.d1)
    ill = jnp.where(found.ill_conditioned, share, 0).sum() > _ILL_SHARE * share.sum()
    return _Found(maps.weighted_map(weights, a), (found.d1 != 0).any(), ill)


def _status(found: _Found, seen: tuple[Array, ...], class_idx: Array) -> Int[Array, ""]:
    # Image and activations are looked at too: a ReLU or max-pooling may lose a NaN on its way to the logits.
    finite = jnp.array([jnp.isfinite(values).all() for values in (found.cam_map, *seen)]).all()
    known = (class_idx >= 0) & (class_idx < seen[-1].size)
    return jnp.select(
        [~known, ~finite, ~found.has_gradient, (found.cam_map <= 0).all(), found.ill_conditioned],
        [jnp.int32(status) for status in _PRIORITY],
        jnp.int32(Status.OK),
    )


def _is_cheap(head: Callable[[Array], Array], activations: Array, options: _Options) -> bool:
    if options.method != "grad_cam_pp":
        return True
    one = jax.ShapeDtypeStruct(activations.shape[1:], activations.dtype)
    return is_one_backward_pass(head, one, score=options.score, alphas=options.alphas)


def _cam_layer(model: Any, layer: str | None) -> str:
    cam_layer = getattr(model, "cam_layer", None)
    if cam_layer is None:
        raise ValueError(
            f'method="cam" needs a head that is global average pooling and one linear layer; {type(model).__name__} '
            'has no cam_layer and cam_kernel: use method="grad_cam", which equals CAM where CAM applies'
        )
    resolved = getattr(model, "resolved", None)  # several names may mean one layer
    if layer is not None and (resolved(layer) if callable(resolved) else layer) != cam_layer:
        raise ValueError(f'method="cam" applies at layer={cam_layer!r} of this model only, not at {layer!r}')
    return cam_layer


def _checked_activations(model: Any, images: Array, cut: dict[str, str]) -> Array:
    """The activations `[n, *spatial, k]`, with two spatial axes, from which the head makes logits `[n, c]`."""
    name = type(model).__name__
    if cut and not _takes_layer(model.features):
        raise TypeError(f"layer: {name}.features takes no layer argument, so this model is cut at one place only")
    a = model.features(images, **cut)
    if not hasattr(a, "shape") or a.ndim != 4 or a.shape[0] != images.shape[0]:
        raise ValueError(
            f"{name}.features must return activations [n, i, j, k] for {images.shape[0]} images, but returned "
            f"{list(getattr(a, 'shape', [type(a).__name__]))}: return what comes before the "
            "pooling (or choose another layer); for other numbers of spatial axes use jaxcam.grad_cam and "
            "jaxcam.grad_cam_pp on one image"
        )
    logits = jax.eval_shape(lambda a: model.head(a, **cut), a)
    if not hasattr(logits, "shape") or logits.ndim != 2 or logits.shape[0] != a.shape[0]:
        raise ValueError(
            f"{name}.head must return logits [n, c] for activations {list(a.shape)}, but returned "
            f"{list(getattr(logits, 'shape', [type(logits).__name__]))}: keep the batch axis"
        )
    return a


def _takes_layer(function: Callable[..., Any]) -> bool:
    parameters = inspect.signature(function).parameters
    return "layer" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _checked_images(images: Any) -> Array:
    if not (hasattr(images, "shape") and hasattr(images, "dtype")):
        raise TypeError(f"images must be an array [n, H, W, 3], not {type(images).__name__}: np.stack a list of them")
    if images.ndim != 4:
        hint = ": add the batch axis with images[None]" if images.ndim == 3 else ""
        raise ValueError(f"images must be [n, H, W, 3], but came as {list(images.shape)}{hint}")
    if 0 in images.shape:
        raise ValueError(f"images are empty: their shape is {list(images.shape)}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"images must be floating point and normalised for the model, but their dtype is {images.dtype}: "
            "divide by 255 and normalise as in training (model.preprocessing(picture) for jaxcam.models)"
        )
    return jnp.asarray(images)


def _check_model(model: Any) -> None:
    if isinstance(model, type):
        raise TypeError(f"model must be an instance, but is the class {model.__name__} itself")
    if not (callable(getattr(model, "features", None)) and callable(getattr(model, "head", None))):
        raise TypeError(
            f"model must have features(images) -> activations and head(activations) -> logits, which "
            f"{type(model).__name__} has not: give it these two methods, or call jaxcam.grad_cam_pp(head, activations, "
            "class_idx) on the two halves"
        )


def _checked_options(
    method: str, layer: str | None, score: str | scores.Score | None, alphas: str, normalize_alphas: bool
) -> _Options:
    if method not in METHODS:
        raise ValueError(f"method={method!r} is not known: use one of {', '.join(map(repr, METHODS))}")
    if method != "grad_cam_pp" and (alphas != "auto" or normalize_alphas):
        raise ValueError(f'alphas and normalize_alphas belong to method="grad_cam_pp"; leave them out for {method!r}')
    if method == "cam" and score is not None:
        raise ValueError('method="cam" differentiates no score: leave score out')
    default = "exp" if method == "grad_cam_pp" else "logit"
    chosen = default if score is None else score
    scores.resolve(chosen)
    return _Options(method, layer, chosen, alphas, bool(normalize_alphas))


def _checked_classes(class_idx: Any, num_images: int) -> Array:
    """`[n]` integers, int32."""
    listed = isinstance(class_idx, list | tuple) and all(type(c) is int or isinstance(c, np.integer) for c in class_idx)
    given: Any = np.asarray(class_idx, int) if listed else class_idx
    is_number = isinstance(given, int | np.integer | np.ndarray | jax.Array) and not isinstance(given, bool)
    if not is_number or not jnp.issubdtype(jnp.result_type(given), jnp.integer):
        raise TypeError(f"class_idx must be an integer, an integer array [n] or None, not {class_idx!r}")
    if jnp.shape(given) not in ((), (num_images,)):
        raise ValueError(
            f"class_idx must be one class or one for each of the {num_images} images, but its shape is "
            f"{list(jnp.shape(given))}"
        )
    return jnp.broadcast_to(jnp.asarray(given).astype(jnp.int32), (num_images,))


def _check_range(class_idx: np.ndarray, num_classes: int) -> None:
    # JAX clamps an index that is out of range, and would explain another class without a word.
    wrong = class_idx[(class_idx < 0) | (class_idx >= num_classes)]
    if wrong.size:
        raise ValueError(
            f"class_idx={wrong[0]} is out of range: the model has {num_classes} classes, 0 to {num_classes - 1}"
        )
