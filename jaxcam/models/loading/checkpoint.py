"""Where weights come from: files, folders and Hugging Face repos, opened without reading more than is asked for.

Contract: `opened` gives a `Checkpoint`, whose tensors are read one at a time. No code in a file is ever run:
.safetensors holds none, torch's pickles are read as data (`torch_file`), and Orbax's folders are JSON and arrays
(`orbax_folder`). Every failure is a ValueError that begins with "weights:", or a TypeError for the wrong kind of
argument.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from jaxcam.models.loading.hub import Repo, downloaded
from jaxcam.models.loading.orbax_folder import arrays, tree_in
from jaxcam.models.loading.pickled import ForeignError
from jaxcam.models.loading.torch_file import TorchTensor, read_torch_file
from jaxcam.tables import shown

CONFIG = "jaxcam"
"""The key of a .safetensors file's metadata under which jaxcam keeps what a repo has in its config.json."""
_TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".th")
_MOST_BYTES = 2**24  # of a config.json
_NESTED = ("state_dict", "model", "model_state_dict", "net")  # where training scripts put the state dict


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by key."""

    name: str
    """For messages."""
    shapes: Mapping[str, tuple[int, ...]]
    tensor: Callable[[str], np.ndarray]
    """Reads one, in its stored type; of Orbax's the next smaller ones with it, 32 MiB at most."""
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """timm's config.json of the repo or folder; empty if there is none."""
    of_flax: bool = False
    """Whether the keys were Flax's names: they do not tell whose arithmetic the network has."""


