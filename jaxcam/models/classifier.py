"""Classifier: what every network here is, whatever it takes: its outputs are logits of classes that have names."""

from flax import nnx

from jaxcam.cuts.refusals import in_training


class Classifier(nnx.Module):
    """A network whose last axis of outputs are the logits of `class_names`."""

    kind: str = "inputs"
    """What the inputs are, in one word, for messages."""
    one: str = "input"
    """The same of a single one."""
    dialect: str = "torchvision"
    """Whose arithmetic this is where implementations differ: "torchvision", "timm" or "tf"; see `efficientnet.py`."""
    class_names: tuple[str, ...]

    @property
    def training(self) -> bool:
        """Whether batch norm or dropout is in training mode (`train()`, undone by `eval()`)."""
        return in_training(self)
