"""Chain: what every model here is, a chain of named stages that can be cut after any of them."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from jaxcam.models.classifier import Classifier
from jaxcam.models.modules import Dropout, GlobalAveragePool, Random

Inputs = Float[Array, "n *grid d"] | Float[np.ndarray, "n *grid d"]


class Chain(Classifier):
    """A network `[n, *spatial, d]` -> logits `[n, c]`, equal to `head(features(inputs))` at any of its layers.

    The stages carry the names that users of torchvision know (`features.12`, `layer4.1`), and so do the parameters
    inside them, which is all that `models.weights` needs to read a checkpoint. `layer` is the name of a stage, or what
    several begin with and means the last of them: `layer4` is `layer4.2` in a ResNet-50.

    With `model.train()` batch norm uses and updates its statistics, and dropout draws from `rngs`.
    """

    default_layer: str
    """Where explanations are made when no layer is named: the last one with spatial axes."""
    axes: tuple[str, ...]
    """The names of the inputs' axes of positions, for messages."""
    channels: int
    """Of the inputs."""
    smallest_image: int | tuple[int, ...] = 1
    """In pixels, samples, voxels or frames, along every axis or along each: what the strides multiply to."""

    def __init__(self, stages: Mapping[str, nnx.Module], *, class_names: Iterable[str]) -> None:
        """Makes the chain.

        Args:
            stages: the layers in their order, by the names that `layer` takes.
            class_names: of the logits.
        """
        self.layers: tuple[str, ...] = tuple(stages)  # the order: nnx.Dict sorts its keys
        self.stages = nnx.Dict(dict(stages))
        self.class_names: tuple[str, ...] = tuple(class_names)

    def features(
        self, inputs: Inputs, *, layer: str | None = None, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "n *spatial k"]:
        """The activations A after `layer` (default: `default_layer`); `rngs` for dropout in training.

        Raises:
            ValueError: inputs are not `[n, *spatial, d]` as this network wants them or smaller than `smallest_image`,
                or there is no such layer (the message lists them).
            TypeError: inputs are not floating point.
        """
        cut = self._cut(layer)
        return self._applied(self.layers[:cut], self._checked(inputs), rngs=rngs)

    def head(
        self, activations: Float[Array, "n *spatial k"], *, layer: str | None = None, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "n c"]:
        """The logits from the activations after `layer`."""
        return self._applied(self.layers[self._cut(layer) :], activations, rngs=rngs)

    def __call__(self, inputs: Inputs, *, rngs: nnx.Rngs | None = None) -> Float[Array, "n c"]:
        """The logits."""
        return self._applied(self.layers, self._checked(inputs), rngs=rngs)

    def class_logit(
        self, activations: Float[Array, "n *spatial k"], class_idx: int | Int[Array, ""], *, layer: str | None = None
    ) -> Float[Array, " n"]:
        """`head(activations)[:, class_idx]`, without the arithmetic of the other classes.

        Only the column of the class is taken from the last layer with parameters. Its gradient costs next to nothing
        then, where that of `head` goes back through all classes: a fifth of the forward pass of SqueezeNet 1.1.
        """
        names = self.layers[self._cut(layer) :]
        with_classes = [i for i, name in enumerate(names) if isinstance(self.stages[name], nnx.Conv | nnx.Linear)]
        if not with_classes:  # cut behind the classifier
            return jax.lax.dynamic_index_in_dim(self.head(activations, layer=layer), class_idx, axis=1, keepdims=False)
        last = with_classes[-1]
        classifier: Any = self.stages[names[last]]
        x = self._applied(names[:last], activations)
        kernel = classifier.kernel[...].reshape(x.shape[-1], -1)  # of a linear layer, or of a 1 x 1 convolution
        column = jax.lax.dynamic_slice_in_dim(kernel, class_idx, 1, axis=1)
        bias = jax.lax.dynamic_slice_in_dim(classifier.bias[...], class_idx, 1)
        x = jnp.tensordot(x, column, axes=1) + bias.reshape((1,) * (x.ndim - 1) + (1,))
        return self._applied(names[last + 1 :], x)[:, 0]

    @property
    def cam_layer(self) -> str | None:
        """The layer that CAM applies to: what global average pooling and at most one linear layer follow; or None."""
        names = [name for name in self.layers if not isinstance(self.stages[name], Dropout)]
        tail = [type(self.stages[name]) for name in names[-2:]]
        if tail[-1] is GlobalAveragePool:
            return names[-2]
        return names[-3] if tail == [GlobalAveragePool, nnx.Linear] else None

    @property
    def cam_kernel(self) -> Float[Array, "k c"] | None:
        """CAM's weights w (Zhou et al. 2016, Eq. 2) at `cam_layer`: the linear layer's kernel.

        It is the identity where the pooled maps are the logits.
        """
        if self.cam_layer is None:
            return None
        last = self.stages[self.layers[-1]]
        if isinstance(last, nnx.Linear):
            return last.kernel[...]
        return jnp.eye(len(self.class_names), dtype=jax.tree.leaves(nnx.state(self))[0].dtype)

    def has_layer(self, layer: str | None) -> bool:
        """Whether it can be cut there: at a stage, at the last of several, or, for None, at its default."""
        return layer is None or bool(self._matching(layer))

    def resolved(self, layer: str) -> str:
        """The name of the stage that `layer` means: the last one that it is the beginning of."""
        return self.layers[self._cut(layer) - 1]

    def _applied(self, names: Iterable[str], x: Array, *, rngs: nnx.Rngs | None = None) -> Array:
        for name in names:
            stage = self.stages[name]
            x = stage(x, rngs=rngs) if isinstance(stage, Random) else stage(x)
            x = checkpoint_name(x, name)  # what `jaxcam.split` and `jaxcam.layers` read; it costs nothing
        return x

    def _cut(self, layer: str | None) -> int:
        """How many stages come before the cut."""
        layer = self.default_layer if layer is None else layer
        if not (matching := self._matching(layer)):
            groups = dict.fromkeys(prefix for name in self.layers if (prefix := name.rpartition(".")[0]))
            raise ValueError(
                f"layer={layer!r} is not in this {type(self).__name__}: it has {', '.join(self.layers)}"
                + (f"; and for the last of each group {', '.join(groups)}" if groups else "")
            )
        return matching[-1] + 1

    def _matching(self, layer: str) -> list[int]:
        return [i for i, name in enumerate(self.layers) if name == layer or name.startswith(f"{layer}.")]

    def _checked(self, inputs: Inputs) -> Array:
        shape, wanted = list(inputs.shape), ", ".join(("n", *self.axes, str(self.channels)))
        if len(shape) != len(self.axes) + 2 or shape[-1] != self.channels:
            hint = f"; add the batch axis with {self.one}[None]" if len(shape) == len(self.axes) + 1 else ""
            raise ValueError(f"{self.kind} must be [{wanted}], channels last, but came as {shape}{hint}")
        if not jnp.issubdtype(inputs.dtype, jnp.floating):
            raise TypeError(
                f"{self.kind} must be floating point and normalised for the model, but their dtype is {inputs.dtype}: "
                f"{self._remedies[0]}"
            )
        if (np.asarray(shape[1:-1]) < np.asarray(self.smallest_image)).any():
            raise ValueError(
                f"{self.kind} are too small: {shape[1:-1]} {self._unit}, where this {type(self).__name__} needs "
                f"{self.smallest_image}, the product of its strides: {self._remedies[1]}"
            )
        return jnp.asarray(inputs)

    _unit = "positions"
    _remedies = ("use astype(float32), on a scale from 0 to 1 where they are pixels", "give longer ones")
