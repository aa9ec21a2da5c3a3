"""The results file: a line of JSON for every picture, written as they come, from which an interrupted run resumes.

    results.jsonl.part   while the run lasts: a header line, and a line for each picture so far
    results.jsonl        when it is complete; the .part is renamed

Contract: what was written is whole lines; a line that a killed run left half written is cut off when the run goes on.
The header says what was measured with what, and a file with another header is refused. Every other line ends with a
checksum of the rest of it, and what a line says is checked when it is read: a changed digit is an error, never another
table. Figures are written with nine digits, which give the float32 back that was computed. Tables are made from the
lines in the order of the pictures' numbers, whatever their order in the file is, so that a resumed or shared run makes
the same one.

Not found out: lines that are missing at the end of the complete file of a data set without a length.
"""

import contextlib
import json
import math
import os
import re
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from jaxcam.checks import is_integer
from jaxcam.evaluation.protocol import differences
from jaxcam.evaluation.statistics import Rows
from jaxcam.evaluation.tallies import TALLIES
from jaxcam.explanation.explanation import Status
from jaxcam.files import check_regular, lock, naming
from jaxcam.tables import shown

_CHUNK = 256
_LONGEST = 2**24
"""Bytes of a line: a file without any line break must not be read into memory."""
_SEAL = re.compile(rb', "crc32": "([0-9a-f]{8})"}\n')
_SEAL_LENGTH = len(', "crc32": "00000000"}\n')
_LARGEST = 2**31
_LONGEST_RUN = 2**63
"""Pictures of a data set without a length: their numbers are 64-bit integers."""
_MOST = float(np.finfo(np.float32).max)
_BEGINNING = b'{"jaxcam_evaluation"'


class Record(NamedTuple):
    """What was found on one picture."""

    index: int  # pyright: ignore[reportIncompatibleMethodOverride]
    name: str
    class_idx: int = -1
    label: int = -1
    y: float = math.nan
    o: Sequence[float] = ()
    status: Sequence[int] = ()
    values: Sequence[Sequence[float]] = ()
    """For each method, for each metric."""
    tallies: Mapping[str, Sequence[Sequence[int] | None]] = MappingProxyType({})
    """By metric, for each method, of those that are no means: `evaluation.tallies`; None where it does not count."""
    error: str | None = None
    """Why there is nothing."""


