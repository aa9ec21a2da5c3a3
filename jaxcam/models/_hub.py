"""Files of a Hugging Face repo, through huggingface_hub: its cache, its offline mode, its progress bar."""

import re
from pathlib import Path
from typing import Any, NamedTuple

WEIGHTS, CONFIG = "model.safetensors", "config.json"
# Names with a file's suffix are taken for missing files: nobody means a repo by "weights/resnet50.safetensors".
_NAME = re.compile(r"(?P<owner>[\w-][\w.-]*)/(?P<repo>[\w-][\w.-]*)(@(?P<revision>[\w./-]+))?")
_FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".th", ".npz", ".msgpack", ".h5")


class Repo(NamedTuple):
    """A repo, at a revision: a branch, a tag or a commit."""

    id: str
    revision: str | None = None

    @classmethod
    def named(cls, text: str) -> "Repo | None":
        """From "owner/name" or "owner/name@revision"; None for what cannot be one."""
        found = _NAME.fullmatch(text)
        if found is None or text.lower().endswith(_FILE_SUFFIXES):
            return None
        return cls(f"{found['owner']}/{found['repo']}", found["revision"])

    def __str__(self) -> str:
        return self.id if self.revision is None else f"{self.id}@{self.revision}"


def downloaded(repo: Repo) -> tuple[Path, Path | None]:
    """The repo's model.safetensors, and its config.json if it has one, in huggingface_hub's cache.

    Raises:
        ValueError: huggingface_hub is not installed; there is no such repo, revision or file; or it is not in the cache
            and cannot be downloaded, or not completely.
    """
    try:
        import huggingface_hub  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError(
            f"weights: {str(repo)!r} is no file, and to download a Hugging Face repo of that name huggingface_hub is "
            "needed, which is not installed: pip install huggingface_hub (the extra `hub`)"
        ) from None
    from huggingface_hub import errors  # pyright: ignore[reportMissingImports]

    try:
        weights = huggingface_hub.hf_hub_download(repo.id, WEIGHTS, revision=repo.revision)
    except Exception as error:  # what is raised when a download breaks off depends on its HTTP library
        raise ValueError(f"weights: {_reason(repo, error, errors)}") from None
    try:
        config = huggingface_hub.hf_hub_download(repo.id, CONFIG, revision=repo.revision)
    except (errors.EntryNotFoundError, errors.LocalEntryNotFoundError):
        return Path(weights), None  # there is none, or it is not in the cache of a machine that is offline
    except Exception as error:
        raise ValueError(f"weights: {_reason(repo, error, errors)}") from None
    return Path(weights), Path(config)


def _reason(repo: Repo, error: Exception, errors: Any) -> str:
    """What went wrong and what to do; the order matters, as some of these errors are special cases of others."""
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"there is no repo {repo.id!r} at Hugging Face, and no such file here; check the name, or log in with "
            "`hf auth login` if it is private"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the repo {repo.id!r} has no revision {repo.revision!r}"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return (
            f"{str(repo)!r} is not in the cache and cannot be downloaded ({_first_line(error)}); check the network and "
            "HF_HUB_OFFLINE, or give the path of a file"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return f"the repo {str(repo)!r} has no {WEIGHTS}; name another repo, or download a file of it and give its path"
    return f"{str(repo)!r} could not be downloaded ({_first_line(error)}); try again"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
