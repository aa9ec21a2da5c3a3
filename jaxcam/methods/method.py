"""What a method is: a function of one example with a record of facts beside it, and how it is bound to its options.

A method is any function with one of these signatures, keyword options behind them:

    (head, activations, class_idx)    most of them                    -> raw map [*spatial]
    (model, image, class_idx)         runs the model itself           -> raw map, or a gradient like the image
                                      without `layer`: a raw map on a grid of its own
    (activations)                     knows no class                  -> raw map [*spatial]
    (head_kernel, activations, class_idx)   CAM                       -> raw map [*spatial]

Which one it is, its first parameter says; a function of your own with other names has the first one.
"""

import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

from jaxtyping import Array

from jaxcam import scores
from jaxcam.checks import check_key
from jaxcam.cuts.halves import Halves
from jaxcam.derivatives.of_score import is_one_backward_pass
from jaxcam.methods.attention_maps import attention_relevance, attention_rollout
from jaxcam.methods.attn_lrp import attn_lrp
from jaxcam.methods.contrast import finer_cam, shapley_cam
from jaxcam.methods.eigen_cam import eigen_cam
from jaxcam.methods.full_grad import full_grad
from jaxcam.methods.grad_cam import cam, grad_cam
from jaxcam.methods.grad_cam_pp import grad_cam_pp
from jaxcam.methods.gradient import counterfactual, grad_cam_positive, hires_cam, layer_cam, xgrad_cam
from jaxcam.methods.guided import guided_backprop, guided_grad_cam
from jaxcam.methods.integrated import integrated_grad_cam
from jaxcam.methods.perturbation import ablation_cam, score_cam
from jaxcam.methods.principal import eigen_grad_cam, kpca_cam
from jaxcam.methods.smooth_grad_cam_pp import smooth_grad_cam_pp
from jaxcam.programs.traced import Traced
from jaxcam.programs.watched import Watched, watched

__all__ = ["METHODS", "Bound", "Method", "bind"]


class Method(NamedTuple):
    """A function and the facts about it that stand in no signature."""

    title: str
    """As in the papers."""
    source: str
    """The paper."""
    function: Callable[..., Array]
    """Of one example."""
    is_cheap: bool | Callable[..., bool] = True
    """Whether it costs about one backward pass, so that the maps of a whole batch fit into memory together; or how that
    follows from the head and the options."""
    needs_attention: bool = False
    """Whether it is of transformers only, and refuses other networks."""
    replaces: bool = False
    """Whether it asks the head what it makes of other activations, not only how it changes."""


