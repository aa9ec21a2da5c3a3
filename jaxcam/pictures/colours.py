"""Colour maps: values in [0, 1] -> colours.

Contract: a map is 52 anchor colours at 0, 5, 10 .. 255 of the published 256-entry table, 8 bits a channel,
between which colours are interpolated linearly. Against the full tables (matplotlib 3.11) the greatest error
of a channel is 0.0036 for viridis, 0.0044 for inferno, 0.0030 for magma and 0.0035 for turbo: at most 1.2
steps of 8 bits.

viridis, inferno and magma are perceptually uniform: equal steps in value look like equal steps, in grey as
well and to most colour-blind readers. turbo shows more detail and is none of that. Source: viridis, inferno
and magma by N. Smith, S. van der Walt and E. Firing (CC0); turbo by A. Mikhailov, Google LLC (Apache-2.0).
"""

import numpy as np
from jax import Array
from jaxtyping import Float

from jaxcam.images.picture import checked_heat

_ANCHORS = {
    "viridis": (
        "44015446085c471063481769481d6f482475472a7a46307e453781433d844142873f48893d4e8a"
        "3a538b38598c355e8d33638d31688e2e6d8e2c718e2a768e297b8e27808e25848e23898e218e8d"
        "20928c1f978b1e9c891fa18821a58524aa8328ae802eb37c35b7793dbc7446c06f50c46a5ac864"
        "65cb5e70cf577cd25089d54895d840a2da37b0dd2fbddf26cae11fd8e219e5e419f1e51dfde725"
    ),
    "inferno": (
        "00000402020c0504170a072210092d160b391e0c45260c512f0a5b380962400a67490b6a510e6c"
        "59106e61136e69166e71196e781c6d801f6c88226a902568982766a02a63a82e5fb0315bb73557"
        "bf3952c63d4dcc4248d34743d94d3ddf5337e45a31e9612bed6925f1711ff47918f78212f98b0b"
        "fa9407fb9d07fca60cfcb014fbba1ffac42af8cd37f6d746f4e156f2ea69f2f27df5f992fcffa4"
    ),
    "magma": (
        "00000402020b0504160907200e0b2b140e361a104221114e29115a311165390f6e420f754a1079"
        "52137c5a167e6219806a1c81721f81792282812581892881912b81992d80a1307eaa337db2357b"
        "ba3878c23b75ca3e72d2426fd9466be04c67e75263ec5860f1605df4695cf7725cf97b5dfb8560"
        "fc8e64fd9869fea16efeaa74feb47bfebd82fec68afecf92fed89afde2a3fdebacfcf4b6fcfdbf"
    ),
    "turbo": (
        "30123b36215f3b2f803f3e9c424bb54559cb4666dd4773eb4680f6458cfd4099ff38a5fb2fb2f4"
        "27bee91fc9dd1ad4d018ddc21ae4b622ebaa2ff19b3ff68a52fa7a65fd6979fe598bff4b9cfe40"
        "a9fb39b7f735c3f134d0ea34dbe236e5d938eecf3af5c53afaba39fdae35fea130fe932afc8423"
        "f9751df46617ef5811e84b0ce14109d83706ce2d04c32503b71d02a916019b0f018b09027a0403"
    ),
    "gray": "000000ffffff",
}


def colour_map(
    values: Float[np.ndarray, "H W"] | Float[Array, "H W"], *, name: str = "inferno"
) -> Float[np.ndarray, "H W 3"]:
    """The colour of every value.

    Args:
        values: `[H, W]`, floating point, in [0, 1].
        name: "inferno", "viridis", "magma" or "gray", all perceptually uniform, or "turbo", which is not.

    Returns:
        float32 `[H, W, 3]` in [0, 1], sRGB.

    Raises:
        TypeError: values is not an array of a floating dtype.
        ValueError: values is not `[H, W]`, empty, not finite or not in [0, 1]; there is no map of that name.
    """
    anchors = anchor_colours(name)
    positions = checked_heat(values, name="values") * np.float32(len(anchors) - 1)
    below = np.minimum(positions.astype(np.int32), len(anchors) - 2)
    share = (positions - below.astype(np.float32))[:, :, np.newaxis]
    return (1 - share) * anchors[below] + share * anchors[below + 1]


def anchor_colours(name: str) -> Float[np.ndarray, "n 3"]:
    """The evenly spaced colours of the map of that name, in [0, 1]; ValueError if there is none."""
    if name not in _ANCHORS:
        raise ValueError(f"the colour map must be one of {', '.join(_ANCHORS)}, got {name!r}")
    stored = np.frombuffer(bytes.fromhex(_ANCHORS[name]), np.uint8).reshape(-1, 3)
    return stored.astype(np.float32) / np.float32(255)
