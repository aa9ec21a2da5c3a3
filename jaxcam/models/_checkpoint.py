"""Where weights come from: files, folders and Hugging Face repos, opened without reading more than is asked for.

Contract: `opened` gives a `Checkpoint`, whose tensors are read one at a time. No code in a file is ever run:
.safetensors holds none, and torch's pickles are only read by torch itself with `weights_only=True`. Every failure is a
ValueError that begins with "weights:", or a TypeError for the wrong kind of argument.
"""

import json
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from jaxcam.models._hub import Repo, downloaded

CONFIG = "jaxcam"
"""The key of a .safetensors file's metadata under which jaxcam keeps what a repo has in its config.json."""
_TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".th")
_NESTED = ("state_dict", "model", "model_state_dict")  # where training scripts put the state dict


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by key."""

    name: str
    """For messages."""
    shapes: Mapping[str, tuple[int, ...]]
    tensor: Callable[[str], np.ndarray]
    """Reads one, in its stored type."""
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """timm's config.json of the repo or folder; empty if there is none."""


def opened(weights: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint that `weights` names; see `jaxcam.models.Weights`.

    Raises:
        TypeError: weights is neither a str nor a path.
        ValueError: there is no such file or repo, or it is not what it should be.
    """
    if not isinstance(weights, str | os.PathLike):
        raise TypeError(f"weights must be a path, the name of a repo or None, but is {type(weights).__name__}")
    path, name = Path(weights), repr(os.fspath(weights))
    if path.is_dir():
        file, config = path / "model.safetensors", path / "config.json"
        if not file.is_file():
            raise ValueError(
                f"weights: {name} is a folder without model.safetensors; name a .safetensors file in it, or a folder "
                "with model.safetensors and, if there is one, config.json"
            )
        return _safetensors(file, name, _config(config, name) if config.is_file() else {})
    if path.is_file():
        return _torch(path, name) if path.suffix.lower() in _TORCH_SUFFIXES else _safetensors(path, name, {})
    repo = Repo.named(os.fspath(weights)) if isinstance(weights, str) else None
    if repo is None:
        raise ValueError(
            f"weights: there is no file {name}; give the path of a .safetensors file, or the name of a Hugging "
            'Face repo, "owner/name"'
        )
    file, config = downloaded(repo)
    if _problem(file) is not None:
        # Out of the cache with it: the next call downloads it again.
        for part in (file.resolve(), file):
            part.unlink(missing_ok=True)
        raise ValueError(f"weights: the {file.name} of {str(repo)!r} is not complete; try again, or name another repo")
    return _safetensors(file, str(repo), {} if config is None else _config(config, str(repo)))


def _problem(path: Path) -> str | None:
    """Why it is no .safetensors file with all of its bytes; None if it is one."""
    try:
        with safetensors.safe_open(path, framework="numpy"):
            return None
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        return str(error)


def _safetensors(path: Path, name: str, config: Mapping[str, Any]) -> Checkpoint:
    problem = _problem(path)
    if problem is not None:
        raise ValueError(
            f"weights: {name} is not a complete .safetensors file ({problem}); download it again, or convert a "
            "torch checkpoint with safetensors.torch.save_file(state_dict, path)"
        )
    with safetensors.safe_open(path, framework="numpy") as file:
        stored = (file.metadata() or {}).get(CONFIG)
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118

    def tensor(key: str) -> np.ndarray:
        # Opened anew: the file is mapped to memory, and what was read of it counts until it is closed.
        with safetensors.safe_open(path, framework="numpy") as file:
            return file.get_tensor(key)

    return Checkpoint(name, shapes, tensor, config or ({} if stored is None else json.loads(stored)))


def _torch(path: Path, name: str) -> Checkpoint:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError(
            f"weights: {name} is a torch checkpoint, a pickle, which can run any code when it is loaded: jaxcam leaves "
            "that to torch, which refuses code (weights_only=True). Install torch (its CPU build will do), or convert "
            f"the file once: safetensors.torch.save_file(torch.load({name}, weights_only=True), "
            f"{str(path.with_suffix('.safetensors'))!r})"
        ) from None
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"weights: {name} holds more than tensors, which could run code, so it is not loaded "
            f"({str(error).splitlines()[0]}); save its state dict alone: torch.save(model.state_dict(), path)"
        ) from None
    except Exception as error:  # torch raises nearly anything on damaged bytes: RuntimeError, EOFError, KeyError ...
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"weights: {name} is not a whole torch checkpoint ({reason}); get a new copy of it") from None
    tensors = _state_dict(stored, torch.Tensor)
    if not tensors:
        raise ValueError(
            f"weights: {name} holds no state dict, but {type(stored).__name__}; expected tensors by key, alone or "
            f"under {', '.join(map(repr, _NESTED))}"
        )

    def tensor(key: str) -> np.ndarray:
        value = tensors[key].detach()
        # NumPy has no bfloat16 of its own; float32 holds all of its values.
        return np.asarray((value.float() if value.dtype == torch.bfloat16 else value).numpy())

    return Checkpoint(name, {key: tuple(value.shape) for key, value in tensors.items()}, tensor)


def _is_zip(path: Path) -> bool:
    """Whether torch can map the file to memory; what it wrote before version 1.6 is no zip file."""
    with path.open("rb") as stream:
        return stream.read(2) == b"PK"


def _state_dict(stored: Any, kind: type) -> dict[str, Any]:
    """The tensors by key, wherever they are, without the "module." that DataParallel adds; none if there are none."""
    if not isinstance(stored, Mapping):
        return {}
    for key in _NESTED:
        if isinstance(stored.get(key), Mapping):
            return _state_dict(stored[key], kind)
    tensors = {str(key): value for key, value in stored.items() if isinstance(value, kind)}
    if tensors and all(key.startswith("module.") for key in tensors):
        return {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def _config(path: Path, name: str) -> Mapping[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError, OSError) as error:
        raise ValueError(f"weights: the config.json of {name} cannot be read ({error}); get a new copy of it") from None
