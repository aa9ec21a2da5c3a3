"""Files of a Hugging Face repo, through huggingface_hub: its cache, its offline mode, its progress bar."""

import contextlib
import logging
import re
from collections.abc import Generator
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

    with _without_advice():
        try:
            weights = huggingface_hub.hf_hub_download(repo.id, WEIGHTS, revision=repo.revision)
        except Exception as error:  # what is raised when a download breaks off depends on its HTTP library
            raise ValueError(f"weights: {_reason(repo, error, huggingface_hub)}") from None
        try:
            config = huggingface_hub.hf_hub_download(repo.id, CONFIG, revision=repo.revision)
        except Exception as error:
            # Without its config a network would be given another's preprocessing: only where the repo has none.
            is_local = isinstance(error, errors.LocalEntryNotFoundError)
            is_missing = isinstance(error, errors.EntryNotFoundError) and not is_local
            if is_missing or (is_local and _is_known_to_be_missing(repo, huggingface_hub)):
                return Path(weights), None
            raise ValueError(f"weights: the {CONFIG} of {_reason(repo, error, huggingface_hub)}") from None
    return Path(weights), Path(config)


def _is_known_to_be_missing(repo: Repo, hub: Any) -> bool:
    """Whether the cache has noted that the repo has no config.json."""
    found = hub.try_to_load_from_cache(repo.id, CONFIG, revision=repo.revision)
    return found is not None and not isinstance(found, str)


@contextlib.contextmanager
def _without_advice() -> Generator[None]:
    """Without the Hub's advice to log in for faster downloads, which it sends to be printed as a warning."""
    logger = logging.getLogger("huggingface_hub.utils._http")

    def is_needed(record: logging.LogRecord) -> bool:
        return "unauthenticated" not in record.getMessage()

    logger.addFilter(is_needed)
    try:
        yield
    finally:
        logger.removeFilter(is_needed)


def _reason(repo: Repo, error: Exception, hub: Any) -> str:
    """What went wrong and what to do; the order matters, as some of these errors are special cases of others."""
    errors, status = hub.errors, _status(error)
    if isinstance(error, errors.HFValidationError):
        return f"there is no file {str(repo)!r}, and it is no name of a Hugging Face repo ({_first_line(error)})"
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return (
            f"{str(repo)!r} is only for those whom its owners let in; ask for access on its page at Hugging Face and "
            "log in with `hf auth login`"
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return (
            f"{str(repo)!r} cannot be found: there is no repo {repo.id!r} at Hugging Face, and no such file here; "
            "check the name, or log in with `hf auth login` if it is private"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{str(repo)!r} cannot be found: the repo {repo.id!r} has no revision {repo.revision!r}; check its name"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled) and status is None:
        return (
            f"{str(repo)!r} is not in the cache and cannot be downloaded ({_first_line(error)}); check the network and "
            "HF_HUB_OFFLINE, or give the path of a file"
        )
    if isinstance(error, errors.EntryNotFoundError) and status in (None, 404):
        return (
            f"the repo {str(repo)!r} has no {WEIGHTS}{_contents(repo, hub)}; name another repo, or download a file of "
            "it and give its path"
        )
    why = _first_line(error) if status is None else f"the server answers {status}"
    return f"{str(repo)!r} could not be downloaded ({why}); try again"


def _status(error: BaseException) -> int | None:
    """The HTTP status that it comes from, if it comes from one: huggingface_hub tells it in the cause only."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        seen.append(cause)
        cause = cause.__cause__
    return None


def _contents(repo: Repo, hub: Any) -> str:
    """What the repo does hold, if the server says so at once."""
    with contextlib.suppress(Exception):
        files = [str(file) for file in hub.list_repo_files(repo.id, revision=repo.revision)]
        files = [file for file in files if not Path(file).name.startswith(".")]
        return f", but {', '.join(files[:4])}{', …' if len(files) > 4 else ''}" if files else ""
    return ""


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