class Journal:
    """Records on disk; without a path in a nameless temporary file, so that memory does not grow with them."""

    def __init__(self, path: Path | None, header: dict[str, Any]) -> None:
        """Opens the file of a run that goes on, or of a new one.

        Raises:
            ValueError: the file holds another evaluation, is damaged, or another run is writing it.
        """
        self._path, self._header = path, json.loads(json.dumps(header))
        if path is not None:
            check_regular("results", path)
            check_regular("results", self._part)
        self.is_complete = path is not None and path.exists()
        self._places: dict[int, int] = {}  # where the line of a picture begins
        if path is None:
            self._stream: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115
        else:
            with naming(path):
                self._stream = (path if self.is_complete else self._part).open("rb" if self.is_complete else "a+b")
        try:
            if path is not None and not self.is_complete:
                lock("results", self._stream, self._part)
            self._begin()
        except BaseException:
            self._stream.close()
            raise

    @property
    def done(self) -> Set[int]:
        """The numbers of the pictures in it."""
        return self._places.keys()

    @property
    def _part(self) -> Path:
        assert self._path is not None
        return self._path.with_name(self._path.name + ".part")

    def append(self, records: Sequence[Record]) -> None:
        """Writes them, for anyone to see."""
        with naming(tempfile.gettempdir() if self._path is None else self._part):
            place = self._stream.seek(0, os.SEEK_END)
            for record in records:
                line = _line(record)
                self._stream.write(line)
                self._places[record.index] = place
                place += len(line)
            self._stream.flush()

    def finish(self) -> None:
        """Gives the complete file its name."""
        if self._path is None or self.is_complete:
            return
        with naming(self._path):
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._part.replace(self._path)
        self.is_complete = True

    def close(self) -> None:
        """Lets go of the file; one in which there is nothing yet is removed."""
        with contextlib.suppress(OSError):  # of lines that `append` could not write, which told it
            self._stream.close()
        if self._path is not None and not self.is_complete and not self.done:
            self._part.unlink(missing_ok=True)

    def __del__(self, suppress: Any = contextlib.suppress) -> None:  # modules are gone when the interpreter ends
        if hasattr(self, "_stream"):
            with suppress(OSError, TypeError):  # TypeError: os is half gone
                self._stream.close()

    def records(self, indices: Set[int] | None = None) -> Iterator[Record]:
        """Those of these pictures, or all, in the order of the pictures' numbers."""
        for index in sorted(self._places if indices is None else indices):
            self._stream.seek(self._places[index])
            yield self._record(self._stream.readline(), f"the line of picture {index}")

    def rows(self) -> Iterator[tuple[Rows, list[Record]]]:
        """What was measured, some hundred pictures at a time, and those of which there is nothing."""
        return rows_of(self.records(), len(self._header["methods"]), self._header["metrics"])

    def _begin(self) -> None:
        """Reads what is there, cuts off half a line, and writes the header where there is nothing."""
        self._stream.seek(0, os.SEEK_END)
        size, whole = self._stream.tell(), 0
        self._stream.seek(0)
        first = True
        for number, line in enumerate(iter(lambda: self._stream.readline(_LONGEST), b""), 1):
            if not line.endswith(b"\n"):
                if first and (self.is_complete or not line.startswith(_BEGINNING[: len(line)])):
                    raise self._not_ours()
                if self.is_complete or len(line) == _LONGEST:
                    raise self._damaged(f"line {number}", "it has no end")
                break
            if first:
                self._check_header(line)
            else:
                index = self._record(line, f"line {number}").index
                if index in self._places:
                    raise ValueError(f"{self._where} has picture {index} twice: it was changed by hand; remove it")
                self._places[index] = whole
            first, whole = False, whole + len(line)
        if first and self.is_complete:
            raise self._not_ours()
        if self.is_complete and self._number is None and self.done != set(range(len(self.done))):
            raise self._damaged("a line", "it is missing")
        if whole < size and not self.is_complete:
            self._stream.truncate(whole)
        if first:
            with naming(tempfile.gettempdir() if self._path is None else self._part):
                self._stream.seek(0, os.SEEK_END)
                self._stream.write(json.dumps(self._header).encode() + b"\n")
                self._stream.flush()

    @property
    def _number(self) -> int | None:
        """How many pictures there are, where that is known before the end."""
        return self._header.get("dataset", {}).get("number")

    @property
    def _where(self) -> str:
        return f"results: {os.fspath(self._path or '')!r}"

    def _not_ours(self) -> ValueError:
        return ValueError(f"{self._where} is not a file that evaluate has written: choose another name, or remove it")

    def _check_header(self, line: bytes) -> None:
        try:
            header = json.loads(line)
            is_ours = isinstance(header, dict) and "jaxcam_evaluation" in header
        except (ValueError, RecursionError):
            is_ours, header = False, {}
        if not is_ours:
            raise self._not_ours()
        unlike = differences(header, self._header)
        if unlike:
            raise ValueError(
                f"{self._where} holds another evaluation, there and here: {shown(unlike, 500)}. Choose another file, "
                "or remove this one"
            )

    def _damaged(self, which: str, why: str) -> ValueError:
        return ValueError(f"results: {which} of {os.fspath(self._path or '')!r} is damaged ({why}): remove the file")

    def _record(self, line: bytes, which: str) -> Record:
        try:
            return _checked(_fields(line), self._number, len(self._header["methods"]), self._header["metrics"])
        except (ValueError, RecursionError) as error:
            raise self._damaged(which, shown(str(error), 200)) from None


def rows_of(records: Iterable[Record], num_methods: int, metrics: Sequence[str]) -> Iterator[tuple[Rows, list[Record]]]:
    """Records as arrays, some hundred at a time, and beside them those of which there is nothing."""
    waiting, lengths = iter(records), _lengths(metrics)
    while chunk := list(islice(waiting, _CHUNK)):
        good = [record for record in chunk if record.error is None]
        shape = len(good), num_methods, len(metrics)

        def floats(values: list[Any], *shape: int) -> np.ndarray:
            return np.asarray(values, np.float32).astype(np.float64).reshape(shape)

        rows = Rows(
            y=floats([record.y for record in good], *shape[:1]),
            o=floats([record.o for record in good], *shape[:2]),
            values=floats([record.values for record in good], *shape),
            status=np.asarray([record.status for record in good], np.int32).reshape(shape[:2]),
            tallies={
                key: floats(
                    [[[math.nan] * length if one is None else one for one in record.tallies[key]] for record in good],
                    *shape[:2],
                    length,
                )
                for key, length in lengths.items()
            },
        )
        yield rows, [record for record in chunk if record.error is not None]


