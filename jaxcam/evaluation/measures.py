"""The metrics as columns of a table: their names, units, and which way is better."""

from jaxcam.evaluation.block import loc_key
from jaxcam.evaluation.protocol import Protocol
from jaxcam.evaluation.table import Column


def columns_of(groups: tuple[str, ...], protocol: Protocol, *, has_boxes: bool, has_masks: bool) -> tuple[Column, ...]:
    """The columns of the groups, in the order of a row's values."""
    percent = ("%", 100.0)
    number = ("", 1.0)
    found: list[tuple[str, str, tuple[str, float], str]] = [
        ("average_drop", "average drop", percent, "lower"),
        ("absolute_drop", "absolute drop", percent if protocol.confidence == "probability" else number, "lower"),
        ("increase", "increase in confidence", percent, "higher"),
    ]
    if "deletion" in groups:
        found.append(("drop_in_deletion", "drop in deletion", percent, "higher"))
    if "curves" in groups:
        found += [("insertion", "insertion AUC", number, "higher"), ("deletion", "deletion AUC", number, "lower")]
    if "localisation" in groups and has_boxes:
        found += [(loc_key(d), f"Loc({d:g})", number, "higher") for d in protocol.deltas]
        found += [
            ("pointing", "pointing game", percent, "higher"),
            ("energy", "energy in box", percent, "higher"),
            ("box_iou", "box IoU", number, "higher"),
            ("localised", "box IoU at least 0.5", percent, "higher"),
        ]
    if "localisation" in groups and has_masks:
        found.append(("iou", "mask IoU", number, "higher"))
    if "coherency" in groups:
        found.append(("coherency", "coherency", percent, "higher"))
    if "shape" in groups or "coherency" in groups:
        found.append(("complexity", "complexity", percent, "lower"))
    if "coherency" in groups:
        found.append(("adcc", "ADCC", percent, "higher"))
    if "shape" in groups:
        found.append(("sparsity", "sparsity", number, ""))
    if "sanity" in groups:
        found.append(("sanity", "same when shuffled", number, "lower"))
    return tuple(Column(key, title, unit, better, scale) for key, title, (unit, scale), better in found)
