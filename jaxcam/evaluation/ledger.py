"""How others measured average drop, increase and wins: published protocols, in what they differ, and their figures.

What `evaluate` measures under each of them is said by its `Protocol`. What no protocol can say stands beside it: which
score the maps are gradients of, and which formula goes by the name of Grad-CAM++ there. A figure of one protocol says
little of another: tests/benchmarks/protocols.md has what single choices do to the same photographs.

The report behind this project has no entry: of how it measured nothing is known to us but its figures (average drop
55.6 with Grad-CAM and 35.6 with Grad-CAM++, increase 11.5 and 21.2).
"""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

from jaxcam.evaluation.protocol import Protocol
from jaxcam.tables import text


class Figures(NamedTuple):
    """Published ones in percent: Grad-CAM's, and Grad-CAM++'s; None where there are none."""

    network: str
    average_drop: tuple[float, float]
    increase: tuple[float, float]
    win: tuple[float, float] | None = None


@dataclass(frozen=True)
class Published:
    """A published way to measure; the classmethod of `Protocol` with its name has the sources."""

    name: str
    title: str
    protocol: Protocol
    drop: str
    """Which of `evaluate`'s columns its average drop is."""
    pictures: str
    """How they are resized and cropped."""
    differentiated: str
    """The score whose gradient the maps are made of."""
    grad_cam_pp: str
    """The weights that are called Grad-CAM++ there, g being that gradient."""
    images: str
    figures: tuple[Figures, ...] = ()


PUBLISHED = (
    Published(
        "paper",
        "Grad-CAM++ paper",
        Protocol.paper(),
        "average_drop",
        "not said",
        "S_c, exp(S_c)",
        "Eq. 19, alpha / its sum",
        "ILSVRC 2012 val",
        (
            Figures("VGG-16", (46.56, 36.84), (13.42, 17.05), (29.28, 70.72)),  # table 1
            Figures("AlexNet", (82.86, 62.75), (3.16, 8.24), (13.44, 86.56)),  # table 8
            Figures("ResNet-50", (30.36, 28.90), (22.11, 22.16), (39.49, 60.51)),  # table 10
        ),
    ),
    Published(
        "torch_cam",
        "torch-cam",
        Protocol.torch_cam(),
        "average_drop",
        "256, crop 224",
        "softmax(S)_c",
        "sum g^2 ReLU(g)",  # gradient.py lines 192 to 206: the division is done to a copy (alpha[idx][mask].div_)
        "Imagenette val",
        (
            Figures("ResNet-18", (26.86, 52.71), (22.50, 19.62)),  # scripts/results.csv
            Figures("MobileNetV3-L", (26.78, 31.82), (34.83, 25.35)),
        ),
    ),
    Published(
        "grad_cam_package",
        "grad-cam package",
        Protocol.grad_cam_package(),
        "absolute_drop",
        "the user's",
        "S_c",
        "Eq. 19 + 1e-6 below",  # grad_cam_plusplus.py lines 19 to 35
        "the user's",
    ),
    Published(
        "shapley_cam",
        "ShapleyCAM's authors",
        Protocol.shapley_cam(),
        "average_drop",
        "256, crop 224",
        "S_c + log p_c",
        "Eq. 19 + 1e-6 below",
        "ILSVRC 2012 val",
        (Figures("ResNet-18", (18.73, 19.86), (33.77, 31.30)),),  # gist_avgpoolpre2.txt
    ),
)


def ledger() -> str:
    """In what the published protocols differ, as a table; `evaluate(..., protocol=Protocol.torch_cam())` takes one.

    Of `Protocol`'s fields it has those that are not the same for all.
    """
    return text(["", *(entry.title for entry in PUBLISHED)], rows(), left=range(1 + len(PUBLISHED)))


def rows() -> list[list[str]]:
    """The rows of the ledger: what differs, and what it is in each protocol."""
    listed = [["protocol=", *(f"Protocol.{entry.name}()" for entry in PUBLISHED)]]
    for field in dataclasses.fields(Protocol):
        values = [str(getattr(entry.protocol, field.name)) for entry in PUBLISHED]
        if len(set(values)) > 1:
            listed.append([field.name, *values])
    said = {
        "column of the drop": [entry.drop for entry in PUBLISHED],
        "pictures": [entry.pictures for entry in PUBLISHED],
        "differentiated": [entry.differentiated for entry in PUBLISHED],
        "Grad-CAM++ is": [entry.grad_cam_pp for entry in PUBLISHED],
        "data": [entry.images for entry in PUBLISHED],
    }
    return [*listed, *([what, *values] for what, values in said.items())]