METHODS: dict[str, Method] = {
    "grad_cam_pp": Method("Grad-CAM++", "Chattopadhay et al. 2018", grad_cam_pp, is_one_backward_pass),
    "grad_cam": Method("Grad-CAM", "Selvaraju et al. 2017", grad_cam),
    "cam": Method("CAM", "Zhou et al. 2016", cam),
    "grad_cam_positive": Method("grad_cam_positive", "Lerma and Lucas 2022", grad_cam_positive),
    "hires_cam": Method("HiResCAM", "Draelos and Carin 2020", hires_cam),
    "xgrad_cam": Method("XGrad-CAM", "Fu et al. 2020", xgrad_cam),
    "layer_cam": Method("LayerCAM", "Jiang et al. 2021", layer_cam),
    "eigen_cam": Method("Eigen-CAM", "Muhammad and Yeasin 2020", eigen_cam),
    "finer_cam": Method("Finer-CAM", "Zhang et al. 2025", finer_cam),
    "shapley_cam": Method("ShapleyCAM", "Cai 2025", shapley_cam),
    "eigen_grad_cam": Method("EigenGrad-CAM", "Muhammad and Yeasin 2020", eigen_grad_cam),
    "kpca_cam": Method("KPCA-CAM", "Karmani et al. 2024", kpca_cam, is_cheap=False),
    "ablation_cam": Method("Ablation-CAM", "Desai and Ramaswamy 2020", ablation_cam, is_cheap=False, replaces=True),
    "score_cam": Method("Score-CAM", "Wang et al. 2020", score_cam, is_cheap=False),
    "smooth_grad_cam_pp": Method("SmoothGrad-CAM++", "Omeiza et al. 2019", smooth_grad_cam_pp, is_cheap=False),
    "integrated_grad_cam": Method(
        "Integrated Grad-CAM", "Sattarzadeh et al. 2021", integrated_grad_cam, is_cheap=False
    ),
    "counterfactual": Method("Counterfactual", "Selvaraju et al. 2017", counterfactual),
    "attention_rollout": Method("Attention rollout", "Abnar and Zuidema 2020", attention_rollout, needs_attention=True),
    "attention_relevance": Method(
        "Attention relevance", "Chefer et al. 2021", attention_relevance, needs_attention=True
    ),
    "attn_lrp": Method("AttnLRP", "Achtibat et al. 2024", attn_lrp, needs_attention=True),
    "full_grad": Method("FullGrad", "Srinivas and Fleuret 2019", full_grad, is_cheap=False),
    "guided_backprop": Method("Guided backpropagation", "Springenberg et al. 2015", guided_backprop),
    "guided_grad_cam": Method("Guided Grad-CAM", "Selvaraju et al. 2017", guided_grad_cam),
}
"""All methods by name. A record of your own may be entered, and is then known by its name everywhere."""

_FIRST = {"head": "head", "model": "image", "activations": "activations", "head_kernel": "kernel"}
_GIVEN = {"layer", "key"}
"""No options: arguments of `explain`, of which it hands on the key, and cuts the model at the layer."""


@dataclass(frozen=True)
class Bound:
    """A method with its options: hashable, and equal where it does the same."""

    name: str
    """Of the method in `METHODS`, or of the function."""
    method: Method
    options: tuple[tuple[str, Any], ...]

    @cached_property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """Those of the function, by name."""
        return _parameters(self.method.function)

    @property
    def score(self) -> Any:
        """The score that is differentiated, by name or as a function; None for methods that have none."""
        default = self.parameters.get("score")
        return dict(self.options).get("score", None if default is None else default.default)

    @property
    def needs(self) -> str:
        """What the function is given first: "head", "image", "activations" or "kernel"."""
        return _FIRST.get(next(iter(self.parameters)), "head")

    @property
    def takes_layer(self) -> bool:
        """Whether the model has to be cut for it: not where a method goes back to the image alone."""
        return self.needs != "image" or "layer" in self.parameters

    @property
    def takes_key(self) -> bool:
        """Whether it draws random numbers."""
        return "key" in self.parameters

    def is_cheap(self, head: Traced | Halves) -> bool:
        """Whether it costs about one backward pass on this head."""
        known = self.method.is_cheap
        if isinstance(known, bool):
            return known
        options = {name: p.default for name, p in self.parameters.items() if p.default is not p.empty}
        wanted = inspect.signature(known).parameters
        return known(head, **{k: v for k, v in (options | dict(self.options)).items() if k in wanted})

    @property
    def is_long(self) -> bool:
        """Whether it is known beforehand that it costs many passes."""
        return self.method.is_cheap is False or dict(self.options).get("alphas") == "exact"

    def __call__(self, *operands: Any, **given: Any) -> Array:
        """The method's own function, with the options."""
        return self.method.function(*operands, **dict(self.options), **given)


