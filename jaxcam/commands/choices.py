"""What --methods and --class mean: methods with their options, and the index of a class."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxcam.commands.parser import UsageError, hint, one_line
from jaxcam.evaluation.requests import parsed
from jaxcam.methods.method import METHODS, bind
from jaxcam.models import Network
from jaxcam.models.chain import Chain
from jaxcam.models.reader import Reader


class Choice(NamedTuple):
    """A method with its options."""

    row: str
    """As it was asked for: "grad_cam_pp:alphas=exact"."""
    method: str
    options: dict[str, Any]

    @property
    def title(self) -> str:
        """As in the papers, with the options."""
        return ", ".join([METHODS[self.method].title, *(f"{key}={value}" for key, value in self.options.items())])


def choose(listed: str | None, model: Network | Chain | Reader, default: tuple[str, ...]) -> tuple[Choice, ...]:
    """The methods of --methods; by default those of the panel that apply to the model."""
    if listed is None:
        return tuple(Choice(name, name, {}) for name in default if name != "cam" or model.cam_layer is not None)
    found: list[Choice] = []
    for text in dict.fromkeys(name.strip() for name in listed.split(",")):
        try:
            asked = parsed(text)
            bind(asked["method"], {key: value for key, value in asked.items() if key != "method"}, draws=True)
        except (ValueError, TypeError) as error:
            message = one_line(error).removeprefix("methods: ").removeprefix("method=")
            raise UsageError(f"--methods: {message}") from None
        found.append(Choice(text, asked.pop("method"), asked))
    if [each.method for each in found] == ["cam"] and model.cam_layer is None:
        raise UsageError(
            f"--methods cam needs a network that ends in global average pooling, which {type(model).__name__} does "
            "not: use --methods grad_cam"
        )
    return tuple(found)


def class_index(wanted: str, names: Sequence[str]) -> int:
    """The index of a class given by index, by name or by an unambiguous part of its name."""
    if wanted.isdecimal():
        if int(wanted) >= len(names):
            raise UsageError(f"--class {wanted} is out of range: the network has classes 0 to {len(names) - 1}")
        return int(wanted)
    text = wanted.strip().casefold()
    for matches in (
        [i for i, name in enumerate(names) if name.casefold() == text],
        [i for i, name in enumerate(names) if text and text in name.casefold()],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            shown = ", ".join(f"{names[i]} ({i})" for i in matches[:6])
            raise UsageError(f"--class {wanted!r} may be any of: {shown}{', …' if len(matches) > 6 else ''}")
    raise UsageError(
        f"--class {wanted!r} is no class of this network{hint(text, names) or f': names look like {names[0]}, …'}"
    )