def _lengths(metrics: Sequence[str]) -> dict[str, int]:
    """How many numbers the tallies of those metrics have that are made from one."""
    return {key: TALLIES[key].length for key in metrics if key in TALLIES}


def _line(record: Record) -> bytes:
    if record.error is not None:
        fields: dict[str, Any] = {name: getattr(record, name) for name in _BAD}
    else:
        fields = {name: _without_nan(getattr(record, name)) for name in _GOOD}
        fields |= {"tallies": dict(record.tallies)} if record.tallies else {}
    body = json.dumps(fields, allow_nan=False).encode()
    return body[:-1] + f', "crc32": "{zlib.crc32(body):08x}"}}\n'.encode()


_BAD = ("index", "name", "label", "error")
_GOOD = ("index", "name", "class_idx", "label", "y", "o", "status", "values")


def _fields(line: bytes) -> Any:
    """What a line says, if the checksum at its end is that of the rest."""
    seal = _SEAL.fullmatch(line, max(0, len(line) - _SEAL_LENGTH))
    if seal is None or zlib.crc32(line[: seal.start()] + b"}") != int(seal[1], 16):
        raise ValueError("its checksum does not fit")
    return json.loads(line[: seal.start()] + b"}")


def _checked(fields: Any, number: int | None, num_methods: int, metrics: Sequence[str]) -> Record:
    """A line as a record, if it says what a line has to say."""
    names, lengths = tuple(fields) if isinstance(fields, dict) else (), _lengths(metrics)
    good = (*_GOOD, "tallies") if lengths else _GOOD
    if names not in (_BAD, good):
        raise ValueError(f"it must have the fields {', '.join(good)}")
    last = _LONGEST_RUN if number is None else number
    whole = {"index": (0, last), "label": (-1, _LARGEST), "class_idx": (-1, _LARGEST)}
    for name, (low, high) in whole.items():
        if name in fields and not (is_integer(fields[name]) and low <= fields[name] < high):
            raise ValueError(f"{name} must be a whole number from {low} to {high - 1}")
    for name in ("name", "error"):
        if name in fields and not isinstance(fields[name], str):
            raise ValueError(f"{name} must be text")
    if names == _BAD:
        return Record(**fields)
    shapes = {"y": (), "o": (num_methods,), "values": (num_methods, len(metrics))}
    for name, shape in shapes.items():
        if not _is_array(fields[name], shape, _is_figure):
            raise ValueError(f"{name} must be figures of the shape {list(shape)}")
    if not _is_array(fields["status"], (num_methods,), lambda value: is_integer(value) and value in [*Status]):
        raise ValueError(f"status must be {num_methods} numbers of jaxcam.Status")
    tallies = fields.get("tallies", {})
    if not isinstance(tallies, dict) or list(tallies) != list(lengths):
        raise ValueError(f"tallies must be of {', '.join(lengths)}")
    for key, length in lengths.items():
        is_tally = partial(_is_tally, length=length)
        if not _is_array(tallies[key], (num_methods,), is_tally):
            raise ValueError(f"the tally of {key} must be {length} whole numbers, or nothing, for each method")
    return Record(**{name: _with_nan(fields[name]) for name in _GOOD}, tallies=tallies)


def _is_tally(value: Any, *, length: int) -> bool:
    return value is None or _is_array(value, (length,), lambda one: is_integer(one) and 0 <= one < _LARGEST)


def _is_array(value: Any, shape: tuple[int, ...], is_right: Callable[[Any], bool]) -> bool:
    """Whether it is lists in lists of that shape."""
    if not shape:
        return is_right(value)
    right_length = isinstance(value, list) and len(value) == shape[0]
    return right_length and all(_is_array(each, shape[1:], is_right) for each in value)


def _is_figure(value: Any) -> bool:
    """A number that float32 can hold, or none."""
    return value is None or (isinstance(value, float) and abs(value) <= _MOST)


def _without_nan(value: Any) -> Any:
    """NaN and infinity as null, which all readers of JSON understand; nine digits hold a float32."""
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else None
    return value


def _with_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_nan(each) for each in value]
    return math.nan if value is None else value