def opened(weights: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint that `weights` names; see `jaxcam.models.Weights`.

    Raises:
        TypeError: weights is neither a str nor a path.
        ValueError: there is no such file or repo, or it is not what it should be.
    """
    if not isinstance(weights, str | os.PathLike):
        raise TypeError(f"weights must be a path, the name of a repo or None, but is {type(weights).__name__}")
    path, name = Path(weights), repr(os.fspath(weights))
    try:
        is_folder, is_file = weights != "" and path.is_dir(), path.is_file()
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise ValueError(f"weights: {name} cannot be looked up ({error.strerror}); give another path") from None
    if is_folder:
        file, config = path / "model.safetensors", path / "config.json"
        told = _config(config, name) if config.is_file() else {}
        if file.is_file():
            return _safetensors(file, name, told)
        try:
            tree = tree_in(path)
        except OSError as error:
            raise ValueError(f"weights: {name} cannot be looked into ({error.strerror}); give another path") from None
        if tree is None:
            raise ValueError(
                f"weights: {name} is a folder without model.safetensors, nor did Orbax write it; name a "
                ".safetensors file in it, a folder with model.safetensors and, if there is one, config.json, or the "
                "folder of an Orbax checkpoint"
            )
        return Checkpoint(name, *arrays(tree), told, of_flax=True)
    if is_file:
        return _torch(path, name) if path.suffix.lower() in _TORCH_SUFFIXES else _safetensors(path, name, {})
    repo = Repo.named(os.fspath(weights)) if isinstance(weights, str) else None
    if repo is None:
        raise ValueError(
            f"weights: there is no file {name}; give the path of a .safetensors file, or the name of a Hugging "
            'Face repo, "owner/name"'
        )
    file, config = downloaded(repo)
    if _damage(file, str(repo)) is not None:
        # Out of the cache with it: the next call downloads it again.
        remedy = "try again, or name another repo"
        for part in (file.resolve(), file):
            try:
                part.unlink(missing_ok=True)
            except OSError:
                remedy = f"delete {str(file)!r} and try again, or name another repo"
        raise ValueError(f"weights: the {file.name} of {str(repo)!r} is not complete; {remedy}")
    return _safetensors(file, str(repo), {} if config is None else _config(config, str(repo)))


def _damage(path: Path, name: str) -> str | None:
    """Why the bytes are no .safetensors file, or not all of one; None if they are one."""
    try:
        with safetensors.safe_open(path, framework="numpy"):
            return None
    except safetensors.SafetensorError as error:
        return shown(str(error), 200)
    except OSError as error:  # which says nothing about the bytes: nobody is to download them again for it
        raise ValueError(f"weights: {name} cannot be read ({error}); see to it that {str(path)!r} can") from None


def _safetensors(path: Path, name: str, config: Mapping[str, Any]) -> Checkpoint:
    damage = _damage(path, name)
    if damage is not None:
        raise ValueError(
            f"weights: {name} is not a complete .safetensors file ({damage}); download it again, or convert a "
            "torch checkpoint with safetensors.torch.save_file(state_dict, path)"
        )
    with safetensors.safe_open(path, framework="numpy") as file:
        stored = (file.metadata() or {}).get(CONFIG)
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        shapes = {key: tuple(part.get_shape()) for key, part in slices.items()}
        types = {key: part.get_dtype() for key, part in slices.items()}
    if not config and stored is not None:
        config = _object(stored, f"the metadata of {name}", path)

    def tensor(key: str) -> np.ndarray:
        # Opened anew: the file is mapped to memory, and what was read of it counts until it is closed.
        with safetensors.safe_open(path, framework="numpy") as file:
            try:
                return file.get_tensor(key)
            except (AttributeError, TypeError):
                raise ValueError(_unreadable(key, name, types[key])) from None

    return Checkpoint(name, shapes, tensor, config)


def _unreadable(key: str, name: str, kind: object) -> str:
    return f"weights: {shown(key)} of {name} is stored as {kind}, which NumPy cannot hold; convert it to float32"


def _torch(path: Path, name: str) -> Checkpoint:
    remedy = "save its state dict alone: torch.save(model.state_dict(), path)"
    try:
        file = read_torch_file(path)
    except ForeignError as error:
        raise ValueError(
            f"weights: {name} holds more than tensors ({shown(str(error))}), which could run code, so it is not "
            f"loaded; {remedy}"
        ) from None
    except (ValueError, OSError) as error:
        raise ValueError(
            f"weights: {name} is not a whole torch checkpoint ({shown(str(error), 200)}); get a new copy of it"
        ) from None
    tensors = _state_dict(file.value) if isinstance(file.value, Mapping) else {}
    if not tensors:
        raise ValueError(
            f"weights: {name} holds no state dict, but {type(file.value).__name__}; expected tensors by key, alone or "
            f"under {', '.join(map(repr, _NESTED))}"
        )

    def tensor(key: str) -> np.ndarray:
        try:
            return file.array(tensors[key])
        except (ValueError, OSError) as error:
            raise ValueError(
                f"weights: {shown(key)} of {name} cannot be read ({shown(str(error), 200)}); get a new copy of the file"
            ) from None

    return Checkpoint(name, {key: value.shape for key, value in tensors.items()}, tensor)


def _state_dict(stored: Mapping[Any, Any]) -> dict[str, TorchTensor]:
    """The tensors by key, wherever they are, without the "module." that DataParallel adds; none if there are none."""
    for _ in _NESTED:  # in one another, but not without end: a dict may hold itself
        stored = next((stored[key] for key in _NESTED if isinstance(stored.get(key), Mapping)), stored)
    tensors = {key: value for key, value in stored.items() if isinstance(key, str) and isinstance(value, TorchTensor)}
    if tensors and all(key.startswith("module.") for key in tensors):
        return {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def _config(path: Path, name: str) -> Mapping[str, Any]:
    try:
        with path.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
        text = data.decode()
    except (OSError, ValueError) as error:
        raise ValueError(f"weights: the config.json of {name} cannot be read ({error}); get a new copy of it") from None
    if len(data) > _MOST_BYTES:
        raise ValueError(
            f"weights: the config.json of {name} must have at most {_MOST_BYTES:,} bytes; get a new copy of it"
        )
    return _object(text, f"the config.json of {name}", path)


def _object(text: str, what: str, path: Path) -> Mapping[str, Any]:
    """The JSON object that the text is."""
    try:
        found = json.loads(text)
        reason = f"it is {type(found).__name__}, not an object"
    except (ValueError, RecursionError) as error:
        found, reason = None, shown(str(error), 200)
    if isinstance(found, dict):
        return found
    raise ValueError(f"weights: {what} cannot be read ({reason}); get a new copy of it in place of {str(path)!r}")
