"""What was measured: everything that changes the figures of a table without changing the network or the pictures."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from jaxcam.checks import check_integer

_CHOICES = {
    "confidence": ("probability", "logit", "target"),
    "mask": ("pixels", "input"),
    "baseline": ("black", "zero", "mean", "blur"),
    "normalisation": ("max", "min_max", "min_max_twice"),
    "resize": ("linear", "nearest", "cubic"),
    "class_idx": ("predicted", "true"),
}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What `evaluate` measures; stored with every result, and two results with different protocols do not compare.

    Attributes:
        confidence: Y and O, the network's confidence on the image and on the explanation map: the "probability" of the
            explained class, by what the outputs mean (softmax, sigmoid ...: see `jaxcam.adapt`), its "logit", or the
            value of a "target" (with `evaluate(target=)`, and only there). Logits and targets may be negative and have
            no limits: average drop, drop in deletion, ADCC and wins are of the examples with Y > 0, for nothing can
            fall from Y <= 0; absolute drop and increase are of all, in the target's own unit; a drop is above 100 %
            where O is negative. What is better when lower, as an error, has to be negated (`targets.negated`).
        mask: where E = L ∘ I + (1 - L) ∘ baseline is made: on "pixels" in [0, 1], which are normalised afterwards, or
            on the normalised "input". Both blend in the same way, so they differ in what zero means: on pixels black,
            on the input the mean colour. mask="input" therefore needs the baseline "mean" or "blur". Inputs that are
            prepared for the model, as series and volumes, have no pixels: mask="input".
        baseline: what is seen where the heatmap is 0: "black", the "mean" colour of the preprocessing, or a "blur" of
            the picture (Gaussian, sigma 5/224 of the shorter side). Of prepared inputs "zero" (E = L ∘ I), the "mean"
            of each channel over the example's positions, or a "blur" along each axis (5/224 of its length). Insertion
            begins and deletion ends with it too.
        normalisation: of the raw map: divided by its "max" (negative values are zero), "min_max", or "min_max_twice",
            on the feature grid and again after resizing, which spreads what interpolation has flattened.
        epsilon: added to the maximum that a map is divided by, so that faint maps stay faint: one with a maximum of
            1e-9 becomes nearly empty with 1e-8. 0 here, where maps that are zero everywhere stay zero; others have it.
        resize: from the feature grid to the picture: "linear", "nearest" or "cubic" (cut off at 0 and 1).
        class_idx: the class that is explained: "predicted" by the network, or "true" (images without a label then do
            not count; what has several labels is an example with each). Without meaning where there is a target.
        deltas: the thresholds of the localisation metric Loc(δ).
        box_fraction: the box of a heatmap holds the largest component above this share of its maximum.
        mask_threshold: above this share of the maximum a pixel belongs to the heatmap's mask, for the IoU with masks.
        recall_threshold: an object is found where the heatmap reaches this share of its maximum, for instance recall.
        tolerance: of the pointing game, as a share of the shortest side (15 pixels of 224).
        num_steps: of the insertion and deletion curves.
        num_squares: of the boxes that are removed for infidelity, `metrics.squares`; the baseline is seen there.
        num_noises: how often noise is added for max-sensitivity.
        noise: of max-sensitivity: uniform between this many standard deviations of the input and as many below zero.

    Raises:
        ValueError: a value is not one of those named, or a number is out of range.
        TypeError: a number is none.

    **Source**: the defaults are Chattopadhay et al. 2018; box_fraction Selvaraju et al. 2017, section 4.1; tolerance
    Zhang et al. 2018; noise Yeh et al. 2019.
    """

    confidence: Literal["probability", "logit", "target"] = "probability"
    mask: Literal["pixels", "input"] = "pixels"
    baseline: Literal["black", "zero", "mean", "blur"] = "black"
    normalisation: Literal["max", "min_max", "min_max_twice"] = "max"
    epsilon: float = 0.0
    resize: Literal["linear", "nearest", "cubic"] = "linear"
    class_idx: Literal["predicted", "true"] = "predicted"
    deltas: tuple[float, ...] = (0.0, 0.25, 0.5)
    box_fraction: float = 0.15
    mask_threshold: float = 0.5
    recall_threshold: float = 0.5
    tolerance: float = 15 / 224
    num_steps: int = 32
    num_squares: int = 32
    num_noises: int = 8
    noise: float = 0.2

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {getattr(self, name)!r}")
        if self.mask == "input" and self.baseline == "black":
            raise ValueError(
                'baseline="black" belongs to mask="pixels": on the normalised input zero is the mean colour, so pass '
                'baseline="mean" with mask="input", or baseline="zero" for inputs that are no pictures'
            )
        if self.mask == "pixels" and self.baseline == "zero":
            raise ValueError('baseline="zero" belongs to mask="input": on pixels it is called "black"')
        if self.confidence == "target" and self.class_idx == "true":
            raise ValueError('class_idx="true" means nothing with confidence="target": leave it out')
        deltas: Any = self.deltas
        if not isinstance(deltas, tuple | list) or not deltas:
            raise TypeError(f"deltas must be a tuple of numbers from 0 to below 1, not {deltas!r}")
        # A list would make the value unhashable, and 0 and 0.0 the same protocol under two names.
        object.__setattr__(self, "deltas", tuple(_number(delta, "deltas") for delta in deltas))
        if len(set(self.deltas)) != len(self.deltas):
            raise ValueError(f"deltas must differ from each other, but are {self.deltas}")
        for name in ("epsilon", "box_fraction", "mask_threshold", "recall_threshold", "tolerance", "noise"):
            object.__setattr__(self, name, _number(getattr(self, name), name))
        for name in ("box_fraction", "recall_threshold"):
            if not getattr(self, name):
                raise ValueError(f"{name} must be above 0: every pixel reaches 0")
        if not self.noise:
            raise ValueError("noise must be above 0: without any no map changes")
        for name in ("num_steps", "num_squares", "num_noises"):
            check_integer(name, getattr(self, name), low=1)

    @classmethod
    def paper(cls) -> "Protocol":
        """That of the Grad-CAM++ paper: the default. E = L ∘ I of the predicted class, its probability on both.

        Not said there, and taken as it is here: that the confidence is the probability, and that I is the picture and
        not the normalised input (then zero would be the mean colour: `mask="input"`). The authors' released code has
        the maps, divided by their maximum and then resized, and not the evaluation.

        **Source**: Chattopadhay et al. 2018, section 4.1 and Eq. 25; github.com/adityac94/Grad_CAM_plus_plus
        2b0d7b5, misc/utils.py, `grad_CAM_plus`.
        """
        return cls()

    @classmethod
    def torch_cam(cls) -> "Protocol":
        """That of torch-cam's `ClassificationMetric`: maps from minimum to maximum, on the normalised input.

        The probability (the softmax is passed as `logits_fn`) of the predicted class; the mask multiplies the
        normalised input, so that zero is the mean colour; a drop is divided by Y, which has 1e-7 added there. Maps that
        are zero count there, and here for no metric. It is the softmax that is differentiated, whose gradient vanishes
        where the network is sure: maps are so faint then that 1e-8 in the divisor may empty them.

        **Source**: github.com/frgfm/torch-cam f44afef, torchcam/metrics.py lines 195 to 213, torchcam/methods/core.py
        lines 197 to 204, scripts/eval_perf.py lines 40 to 67.
        """
        return cls(mask="input", baseline="mean", normalisation="min_max", epsilon=1e-8)

    @classmethod
    def shapley_cam(cls) -> "Protocol":
        """That of the published tables of ShapleyCAM's authors: as `grad_cam_package`, of the true class.

        The probability of the label, right or wrong. Their script has three choices of the class (predicted; the label
        where it is predicted; the label), the first of which is switched on as it stands. Its rows for ResNet-18 are a
        drop of 31.3 and an increase of 23.5 with one choice, 18.7 and 33.8 with another, which are the published ones:
        of the three the label raises the increase so much (what is not predicted can easily gain), here as well.

        **Source**: github.com/caihuaiguang/pytorch-shapley-cam ee02cce, usage_examples/ADCC_imagenet_gist.py lines 168
        to 209, pytorch_grad_cam/metrics/ADCC.py lines 72 to 74, gist_avgpoolpre.txt and gist_avgpoolpre2.txt.
        """
        return dataclasses.replace(cls.grad_cam_package(), class_idx="true")

    @classmethod
    def grad_cam_package(cls) -> "Protocol":
        """That of the grad-cam package's `DropInConfidence` and `IncreaseInConfidence`, with its softmax target.

        The mask multiplies the normalised input; maps go from minimum to maximum on their grid, and again after
        resizing, both times with 1e-7 added to the maximum. The drop is max(0, Y - O), not divided by Y: the column
        "absolute_drop". With the package's other target, the logit: `dataclasses.replace(..., confidence="logit")`.

        **Source**: github.com/jacobgil/pytorch-grad-cam 1.5.7, pytorch_grad_cam/metrics/cam_mult_image.py lines 7 to
        37, pytorch_grad_cam/utils/image.py lines 161 to 176, pytorch_grad_cam/base_cam.py lines 171 to 181.
        """
        return cls(mask="input", baseline="mean", normalisation="min_max_twice", epsilon=1e-7)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}

    @property
    def summary(self) -> str:
        """In one line."""
        return self.told(is_prepared=self.baseline == "zero")

    def told(self, *, is_prepared: bool) -> str:
        """In one line, of pictures or of prepared inputs."""
        mean, given = ("the mean", "the input") if is_prepared else ("the mean colour", "the normalised input")
        zero = {"black": "black", "zero": "zero", "mean": mean, "blur": "a blur"}[self.baseline]
        range_ = {"max": "divided by their maximum", "min_max": "from minimum to maximum"}.get(
            self.normalisation, "from minimum to maximum, again after resizing"
        )
        where = {"pixels": "on the pixels", "input": f"on {given}"}[self.mask]
        value = "value of the target"
        if self.confidence != "target":
            value = f"{self.confidence} of the {self.class_idx} class"
        faint = f" + {self.epsilon:g}" if self.epsilon else ""
        return f"{value}; mask {where}, {zero} where the map is 0; maps {range_}{faint}, resized {self.resize}"


