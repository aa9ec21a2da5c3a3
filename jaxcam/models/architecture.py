"""A line in the tables of networks: what an architecture is called, how it is made, and what tells its checkpoints."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, Generic, TypedDict, TypeVar

from flax import nnx
from jax.typing import DTypeLike

from jaxcam.images.preprocessing import Preprocessing
from jaxcam.models.classifier import Classifier

MOST_CLASSES = 2**20
"""Every class has a name: what a damaged file says must not fill the memory with them."""
N = TypeVar("N", bound=Classifier)
Weights = str | PathLike[str] | None
"""Where parameters come from:

- None: random ones;
- a .safetensors file with torchvision's or timm's key names;
- a .pth file of torch's, in either of its formats; torch is not needed, and no code in it is run;
- a folder with `model.safetensors` and timm's `config.json`, the local copy of a repo;
- a folder that Orbax wrote: the state of the network, or its dictionaries, as `nnx.state(model)` is saved in training;
  class names and dialect in a `config.json` in it, if there is one;
- "owner/name" or "owner/name@revision", a Hugging Face repo, through its cache (needs the `hub` extra);
- "imagenet": the architecture's usual repo, or the file of a package that the extra `photographs` installs.
"""


class Options(TypedDict, total=False):
    """The keyword arguments of every constructor.

    num_classes: as many as the checkpoint has unless given; those of the paper without a checkpoint.
    class_names: ImageNet's (or CIFAR-10's) where their number fits, else "class 0", "class 1" ... unless given.
    preprocessing: that of the checkpoint's config.json, else that of torchvision's weights, unless given.
    dtype: of the parameters, float32 unless given, whatever the checkpoint stores.
    seed: of random parameters, 0 unless given.
    """

    num_classes: int | None
    class_names: Sequence[str] | None
    preprocessing: Preprocessing | None
    dtype: DTypeLike | None
    seed: int


def _same(key: str) -> str:
    return key


@dataclass(frozen=True)
class Architecture(Generic[N]):
    """A line in the tables of networks."""

    name: str
    network: Callable[..., N]
    """Called with `num_classes` and `rngs`."""
    classifier: str
    """The key of the layer whose weight has a row for each class."""
    num_classes: int = 1000
    repo: str | None = None
    """What `weights="imagenet"` means."""
    package: str | None = None
    """Or the file in an installed package that it means, "package/folder/file"."""
    torchvision_key: Callable[[str], str] = _same
    """Translates timm's keys and leaves others alone."""
    dialects: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    """Arguments of `network` that depend on where a checkpoint comes from: "torchvision", "timm" or "tf"."""
    dialect_of: Mapping[str, str] = field(default_factory=dict[str, str])
    """The dialect of checkpoints that have this key, where translated keys do not mean timm's."""

    def create(self, *, num_classes: int, seed: int = 0, dialect: str = "torchvision") -> N:
        """The network with random parameters."""
        return self.network(num_classes=num_classes, rngs=nnx.Rngs(seed), **self.dialects.get(dialect, {}))


BUFFERS = ("num_batches_tracked", "relative_position_index", "attn_mask")
"""What the keys of torch's tensors end with that are no parameters: they are computed here, or not needed."""

FAMILIES: dict[str, Mapping[str, Architecture[Any]]] = {}
"""All architectures whose checkpoints are recognised, by a tensor that their family has and no other."""


def family(marker: str, *architectures: Architecture[N]) -> dict[str, Architecture[N]]:
    """The architectures by name, entered among the `FAMILIES`."""
    found = {architecture.name: architecture for architecture in architectures}
    FAMILIES[marker] = found
    return found
