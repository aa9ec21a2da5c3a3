"""The small networks of series, volumes and clips, made for `jaxcam.scenes`.

`mini_tcn` sees series `[n, t, 3]`, `mini_net3d` volumes `[n, z, y, x, 1]`, `mini_c3d` and `mini_convlstm` clips
`[n, t, H, W, 3]` of pixels in [0, 1], as `scenes.series`, `scenes.volume` and `scenes.clip` draw them, of any length
and size; nothing is normalised beforehand. Their maps have the grids of `default_layer`: `[t / 2]`, `[z / 4, y / 4,
x / 4]`, `[t / 2, H / 8, W / 8]` and `[t, H / 8, W / 8]`. `python -m jaxcam train` makes their weights again.
"""

from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxcam import scenes
from jaxcam.models.architecture import Architecture, Options, Weights
from jaxcam.models.chain import Chain
from jaxcam.models.class_names import class_names
from jaxcam.models.embedded import EMBEDDED, conv, embedded, linear, norm
from jaxcam.models.mini import MiniResNet
from jaxcam.models.modules import GlobalAveragePool, ReLU
from jaxcam.programs.convolution import convolution_of_patches


class Centre(nnx.Module):
    """Pixels in [0, 1] as `mini_resnet` has them: of mean 1/2 and standard deviation 1/4."""

    def __call__(self, x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """4 x - 2."""
        return 4 * x - 2


class TemporalBlock(nnx.Module):
    """Two dilated convolutions of five samples with batch norm, and a shortcut past both.

    **Source**: Bai et al. 2018, "An empirical evaluation of generic convolutional and recurrent networks for sequence
    modeling", Fig. 1, but centred on each sample and not causal: the whole series is there.
    """

    def __init__(self, channels: int, *, dilation: int, rngs: nnx.Rngs) -> None:
        self.conv1 = conv(channels, channels, (5,), dilation=dilation, rngs=rngs)
        self.bn1 = norm(channels, rngs=rngs)
        self.conv2 = conv(channels, channels, (5,), dilation=dilation, rngs=rngs)
        self.bn2 = norm(channels, rngs=rngs)

    def __call__(self, x: Float[Array, "n t k"]) -> Float[Array, "n t k"]:
        """ReLU(residual + x)."""
        return nnx.relu(self.bn2(self.conv2(nnx.relu(self.bn1(self.conv1(x))))) + x)


class MiniTCN(Chain):
    """A temporal convolutional network: three blocks with dilations 1, 2 and 4, global average pooling, one layer."""

    kind, one, axes, channels = "series", "series", ("t",), 3
    default_layer = "block3"
    smallest_image = 2

    def __init__(self, *, num_classes: int = len(scenes.PATTERN_NAMES), rngs: nnx.Rngs) -> None:
        super().__init__(
            {
                **_stage(1, 3, 32, (7,), strides=(2,), rngs=rngs),
                "block1": TemporalBlock(32, dilation=1, rngs=rngs),
                "block2": TemporalBlock(32, dilation=2, rngs=rngs),
                "block3": TemporalBlock(32, dilation=4, rngs=rngs),
                "avgpool": GlobalAveragePool(),
                "fc": linear(32, num_classes, rngs=rngs),
            },
            class_names=class_names(num_classes, of=scenes.PATTERN_NAMES),
        )


class MiniNet3D(Chain):
    """Four 3-D convolutions, global average pooling and two fully connected layers."""

    kind, one, axes, channels = "volumes", "volume", ("z", "y", "x"), 1
    default_layer = "relu4"
    smallest_image = 4

    def __init__(self, *, num_classes: int = len(scenes.SOLID_NAMES), rngs: nnx.Rngs) -> None:
        super().__init__(
            {
                **_stage(1, 1, 12, (5, 5, 5), strides=(2, 2, 2), rngs=rngs),
                **_stage(2, 12, 16, (3, 3, 3), rngs=rngs),
                **_stage(3, 16, 32, (3, 3, 3), strides=(2, 2, 2), rngs=rngs),
                **_stage(4, 32, 48, (3, 3, 3), rngs=rngs),
                **_classifier(48, num_classes, rngs=rngs),
            },
            class_names=class_names(num_classes, of=scenes.SOLID_NAMES),
        )


class MiniC3D(Chain):
    """The layers of `mini_resnet`, frame by frame; two 3-D convolutions, global average pooling and a linear layer.

    **Source**: Tran et al. 2015, "Learning spatiotemporal features with 3D convolutional networks"; Xie et al. 2018,
    "Rethinking spatiotemporal feature learning", for convolutions over time at the top only.
    """

    kind, one, axes, channels = "clips", "clip", ("t", "H", "W"), 3
    default_layer = "relu5"
    smallest_image = (2, 8, 8)

    def __init__(self, *, num_classes: int = len(scenes.CLASS_NAMES), rngs: nnx.Rngs) -> None:
        super().__init__(
            {
                **_frames(rngs=rngs),
                **_stage(4, 64, 48, (3, 3, 3), strides=(1, 2, 2), rngs=rngs),
                **_stage(5, 48, 64, (3, 3, 3), strides=(2, 1, 1), rngs=rngs),
                "avgpool": GlobalAveragePool(),
                "fc": linear(64, num_classes, rngs=rngs),
            },
            class_names=class_names(num_classes, of=scenes.CLASS_NAMES),
        )


class ConvLSTM(nnx.Module):
    """An LSTM whose gates are convolutions, over the frames in a scan; returns the hidden state after every frame.

    i, f, o = sigmoid and g = tanh of W_x * x_t + W_h * h_(t-1) + b;  c_t = f ∘ c_(t-1) + i ∘ g;  h_t = o ∘ tanh(c_t).

    **Source**: Shi et al. 2015, "Convolutional LSTM network", Eq. 3, without its peepholes.
    """

    def __init__(self, inputs: int, hidden: int, *, rngs: nnx.Rngs) -> None:
        self.hidden = hidden
        self.conv_x = nnx.Conv(inputs, 4 * hidden, (3, 3), rngs=rngs)
        in_scan: Any = convolution_of_patches
        self.conv_h = nnx.Conv(hidden, 4 * hidden, (3, 3), use_bias=False, conv_general_dilated=in_scan, rngs=rngs)

    def step(
        self, state: tuple[Float[Array, "n h w k"], Float[Array, "n h w k"]], from_frame: Float[Array, "n h w k4"]
    ) -> tuple[Float[Array, "n h w k"], Float[Array, "n h w k"]]:
        """(h, c) after one more frame, of which W_x * x_t + b is given."""
        hidden, cell = state
        i, f, o, g = jnp.split(from_frame + self.conv_h(hidden), 4, axis=-1)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(cell), cell

    def __call__(self, x: Float[Array, "n t h w d"]) -> Float[Array, "n t h w k"]:
        """The layer, applied."""

        def step(state: Any, from_frame: Array) -> tuple[Any, Array]:
            state = self.step(state, from_frame)
            return state, state[0]

        from_frames = jnp.moveaxis(self.conv_x(x), 1, 0)
        empty = jnp.zeros((*from_frames.shape[1:-1], self.hidden), x.dtype)
        return jnp.moveaxis(jax.lax.scan(step, (empty, empty), from_frames)[1], 0, 1)


class MiniConvLSTM(Chain):
    """The layers of `mini_resnet`, frame by frame, and a ConvLSTM; the mean of all its hidden states is classified."""

    kind, one, axes, channels = "clips", "clip", ("t", "H", "W"), 3
    default_layer = "lstm"
    smallest_image = (1, 8, 8)

    def __init__(self, *, num_classes: int = len(scenes.CLASS_NAMES), rngs: nnx.Rngs) -> None:
        super().__init__(
            {
                **_frames(rngs=rngs),
                **_stage(4, 64, 32, (3, 3), strides=(2, 2), rngs=rngs),
                "lstm": ConvLSTM(32, 32, rngs=rngs),
                "avgpool": GlobalAveragePool(),
                "fc": linear(32, num_classes, rngs=rngs),
            },
            class_names=class_names(num_classes, of=scenes.CLASS_NAMES),
        )


ARCHITECTURES: dict[str, Architecture[Any]] = {
    "mini_tcn": Architecture("mini_tcn", MiniTCN, classifier="fc", num_classes=len(scenes.PATTERN_NAMES)),
    "mini_net3d": Architecture("mini_net3d", MiniNet3D, classifier="fc6", num_classes=len(scenes.SOLID_NAMES)),
    "mini_c3d": Architecture("mini_c3d", MiniC3D, classifier="fc", num_classes=len(scenes.CLASS_NAMES)),
    "mini_convlstm": Architecture("mini_convlstm", MiniConvLSTM, classifier="fc", num_classes=len(scenes.CLASS_NAMES)),
}
"""By name."""


def mini_tcn(weights: Weights = EMBEDDED, **options: Unpack[Options]) -> MiniTCN:
    """The embedded network of series; "embedded" are the trained parameters in the package."""
    return embedded(ARCHITECTURES["mini_tcn"], weights, options)


def mini_net3d(weights: Weights = EMBEDDED, **options: Unpack[Options]) -> MiniNet3D:
    """The embedded network of volumes; "embedded" are the trained parameters in the package."""
    return embedded(ARCHITECTURES["mini_net3d"], weights, options)


def mini_c3d(weights: Weights = EMBEDDED, **options: Unpack[Options]) -> MiniC3D:
    """The embedded network of clips with 3-D convolutions; "embedded" are the trained parameters in the package."""
    return embedded(ARCHITECTURES["mini_c3d"], weights, options)


def mini_convlstm(weights: Weights = EMBEDDED, **options: Unpack[Options]) -> MiniConvLSTM:
    """The embedded network of clips with a ConvLSTM; "embedded" are the trained parameters in the package."""
    return embedded(ARCHITECTURES["mini_convlstm"], weights, options)


def _frames(*, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """The layers of `mini_resnet` up to its last grid: they take the frames of clips as they take pictures."""
    network = MiniResNet(rngs=rngs)
    return {"centre": Centre()} | {
        name: network.stages[name] for name in network.layers[: network.layers.index("avgpool")]
    }


def _stage(
    i: int, inputs: int, outputs: int, size: tuple[int, ...], *, strides: tuple[int, ...] = (), rngs: nnx.Rngs
) -> dict[str, nnx.Module]:
    """A convolution, batch norm and ReLU, number i of the network."""
    layer = conv(inputs, outputs, size, strides=strides, rngs=rngs)
    return {f"conv{i}": layer, f"bn{i}": norm(outputs, rngs=rngs), f"relu{i}": ReLU()}


def _classifier(width: int, num_classes: int, *, rngs: nnx.Rngs) -> dict[str, nnx.Module]:
    """Global average pooling and two fully connected layers."""
    return {
        "avgpool": GlobalAveragePool(),
        "fc5": linear(width, width, rngs=rngs),
        "relu5": ReLU(),
        "fc6": linear(width, num_classes, rngs=rngs),
    }
