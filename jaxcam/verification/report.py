"""The report of a verification: its record, its verdict in words, and its table."""

import dataclasses
import math
from typing import Any

from jaxcam.foldable import foldable
from jaxcam.tables import preformatted
from jaxcam.verification.record import Record
from jaxcam.verification.sheet import table
from jaxcam.verification.verdict import sentences


@dataclasses.dataclass(frozen=True)
class Verification(Record):
    """What `verify` found. `print` it for a table; `verdict` is what follows in words; `to_dict` goes into JSON.

    The figures are the fields of `Record`. None stands for what could not be had: a figure that needs all elements
    where only the sample was looked at, a ratio to zero, a closed form that does not exist, a composition that the head
    does not allow.
    """

    @property
    def verdict(self) -> str:
        """What follows from the figures, in sentences."""
        return " ".join(self.sentences)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The sentences of the verdict, one for each question."""
        return sentences(self)

    def to_dict(self) -> dict[str, Any]:
        """All figures and the verdict as dictionaries, lists, numbers and strings, ready for JSON."""
        fields = {**dataclasses.asdict(self), "closed_form_holds": self.closed_form_holds, "verdict": self.verdict}
        return {name: _plain(value) for name, value in fields.items()}

    def __str__(self) -> str:
        return table(self)

    def _repr_html_(self) -> str:
        return preformatted(str(self))

    def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
        names = [field.name for field in dataclasses.fields(self)]
        return foldable(self, ["verdict", "closed_form_holds", *names], path, subtree_renderer)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    # JSON has no infinity: that of a difference from nothing becomes null.
    return None if isinstance(value, float) and not math.isfinite(value) else value
