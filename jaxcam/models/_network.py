"""Network: what every model here is, a chain of named stages that can be cut after any of them."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxcam.images import Preprocessing

Images = Float[Array, "n H W d"] | Float[np.ndarray, "n H W d"]


class Network(nnx.Module):
    """An image network `[n, H, W, 3]` -> logits `[n, c]`, equal to `head(features(images))` at any of its layers.

    The stages carry the names that users of torchvision know (`features.12`, `layer4`), and so do the parameters
    inside them, which is all that `models.weights` needs to read a checkpoint.
    """

    default_layer: ClassVar[str]
    """Where explanations are made when no layer is named: the last one with spatial axes."""
    preprocessing: ClassVar[Preprocessing]
    """What turns a picture into this network's input."""

    def __init__(self, stages: Mapping[str, nnx.Module], *, class_names: Iterable[str]) -> None:
        self.layers: tuple[str, ...] = tuple(stages)  # the order: nnx.Dict sorts its keys
        self.stages = nnx.Dict(dict(stages))
        self.class_names: tuple[str, ...] = tuple(class_names)

    def features(self, images: Images, *, layer: str | None = None) -> Float[Array, "n *spatial k"]:
        """The activations A after `layer` (default: `default_layer`).

        Raises:
            ValueError: images are not `[n, H, W, 3]`, or there is no such layer (the message lists them).
            TypeError: images are not floating point.
        """
        return self._applied(self.layers[: self._cut(layer)], _checked_images(images))

    def head(self, activations: Float[Array, "n *spatial k"], *, layer: str | None = None) -> Float[Array, "n c"]:
        """The logits from the activations after `layer`."""
        return self._applied(self.layers[self._cut(layer) :], activations)

    def __call__(self, images: Images) -> Float[Array, "n c"]:
        """The logits."""
        return self._applied(self.layers, _checked_images(images))

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
        tail = [type(self.stages[name]) for name in self.layers[-2:]]
        if tail[-1] is GlobalAveragePool:
            return self.layers[-2]
        return self.layers[-3] if tail == [GlobalAveragePool, nnx.Linear] else None

    @property
    def cam_kernel(self) -> Float[Array, "k c"] | None:
        """Eq. 25's w at `cam_layer`: the linear layer's kernel, the identity where the pooled maps are the logits."""
        if self.cam_layer is None:
            return None
        last = self.stages[self.layers[-1]]
        if isinstance(last, nnx.Linear):
            return last.kernel[...]
        return jnp.eye(len(self.class_names), dtype=jax.tree.leaves(nnx.state(self))[0].dtype)

    def _applied(self, names: Iterable[str], x: Array) -> Array:
        for name in names:
            x = self.stages[name](x)
        return x

    def _cut(self, layer: str | None) -> int:
        layer = self.default_layer if layer is None else layer
        if layer not in self.layers:
            raise ValueError(f"layer={layer!r} is not in this {type(self).__name__}: it has {', '.join(self.layers)}")
        return self.layers.index(layer) + 1


def _checked_images(images: Images) -> Array:
    if images.ndim != 4 or images.shape[-1] != 3:
        hint = "; add the batch axis with image[None]" if images.ndim == 3 else ""
        raise ValueError(f"images must be [n, H, W, 3], channels last, but came as {list(images.shape)}{hint}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"images must be floating point and normalised for the model, but their dtype is {images.dtype}: "
            "use model.preprocessing(image) on pixels in [0, 1] (uint8 / 255)"
        )
    return jnp.asarray(images)


class ReLU(nnx.Module):
    """max(x, 0)."""

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return jax.nn.relu(x)


class MaxPool(nnx.Module):
    """Max-pooling; with `ceil_mode` a last, incomplete window counts as well, as in torch."""

    def __init__(self, window: int, strides: int, *, ceil_mode: bool = False) -> None:
        self.window, self.strides, self.ceil_mode = window, strides, ceil_mode

    def __call__(self, x: Float[Array, "n H W k"]) -> Float[Array, "n h w k"]:
        if min(x.shape[1:3]) < self.window:
            raise ValueError(
                f"images are too small: {list(x.shape[1:3])} positions are left for a pooling window of "
                f"{self.window}: use larger images"
            )
        padding: Any = [(0, (self.window - size) % self.strides if self.ceil_mode else 0) for size in x.shape[1:3]]
        return nnx.max_pool(x, (self.window, self.window), (self.strides, self.strides), padding)


class GlobalAveragePool(nnx.Module):
    """The mean over the positions."""

    def __call__(self, x: Float[Array, "n H W k"]) -> Float[Array, "n k"]:
        return x.mean((1, 2))


class Flatten(nnx.Module):
    """Everything but the batch in one axis."""

    def __call__(self, x: Float[Array, "n *rest"]) -> Float[Array, "n m"]:
        return x.reshape(x.shape[0], -1)
