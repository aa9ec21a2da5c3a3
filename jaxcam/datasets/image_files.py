"""Image files in folders and lists, and which of them an annotation means.

Contract: the files of a folder are those with the suffix of an image, in it and its subfolders, sorted by their
relative paths; hidden files and folders are left out. An annotated path means the file whose path ends in it; if no
path of the whole annotation file does, the base names decide, so that a folder may have moved or been renamed. Of
several files that fit, the one that is exactly it, relative to the folder, is meant; else that is an error.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif")


class ImageFile(NamedTuple):
    """A file and what it is called.

    Attributes:
        path: to open it.
        name: relative to its folder, or as given in a list; for tables.
        parts: of the absolute path.
    """

    path: Path
    name: str
    parts: tuple[str, ...]


def files_in(folder: Path) -> list[ImageFile]:
    """The images in a folder and its subfolders.

    Raises:
        ValueError: there is none.
    """
    found = [path for path in _files(folder) if is_image_name(path.name)]
    if not found:
        raise ValueError(f"there are no images in the folder {str(folder)!r}; looked for {', '.join(SUFFIXES)}")
    root = folder.absolute()
    relative = sorted((path.relative_to(folder) for path in found), key=lambda path: path.as_posix())
    return [ImageFile(folder / path, path.as_posix(), (root / path).parts) for path in relative]


def others_in(folder: Path) -> list[str]:
    """The files that `files_in` leaves out for their suffix, hidden ones aside: relative to the folder, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in _files(folder) if not is_image_name(path.name))


def files_of(paths: Sequence[str | os.PathLike[str]]) -> list[ImageFile]:
    """The files of a list of paths; whether they exist is found out when they are read."""
    return [ImageFile(Path(path), os.fspath(path), Path(path).absolute().parts) for path in paths]


def is_image_name(name: str) -> bool:
    """Whether the suffix is one of an image."""
    return PurePath(name).suffix.lower() in SUFFIXES


def matched(annotated: Sequence[str], files: Sequence[ImageFile]) -> list[ImageFile | None]:
    """The file that each annotated path means; None if there is no such file.

    Args:
        annotated: relative paths or base names with forward slashes; a name without the suffix of an image stands for
            the file of that stem, as in ImageNet's XML files.
        files: to choose from.

    Raises:
        ValueError: several files fit one path.
    """
    by_name: dict[str, list[ImageFile]] = {}
    for file in files:
        for key in {file.parts[-1], PurePath(file.parts[-1]).stem}:
            by_name.setdefault(key, []).append(file)
    wanted = [PurePosixPath(path).parts for path in annotated]
    by_path = [_fitting(parts, by_name) for parts in wanted]
    if not any(by_path):
        by_path = [_fitting(parts[-1:], by_name) for parts in wanted]
    return [_only(path, candidates) for path, candidates in zip(annotated, by_path, strict=True)]


def _files(folder: Path) -> Iterator[Path]:
    """Every file in a folder and its subfolders that is not hidden."""
    seen: set[tuple[int, int]] = set()  # folders, so that links cannot lead round in circles
    for place, folders, names in os.walk(folder, followlinks=True):
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in names if not name.startswith("."))


def _fitting(parts: tuple[str, ...], by_name: dict[str, list[ImageFile]]) -> list[ImageFile]:
    if not parts:
        return []
    complete = is_image_name(parts[-1])
    folders = tuple(part for part in parts[:-1] if part not in ("/", "."))
    return [
        file
        for file in by_name.get(parts[-1], ())
        if (not complete or file.parts[-1] == parts[-1])
        and file.parts[max(0, len(file.parts) - 1 - len(folders)) : -1] == folders
    ]


def _only(path: str, candidates: list[ImageFile]) -> ImageFile | None:
    if len(candidates) > 1:
        # The very path in the folder wins over one that merely ends in it.
        exact = [file for file in candidates if file.name == path]
        if len(exact) != 1:
            shown = ", ".join(repr(file.name) for file in candidates[:3])
            raise ValueError(
                f"the annotated file {path!r:.80} may be any of {shown}; give its path relative to the folder"
            )
        return exact[0]
    return candidates[0] if candidates else None
