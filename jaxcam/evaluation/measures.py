"""The metrics: their names and units, which way is better, and when they are measured: one record for each.

Contract: a column's `key` is that of its values in `block`, `insertion`, `removal`, `stability`, `truths` or
`tallies`, where they are worked out of what the metrics share: one forward pass, one heatmap, one masked picture for
all of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

from jaxcam.evaluation.block import loc_key
from jaxcam.evaluation.protocol import Protocol
from jaxcam.evaluation.tallies import TALLIES

_EACH = "each"


class Column(NamedTuple):
    """How a metric is shown.

    Attributes:
        key: its name for machines.
        title: its name for people.
        unit: "%" or "".
        better: "higher" or "lower"; "" where neither is, so that no method is the best.
        scale: what its values are multiplied with: 100 for a percentage of values between 0 and 1.
        is_share: whether it is yes or no for an image, and its mean a share of the images.
    """

    key: str
    title: str
    unit: str = ""
    better: str = ""
    scale: float = 1.0
    is_share: bool = False


class Measure(NamedTuple):
    """A metric, and when it is measured: if any of its groups is asked for, and what it compares with is known."""

    groups: tuple[str, ...]
    column: Column
    truth: str = ""
    """"boxes", "masks", "each" (one of the two), "places" (any of them, and boxes in frames), or nothing."""


def measures_of(protocol: Protocol, *, inside: str = "in box") -> tuple[Measure, ...]:
    """All metrics, in the order of a table."""
    confidence, coherency, localisation = ("confidence",), ("coherency",), ("localisation",)
    instances, level = ("instances",), protocol.recall_threshold
    absolute = _percent if protocol.confidence == "probability" else Column
    return (
        Measure(confidence, _percent("average_drop", "average drop", better="lower")),
        Measure(confidence, absolute("absolute_drop", "absolute drop", better="lower")),
        Measure(confidence, _percent("increase", "increase in confidence", better="higher", is_share=True)),
        Measure(("deletion",), _percent("drop_in_deletion", "drop in deletion", better="higher")),
        Measure(("curves",), Column("insertion", "insertion AUC", better="higher")),
        Measure(("curves",), Column("deletion", "deletion AUC", better="lower")),
        Measure(("road",), Column("road", "ROAD", better="higher")),
        Measure(("infidelity",), _percent("infidelity", "infidelity", better="lower")),
        Measure(("sensitivity",), Column("max_sensitivity", "max-sensitivity", better="lower")),
        *(
            Measure(localisation, Column(loc_key(delta), f"Loc({delta:g})", better="higher"), "places")
            for delta in protocol.deltas
        ),
        Measure(localisation, _percent("pointing", "pointing game", better="higher", is_share=True), "places"),
        Measure(localisation, _percent("energy", f"energy {inside}", better="higher"), "places"),
        Measure(localisation, Column("box_iou", "box IoU", better="higher"), "boxes"),
        Measure(localisation, _percent("localised", "box IoU at least 0.5", better="higher", is_share=True), "boxes"),
        Measure(localisation, Column("iou", "mask IoU", better="higher"), "masks"),
        Measure(("thresholds",), _percent("max_box_acc", "MaxBoxAccV2", better="higher"), "boxes"),
        Measure(("thresholds",), _percent("pxap", "PxAP", better="higher"), "masks"),
        Measure(instances, _percent("recall", f"instance recall at {level:g}", better="higher"), _EACH),
        Measure(instances, _percent("instance_heat", "heat of instances", better="higher"), _EACH),
        Measure(instances, Column("instances", "instances"), _EACH),
        Measure(coherency, _percent("coherency", "coherency", better="higher")),
        Measure(("shape", "coherency"), _percent("complexity", "complexity", better="lower")),
        Measure(coherency, _percent("adcc", "ADCC", better="higher")),
        Measure(("shape",), Column("sparsity", "sparsity")),
        Measure(("sanity",), Column("sanity", "same when shuffled", better="lower")),
        Measure(("randomised",), Column("bottom_up", "same when shuffled below", better="lower")),
        Measure(("randomised",), Column("emprt", "eMPRT", better="higher")),
    )


def columns_of(groups: tuple[str, ...], protocol: Protocol, known: frozenset[str]) -> tuple[Column, ...]:
    """The columns of the groups, in the order of a row's values; `known` is what the source knows."""
    has = {"": True, **{name: name in known for name in ("boxes", "masks")}, "places": bool(known)}
    has[_EACH] = has["boxes"] or has["masks"]
    return tuple(
        measure.column
        for measure in measures_of(protocol, inside="inside" if not known & {"boxes", "frames"} else "in box")
        if has[measure.truth] and set(measure.groups) & {"confidence", *groups}
    )


def tallied(columns: Sequence[Column]) -> dict[str, int]:
    """The places of those columns whose metrics are made from tallies, by their keys."""
    return {column.key: place for place, column in enumerate(columns) if column.key in TALLIES}


def _percent(key: str, title: str, *, better: str, is_share: bool = False) -> Column:
    """Of values between 0 and 1."""
    return Column(key, title, "%", better, 100.0, is_share)
