"""Tensors left in their safetensors files until they are asked for.

    shelf = Shelf.of(weight_files(folder, "diffusion_pytorch_model"))
    weight = shelf.read("blocks.0.attn1.to_q.weight")

A file's header says where each tensor begins; a read takes its bytes from there, and nothing else of the
file is touched. No mapping stays open, so that what was read and dropped no longer counts as this process's
memory; the system keeps the file's pages cached for the next read as long as it has room.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kinema.core.errors import ModelError
from kinema.models.weight_files import check_start
from kinema.models.weights import require_finite

CACHE_LINE = 64
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies.

    Attributes:
        path: of the file.
        name: in the file.
        begin: of its first byte in the file.
        size: in bytes.
        dtype: as stored.
        shape: of the tensor.
    """

    path: Path
    name: str
    begin: int
    size: int
    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(eq=False)
class Shelf:
    """The tensors of one component, by the names that its module has for them.

    Attributes:
        places: of the tensors.
        scales: of tensors that are stored as fp8 with one number beside them; they are read as float32.
    """

    places: Mapping[str, Place]
    scales: Mapping[str, Place] = field(default_factory=dict)
    _sound: set[str] = field(default_factory=set, init=False, repr=False)

    @staticmethod
    def of(paths: Sequence[Path], rename: Callable[[str], str | None] = lambda name: name) -> Shelf:
        """All tensors of these files.

        Args:
            paths: safetensors files that share a component's tensors out among them.
            rename: the module's name of a tensor in a file; None for one that it does not want.

        Raises:
            ModelError: a file is damaged, or two of them have one tensor.
        """
        places: dict[str, Place] = {}
        for path in paths:
            for place in _places(path):
                name = rename(place.name)
                if name is None:
                    continue
                if name in places:
                    raise ModelError(f"{path} has {name}, and so has another shard; fetch them again.")
                places[name] = place
        return Shelf(places)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, without reading it."""
        return self.places[name].shape

    def read(self, name: str, *, pinned: bool = False) -> Tensor:
        """A tensor as stored, on the CPU, in memory of its own.

        Args:
            name: of the tensor.
            pinned: in memory that an accelerator can copy from while the CPU does something else.

        Raises:
            ModelError: the file ends too early, or the tensor holds NaN or infinity.
        """
        tensor = _read(self.places[name], pinned=pinned)
        if name in self.scales:
            tensor = tensor.float() * _read(self.scales[name]).float()
        if name not in self._sound:
            require_finite(name, tensor, self.places[name].path)
            self._sound.add(name)
        return tensor

    def rows(self, name: str, rows: Sequence[int]) -> Tensor:
        """Some rows of a matrix as stored, `[R, ...]`, without the others.

        Raises:
            ModelError: as `read`.
        """
        whole = self.places[name]
        size = whole.size // whole.shape[0]
        parts = [
            replace(whole, begin=whole.begin + at * size, size=size, shape=(1, *whole.shape[1:]))
            for at in rows
        ]
        found = torch.cat([_read(part) for part in parts])
        require_finite(name, found, whole.path)
        return found


def _read(place: Place, *, pinned: bool = False) -> Tensor:
    raw = _room(place, pinned)
    view, done = memoryview(raw.numpy()), 0  # type: ignore[arg-type]
    try:
        with place.path.open("rb", buffering=0) as file:
            file.seek(place.begin)
            while done < place.size and (count := file.readinto(view[done:])):
                done += count
    except OSError as error:
        raise ModelError(f"{place.path} cannot be read ({error.strerror}); fetch it again.") from None
    if done != place.size:
        raise ModelError(f"{place.path} ends inside of {place.name}; fetch it again.")
    return raw.view(place.dtype).view(place.shape)


def _room(place: Place, pinned: bool) -> Tensor:
    """Bytes for a tensor, as far behind a multiple of 64 as in the file.

    A product of one row sums in an order that depends on where its matrix begins; a mapped file has it there,
    and the sums are to be the same.
    """
    shift = place.begin % CACHE_LINE if place.begin % max(1, place.dtype.itemsize) == 0 else 0
    room = torch.empty(place.size + 2 * CACHE_LINE, dtype=torch.uint8, pin_memory=pinned)
    first = -room.data_ptr() % CACHE_LINE + shift
    return room[first : first + place.size]


def _places(path: Path) -> list[Place]:
    """Of every tensor of a file, whose header safetensors itself has found in order."""
    if not path.is_file():
        raise ModelError(f"{path} does not exist; check the path.")
    check_start(path)
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged or not safetensors ({error}); fetch it again.") from None
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    found = []
    for name in sorted(names):
        entry = header[name]
        if entry["dtype"] not in DTYPES:
            raise ModelError(f"{path} has {name} in {entry['dtype']}, which kinema does not read.")
        begin, end = entry["data_offsets"]
        at = Place(path, name, 8 + length + begin, end - begin, DTYPES[entry["dtype"]], tuple(entry["shape"]))
        found.append(at)
    return found
