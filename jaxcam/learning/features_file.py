"""The file of pooled features, from which an interrupted run resumes.

    features.bin.part   while the run lasts: a line of JSON that says of what these are the features, and a record of
                        one size for each example so far, [label int32 | checksum uint32 | x]
    features.bin        when it is complete; the .part is renamed

Contract: the file holds whole blocks; what a killed run left half written is cut off and computed again, in the same
block, so that a resumed run gives the same numbers bit for bit. A file with another header is refused, and so is one
with a record whose checksum does not fit.
"""

import contextlib
import json
import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Array

from jaxcam.files import check_regular, lock, naming
from jaxcam.tables import shown

UNREADABLE = -2
"""The label of an example that cannot be read."""
_LONGEST = 2**20
"""Bytes of the header: a file without any line break must not be read into memory."""


class FeaturesFile:
    """The records on disk; without a path only those of this run, which the caller keeps."""

    def __init__(self, path: Path | None, header: dict[str, Any], record: np.dtype, block: int) -> None:
        """Opens the file of a run that goes on, or of a new one, and reads what is there."""
        self._path, self._record = path, record
        self._line = json.dumps(header).encode() + b"\n"
        self.records = np.zeros(0, record)
        if path is not None:
            check_regular("features", path)
            check_regular("features", self._part)
        self.is_complete = path is not None and path.exists()
        self._stream: BinaryIO | None = None
        if path is None:
            return
        with naming(path):
            self._stream = (path if self.is_complete else self._part).open("rb" if self.is_complete else "a+b")
        try:
            if not self.is_complete:
                lock("features", self._stream, self._part)
            self._begin(block)
        except BaseException:
            self._stream.close()
            raise

    @property
    def _part(self) -> Path:
        assert self._path is not None
        return self._path.with_name(self._path.name + ".part")

    def append(self, labels: np.ndarray, x: Array) -> np.ndarray:
        """Writes a block, for anyone to see, and returns its records."""
        made = np.zeros(len(labels), self._record)
        made["label"] = labels
        made["x"] = np.asarray(x)[: len(labels)]
        made["x"][labels == UNREADABLE] = 0
        made["crc"] = _checksums(made)
        if self._stream is not None:
            with naming(self._part):
                self._stream.write(made.tobytes())
                self._stream.flush()
        return made

    def finish(self) -> None:
        """Gives the complete file its name."""
        if self._path is None or self._stream is None or self.is_complete:
            return
        with naming(self._path):
            os.fsync(self._stream.fileno())
            self._part.replace(self._path)
        self.is_complete = True

    def close(self) -> None:
        """Lets go of the file."""
        if self._stream is not None:
            with contextlib.suppress(OSError):  # of a block that `append` could not write, which told it
                self._stream.close()

    def _begin(self, block: int) -> None:
        assert self._stream is not None
        assert self._path is not None
        where = f"features: {os.fspath(self._path)!r}"
        self._stream.seek(0)
        line = self._stream.readline(_LONGEST)
        if not self.is_complete and self._line.startswith(line) and line != self._line:  # empty, or half a header
            self._stream.truncate(0)
            self._stream.write(self._line)
            self._stream.flush()
            return
        if line != self._line:
            raise ValueError(f"{where} {_difference(line, self._line)}: choose another file, or remove this one")
        rest = self._stream.read()
        size = self._record.itemsize
        num = len(rest) // size
        if self.is_complete and len(rest) != num * size:
            raise ValueError(f"{where} is damaged (its last record has no end): remove the file")
        if not self.is_complete:
            num -= num % block
            self._stream.truncate(len(line) + num * size)
        self.records = np.frombuffer(rest, self._record, num)
        wrong = np.flatnonzero(_checksums(self.records) != self.records["crc"])
        if len(wrong):
            raise ValueError(f"{where} is damaged (the checksum of example {wrong[0]} does not fit): remove the file")


def _checksums(records: np.ndarray) -> np.ndarray:
    sums = [zlib.crc32(record["x"].tobytes(), zlib.crc32(record["label"].tobytes())) for record in records]
    return np.asarray(sums, np.uint32)


def _difference(there: bytes, here: bytes) -> str:
    """What a header says that is not wanted."""
    try:
        said, wanted = json.loads(there), json.loads(here)
    except (ValueError, RecursionError):
        said, wanted = None, {}
    if not isinstance(said, dict) or "jaxcam_features" not in said:
        return "must be a file that fit_cam has written but is another"
    names = [name for name in wanted if said.get(name) != wanted[name]]
    told = "; ".join(f"{name}: {said.get(name)!r} there, {wanted[name]!r} here" for name in names)
    return f"must hold the same features but holds others ({shown(told, 500)})"