def protocol_for(protocol: Any, *, is_prepared: bool, has_target: bool) -> Protocol:
    """The protocol as given, if it fits the data and the target; the default one for them if there is none.

    Raises:
        TypeError, ValueError: it is none, or does not fit.
    """
    confidence = "target" if has_target else "probability"
    if protocol is None:
        if is_prepared:
            return Protocol(confidence=confidence, mask="input", baseline="zero")
        return Protocol(confidence=confidence)
    if not isinstance(protocol, Protocol):
        raise TypeError(f"protocol must be a jaxcam.Protocol, not {protocol!r}")
    if has_target != (protocol.confidence == "target"):
        if not has_target:
            raise ValueError(
                'protocol must not have confidence="target" without a target: pass target=, or leave it out'
            )
        raise ValueError(
            f'protocol must have confidence="target" with a target but has {protocol.confidence!r}: pass '
            'jaxcam.Protocol(confidence="target", ...)'
        )
    if is_prepared and protocol.mask == "pixels":
        raise ValueError(
            'protocol: mask="pixels" is of pictures that a preprocessing makes the input of, and these inputs are '
            'prepared for the model: pass jaxcam.Protocol(mask="input", baseline="zero"), or "mean" or "blur"'
        )
    if not is_prepared and protocol.baseline == "zero":
        raise ValueError('protocol: baseline="zero" of a normalised picture is the mean colour: pass "mean"')
    return protocol


def differences(a: dict[str, Any], b: dict[str, Any], *, inside: str = "") -> str:
    """What differs between two dictionaries, in words; empty where nothing does."""
    found: list[str] = []
    for key in dict.fromkeys([*a, *b]):
        one, other = a.get(key), b.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found += filter(None, [differences(one, other, inside=f"{inside}{key}.")])
        elif one != other:
            found.append(f"{inside}{key}: {one!r} and {other!r}")
    return "; ".join(found)


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be from 0 to below 1, but is {value}")
    return float(value)
