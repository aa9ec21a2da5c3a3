"""A network that CAM applies to: the features of any model up to a layer, global average pooling, a linear layer.

    S = Wᵀ x + b,   x = the mean of A over the positions,   A = features(inputs)

Contract: a pytree of the model's arrays, W and b, and callable, so that everything takes it where it takes a model:
`explain(network, inputs, method="cam")`, `evaluate`, `adapt`, `split`. It cuts itself at A. Grad-CAM's weights are
W_c / (number of positions), so that Grad-CAM is the positive part of CAM over that number.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jaxtyping import Array, Float

from jaxcam.checks import check_integer
from jaxcam.cuts.cut import cuts
from jaxcam.cuts.layers import LayerName
from jaxcam.cuts.model import Adapted, adapted
from jaxcam.cuts.split import check_layer
from jaxcam.explanation.arguments import inputs_of
from jaxcam.files import replace_file
from jaxcam.learning.pooled import mean_over_positions
from jaxcam.models.loading import timm_config as _timm_config
from jaxcam.models.loading.checkpoint import CONFIG, opened
from jaxcam.programs.compiled import Programs
from jaxcam.programs.hashes import array_hash
from jaxcam.programs.specs import batch_of_one, specs_of, without_batch

_WEIGHT, _BIAS = "fc.weight", "fc.bias"
_ERRORS = ("fc.weight.standard_error", "fc.bias.standard_error")


@dataclass(frozen=True, repr=False, eq=False)
class CAMFit:
    """What `fit_cam` reports of a fit.

    Attributes:
        accuracy: the share of the examples whose class is the likeliest, of those that were fitted: too good.
        held_out: the same of examples that were left out (cross-validation), or None.
        loss: the mean cross-entropy, without the decay.
        num_examples: n, that were fitted.
        num_unlabelled: how many were left out for they have no true class.
        num_unreadable: and how many that could not be read.
        decay: of the weights.
        steps: of L-BFGS.
        converged: whether the optimum was reached.
        kernel_error: the standard errors of W `[k, c]`, or None; see `jaxcam.learning.logistic` for formula and gauge.
        bias_error: of b `[c]`, or None.
    """

    accuracy: float
    held_out: float | None
    loss: float
    num_examples: int
    num_unlabelled: int
    num_unreadable: int
    decay: float
    steps: int
    converged: bool
    kernel_error: Float[np.ndarray, "k c"] | None = None
    bias_error: Float[np.ndarray, " c"] | None = None

    def __repr__(self) -> str:
        held_out = "" if self.held_out is None else f", {_percent(self.held_out, self.num_examples)} held out"
        nums = {"unlabelled": self.num_unlabelled, "unreadable": self.num_unreadable}
        left_out = [f"{num} {why}" for why, num in nums.items() if num]
        told = [
            f"accuracy {_percent(self.accuracy, self.num_examples)}{held_out}",
            f"cross-entropy {self.loss:.4g}, decay {self.decay:g}, {self.num_examples} examples"
            + (f" ({' and '.join(left_out)} left out)" if left_out else ""),
            f"L-BFGS {'converged' if self.converged else 'did not converge'} in {self.steps} steps",
        ]
        return "CAMFit: " + "\n  ".join(told)


def _percent(share: float, num: int) -> str:
    """With its standard error."""
    return f"{100 * share:.1f} ± {100 * (share * (1 - share) / num) ** 0.5:.1f} %"


@jax.tree_util.register_pytree_node_class
class CAMNetwork:
    """Features, global average pooling and a linear layer, as `fit_cam` makes it.

    Attributes:
        kernel: W `[k, c]`.
        bias: b `[c]`.
        model: whose features they are, adapted.
        layer: where; None for its default.
        class_names: of the logits.
        preprocessing: of pictures, the model's; or None.
        fit: the report; None where `jax.tree.map` or the like has put other arrays in.
    """

    cam_layer = "features"
    """What `method="cam"` applies to."""

    def __init__(
        self,
        model: Adapted,
        kernel: Float[Array, "k c"],
        bias: Float[Array, " c"],
        *,
        layer: LayerName,
        main: int,
        class_names: Sequence[str],
        fit: CAMFit | None = None,
    ) -> None:
        """Of a model that is hoisted for its inputs (see `Adapted.hoist`)."""
        self.model, self.kernel, self.bias, self.fit = model, kernel, bias, fit
        self.layer, self.class_names, self.preprocessing = layer, tuple(class_names), model.preprocessing
        self._main = main

    def features(self, inputs: Any) -> Float[Array, "n *spatial k"]:
        """A, channels last: what is pooled."""
        arrays, static = self.model.tree_flatten()
        return _compiled((static, self.layer, self._main), arrays, inputs_of(inputs))

    def head(self, activations: Float[Array, "n *spatial k"]) -> Float[Array, "n c"]:
        """The logits from A."""
        x = jax.vmap(mean_over_positions)(activations).astype(self.kernel.dtype)
        logits = jnp.matmul(x, self.kernel, precision=jax.lax.Precision.HIGHEST)
        return logits + jnp.broadcast_to(self.bias, logits.shape)

    def __call__(self, inputs: Any) -> Float[Array, "n c"]:
        """The logits."""
        return self.head(self.features(inputs))

    @property
    def cam_kernel(self) -> Float[Array, "k c"]:
        """CAM's weights w (Zhou et al. 2016, Eq. 2) at `cam_layer`."""
        return self.kernel

    def tree_flatten(self) -> tuple[tuple[Adapted, Any, Any], tuple[Any, ...]]:
        """The model's arrays, W and b; and everything else but the report, which is hashable."""
        return (self.model, self.kernel, self.bias), (self.layer, self._main, self.class_names)

    @classmethod
    def tree_unflatten(cls, static: tuple[Any, ...], children: tuple[Adapted, Any, Any]) -> "CAMNetwork":
        """The network with other arrays."""
        layer, main, class_names = static
        return cls(*children, layer=layer, main=main, class_names=class_names)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes W, b, the report and the names of the classes to a .safetensors file, whole or not at all.

        The model's own parameters are no part of it (they have their own file), but a hash of them is.

        Raises:
            ValueError: path does not end in .safetensors or is in no folder.
        """
        target = Path(path)
        if target.suffix != ".safetensors":
            raise ValueError(f"path must end in .safetensors, the only format that is written, but is {str(target)!r}")
        if not target.parent.is_dir():
            raise ValueError(f"path: there is no folder {str(target.parent)!r}; make it first")
        tensors = {_WEIGHT: np.ascontiguousarray(np.asarray(self.kernel).T), _BIAS: np.asarray(self.bias)}
        said: dict[str, Any] | None = None
        if self.fit is not None:
            said = {name: value for name, value in vars(self.fit).items() if not name.endswith("_error")}
            errors = (self.fit.kernel_error, self.fit.bias_error)
            tensors |= {key: np.ascontiguousarray(e.T) for key, e in zip(_ERRORS, errors, strict=True) if e is not None}
        known = self.preprocessing
        config = {
            "label_names": list(self.class_names),
            **({} if known is None else {"preprocessing": known.to_dict()}),
            "cam": {
                "layer": self.layer,
                "main": self._main,
                "features": array_hash(jax.tree.leaves(self.model)),
                "fit": said,
            },
        }
        replace_file(target, safetensors.numpy.save(tensors, metadata={CONFIG: json.dumps(config)}))


def load_cam(model: Any, path: str | os.PathLike[str], inputs: Any = None) -> CAMNetwork:
    """The network that `CAMNetwork.save` has written, on the features of the model that it was fitted to.

    Args:
        model: the same model, with the same parameters.
        path: of the .safetensors file.
        inputs: `[n, ...]`, as the model takes them, for their shape only: the arrays that a function has captured are
            arguments of compiled programs then. Not needed for models that are pytrees.

    Raises:
        ValueError: the file is not such a one, is damaged, or was fitted to other parameters.
        TypeError: path is no path, or the model is none.
    """
    known, checkpoint = adapted(model), opened(path)
    told = checkpoint.config.get("cam")
    if not isinstance(told, dict) or not {_WEIGHT, _BIAS} <= checkpoint.shapes.keys():
        raise ValueError(
            f"path must be a file that CAMNetwork.save has written but {checkpoint.name} is another: networks are read "
            "by their constructors, as jaxcam.models.resnet18(path)"
        )
    weight, bias = checkpoint.tensor(_WEIGHT), checkpoint.tensor(_BIAS)
    if weight.ndim != 2 or bias.shape != weight.shape[:1] or not np.isfinite(weight).all():
        raise ValueError(
            f"path: {checkpoint.name} must have a finite {_WEIGHT} [c, k] and {_BIAS} [c] but has "
            f"{list(weight.shape)} and {list(bias.shape)}: save the network again"
        )
    preprocessing = _timm_config.preprocessing(checkpoint.config, of=checkpoint.name)
    if known.preprocessing is None and preprocessing is not None:
        raise ValueError("model must have the preprocessing that it was fitted with: use jaxcam.adapt(model, ...)")
    if inputs is not None:
        known = known.hoist(batch_of_one(specs_of(inputs)))
    found = array_hash(jax.tree.leaves(known))
    if found != told.get("features"):
        raise ValueError(
            f"model must have the parameters that the classifier was fitted to (hash {told.get('features')!r}) but has "
            f"others ({found!r}): load those first, or call fit_cam again"
        )
    names = _timm_config.class_names(checkpoint.config, len(bias), of=checkpoint.name)
    errors = [checkpoint.tensor(key).T if key in checkpoint.shapes else None for key in _ERRORS]
    try:
        layer, main = check_layer(told["layer"]), check_integer("main", told["main"], low=0)
        fit = None if told["fit"] is None else CAMFit(**told["fit"], kernel_error=errors[0], bias_error=errors[1])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"path: what {checkpoint.name} says is damaged ({error!r}): save the network again") from None
    return CAMNetwork(
        known, jnp.asarray(weight.T), jnp.asarray(bias), layer=layer, main=main, class_names=names or (), fit=fit
    )


def _features(static: tuple[Any, LayerName, int], arrays: Any, inputs: Any) -> Array:
    model, layer, main = Adapted.tree_unflatten(static[0], arrays), static[1], static[2]
    (cut,) = cuts(model, without_batch(inputs), (layer,), main=main)
    return jax.vmap(lambda *leaves: cut.given(leaves).features(leaves[main])[0])(*jax.tree.leaves(inputs))


_compiled = Programs(_features)