def bind(
    method: str | Callable[..., Array] | Method,
    options: Mapping[str, Any],
    *,
    score: str | scores.Score | None = None,
    key: Array | None = None,
    draws: bool = False,
) -> Bound:
    """A method by name, function, `functools.partial` of one, or record, with its options checked.

    Args:
        method: which one.
        options: keyword arguments of its function, hashable.
        score: what it differentiates; None for its own default.
        key: given if and only if it draws random numbers.
        draws: whether a key is there already, for every method that wants one.

    Raises:
        TypeError: it is no method, an option is unknown or not hashable, or key is no random key.
        ValueError: the name is unknown; an option belongs to other methods; key or score is missing or superfluous.
    """
    name, record, own = _resolved(method)
    label = f"method={name!r}"
    parameters = _parameters(record.function)
    keywords = [p.name for p in parameters.values() if p.kind is p.KEYWORD_ONLY and p.name not in {*_GIVEN, "score"}]
    options = own | dict(options)
    if score is None:
        score = options.pop("score", None)
    for option, value in options.items():
        if option not in keywords:
            if option in _EXPLAIN:
                raise ValueError(f"{option} is not an option of {label}: it is an argument of explain")
            owners = [repr(other) for other in METHODS if option in _keywords(other)]
            if owners:
                raise ValueError(
                    f"{option} is not an option of {label}; it belongs to {', '.join(owners)}: leave it out"
                )
            near = difflib.get_close_matches(option, [*_EXPLAIN, *keywords], 1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise TypeError(f"{option} is not an option of {label}{hint}; it has {', '.join(keywords) or 'none'}")
        _check_hashable(option, value)
    if "key" in parameters and key is None and not draws:
        raise ValueError(f"{label} draws random numbers: pass key=jax.random.key(0)")
    if key is not None:
        check_key("key", key)
        if "key" not in parameters:
            raise ValueError(f"{label} draws no random numbers: leave key out")
    if score is not None:
        if "score" not in parameters:
            raise ValueError(f"{label} has no score: leave score out")
        scores.resolve(score)
        options["score"] = score
    if (function := watched(record.function)) is not record.function:
        record = record._replace(function=function)
    return Bound(name, record, tuple((option, watched(value)) for option, value in sorted(options.items())))


_EXPLAIN = ("class_idx", "top", "method", "layer", "fusion", "score", "key")


def _resolved(method: Any) -> tuple[str, Method, dict[str, Any]]:
    """The name, record and options of whatever was given as a method."""
    if isinstance(method, str):
        if method not in METHODS:
            # "GradCAM++" is nearer to "grad_cam" than to "grad_cam_pp", letter by letter.
            near = difflib.get_close_matches(re.sub(r"\W*(\+\+|pp)$", "_pp", method.lower()), METHODS, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"method={method!r} is not known: {hint}use one of {', '.join(map(repr, METHODS))}")
        return method, METHODS[method], {}
    if isinstance(method, Method):
        return method.title, method, {}
    if isinstance(method, partial):
        if method.args:
            raise TypeError(f"method must be a partial with keyword arguments only, but has {len(method.args)} others")
        name, record, options = _resolved(method.func)
        return name, record, options | method.keywords
    if not callable(method):
        raise TypeError(
            f"method must be a name or a function (head, activations, class_idx, ...) -> map but is {method!r}"
        )
    for name, record in METHODS.items():
        if record.function is method:
            return name, record, {}
    name = getattr(method, "__name__", type(method).__name__)
    first, required = None, 0
    try:
        parameters = _parameters(method)
        first, required = next(iter(parameters), None), sum(_is_positional(p) for p in parameters.values())
    except (TypeError, ValueError):
        pass
    if required < (1 if first == "activations" else 3):
        raise TypeError(
            f"method must be a function (head, activations, class_idx, *, ...) -> map, but {name} has "
            f"{required} positional parameters"
        )
    own: Any = method  # which is no function of a known type yet
    return name, Method(name, "", own), {}


def _is_positional(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    function = function.function if isinstance(function, Watched) else function
    return inspect.signature(inspect.unwrap(function)).parameters


def _keywords(name: str) -> list[str]:
    parameters = _parameters(METHODS[name].function).values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in {*_GIVEN, "score"}]


def _check_hashable(name: str, value: Any) -> None:
    try:
        hash(value)
    except TypeError:
        raise TypeError(
            f"{name} must be hashable (a number, a name, a function) but is {type(value).__name__}"
        ) from None
