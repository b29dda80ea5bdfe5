"""Networks that make pictures larger, as their files describe them: read from the header alone.

Two architectures cover nearly all files there are. RRDBNet (ESRGAN, Wang et al. 2018; Real-ESRGAN, Wang et
al. 2021) comes under three sets of names: Real-ESRGAN's, BSRGAN's, and those of the first ESRGAN, which most
files of its community have. SRVGGNetCompact is Real-ESRGAN's small one. How large a network is, and how many
times as large its pictures are, follows from the shapes of its tensors.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kinema.core.errors import ModelError
from kinema.models.weight_files import PICKLES, check_start

Shape = tuple[int, ...]

DTYPES = ("F16", "BF16", "F32", "F64")
_WRAPPERS = ("params_ema.", "params.", "module.", "generator.", "netG.")  # the averaged weights first
_BSRGAN = (
    (re.compile(r"RRDB_trunk\.(\d+)\.RDB(\d)\.conv(\d)\."), r"body.\1.rdb\2.conv\3."),
    (re.compile(r"trunk_conv\."), "conv_body."),
    (re.compile(r"upconv(\d)\."), r"conv_up\1."),
    (re.compile(r"HRconv\."), "conv_hr."),
)
_ESRGAN_BLOCK = re.compile(r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.(weight|bias)")
_ESRGAN_TRUNK = re.compile(r"model\.1\.sub\.\d+\.(weight|bias)")
_ESRGAN_LAYER = re.compile(r"model\.(\d{1,3})\.(weight|bias)")
_BODY = re.compile(r"body\.(\d{1,3})\.")  # what has a higher number is no part of any network
_KNOWN = "RRDBNet (ESRGAN, Real-ESRGAN) and SRVGGNetCompact"
_CONVERT = (
    "convert it once, where you trust it: "
    "w = torch.load(FILE, weights_only=True); "
    "safetensors.torch.save_file(w.get('params_ema', w.get('params', w)), 'FILE.safetensors')"
)
MOST_BLOCKS, MOST_WIDTH, MOST_SCALE = 200, 1024, 16
MOST_DOUBLINGS = 6  # 64 times as large, of squares of four pixels that are taken as one
_MOST_SIDE = 2**31  # of a tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class UpscalerFile:
    """A network in a file.

    Attributes:
        path: of the file.
        kind: of network.
        scale: times as large as what it is given.
        blocks: how many it has one after the other.
        width: channels between them.
        growth: channels that each layer of a dense block adds; 0 where there are none.
        doublings: how often RRDBNet doubles its sides at the end.
        fold: side of the squares of pixels that RRDBNet takes as one.
        names: of every tensor, as it stands in the file.
    """

    path: Path
    kind: Literal["RRDBNet", "SRVGGNetCompact"]
    scale: int
    blocks: int
    width: int
    growth: int = 0
    doublings: int = 0
    fold: int = 1
    names: Mapping[str, str]

    def shapes(self) -> dict[str, Shape]:
        """Every tensor that the network has."""
        layers = _rrdb_layers(self) if self.kind == "RRDBNet" else _compact_layers(self)
        found: dict[str, Shape] = {}
        for name, gets, gives in layers:
            found |= {f"{name}.weight": (gives, gets, 3, 3), f"{name}.bias": (gives,)}
        if self.kind == "SRVGGNetCompact":
            found |= {f"body.{2 * i + 1}.weight": (self.width,) for i in range(self.blocks + 1)}
        return found

    def operations(self, width: int, height: int) -> float:
        """Floating-point operations for one picture of this size."""
        layers = _rrdb_layers(self) if self.kind == "RRDBNet" else _compact_layers(self)
        total = 0.0
        for name, gets, gives in layers:
            up = re.fullmatch(r"conv_up(\d+)", name)
            doubled = int(up[1]) if up else self.doublings if name in ("conv_hr", "conv_last") else 0
            total += 2 * 9 * gets * gives * 4.0**doubled
        return total * width * height / self.fold**2


def _rrdb_layers(net: UpscalerFile) -> Iterator[tuple[str, int, int]]:
    """Name, channels in and channels out of every convolution."""
    yield "conv_first", 3 * net.fold**2, net.width
    for i in range(net.blocks):
        for j in (1, 2, 3):
            for k in range(1, 6):
                gives = net.growth if k < 5 else net.width
                yield f"body.{i}.rdb{j}.conv{k}", net.width + (k - 1) * net.growth, gives
    for name in ("conv_body", *(f"conv_up{n + 1}" for n in range(net.doublings)), "conv_hr"):
        yield name, net.width, net.width
    yield "conv_last", net.width, 3


def _compact_layers(net: UpscalerFile) -> Iterator[tuple[str, int, int]]:
    yield "body.0", 3, net.width
    for i in range(1, net.blocks + 1):
        yield f"body.{2 * i}", net.width, net.width
    yield f"body.{2 * net.blocks + 2}", net.width, 3 * net.scale**2


def read_upscaler(path: str | Path) -> UpscalerFile:
    """What network is in a file; no weight is read.

    Raises:
        ModelError: it is missing, a pickle, damaged, or no network of these architectures.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path} is not a file; give the .safetensors file of an upscaling network.")
    if path.suffix.lower() in PICKLES:
        raise ModelError(f"{path} is a pickle by its name, which can run code when opened; {_CONVERT}.")
    try:
        check_start(path)
    except ModelError as error:
        more = f" To convert: {_CONVERT.partition(': ')[2]}." if "convert it" in str(error) else ""
        raise ModelError(f"{error}{more}") from None
    header = _header(path)
    wrapper = next((w for w in _WRAPPERS if any(name.startswith(w) for name in header)), "")
    own = {name.removeprefix(wrapper): name for name in header if name.startswith(wrapper)}
    shapes = {name: tuple(header[stored]["shape"]) for name, stored in own.items()}
    names = _canonical(shapes)
    known = {name: shapes[theirs] for name, theirs in names.items()}
    found = _recognized(path, known, {name: own[theirs] for name, theirs in names.items()})
    _check(found, known, {name: str(header[found.names[name]]["dtype"]) for name in known})
    return found


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ModelError(f"{path} is damaged: its header is no table of tensors; fetch it again.")
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    for name, entry in tensors.items():
        found = entry if isinstance(entry, dict) else {}
        for what, there in (
            ("shape", _is_shape(found.get("shape"))),
            ("dtype", _is_dtype(found.get("dtype"))),
        ):
            if not there:
                raise ModelError(f"{path} is damaged: {name[:60]!r} has no {what}; fetch it again.")
    return tensors


def _is_shape(value: object) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < _MOST_SIDE for n in value)


def _is_dtype(value: object) -> bool:
    return isinstance(value, str) and len(value) < 20


def _canonical(shapes: Mapping[str, Shape]) -> dict[str, str]:
    """The file's names by those of Real-ESRGAN."""
    if "model.0.weight" in shapes:
        return _of_first_esrgan(shapes)
    found = {}
    for name in shapes:
        ours = name
        for pattern, written in _BSRGAN:
            ours = pattern.sub(written, ours)
        found[ours] = name
    return found


def _of_first_esrgan(shapes: Mapping[str, Shape]) -> dict[str, str]:
    """There every layer has a number: 0, 1 for the blocks, 3 and 6 for the doublings, and the last two."""
    last = max(int(match[1]) for match in map(_ESRGAN_LAYER.fullmatch, shapes) if match)
    places = {0: "conv_first", last - 2: "conv_hr", last: "conv_last"}
    places |= {3 * n: f"conv_up{n}" for n in range(1, (last - 4) // 3 + 1)}
    found = {}
    for name in shapes:
        if match := _ESRGAN_BLOCK.fullmatch(name):
            found["body.{}.rdb{}.conv{}.{}".format(*match.groups())] = name
        elif match := _ESRGAN_TRUNK.fullmatch(name):
            found[f"conv_body.{match[1]}"] = name
        elif (match := _ESRGAN_LAYER.fullmatch(name)) and int(match[1]) in places:
            found[f"{places[int(match[1])]}.{match[2]}"] = name
        else:
            found[name] = name
    return found


def _recognized(path: Path, shapes: Mapping[str, Shape], names: Mapping[str, str]) -> UpscalerFile:
    """The network that these tensors are of, as its first and last ones say."""
    first, compact = shapes.get("conv_first.weight", ()), shapes.get("body.0.weight", ())
    if len(first) == 4 and "body.0.rdb1.conv1.weight" in shapes:
        grown = shapes["body.0.rdb1.conv1.weight"] or (0,)
        doublings = sum(bool(re.fullmatch(r"conv_up\d+\.weight", name)) for name in shapes)
        if doublings > MOST_DOUBLINGS:
            raise ModelError(
                f"{path} claims {doublings} doublings, which no such network has; fetch it again."
            )
        fold = math.isqrt(first[1] // 3)
        if 3 * fold**2 != first[1] or fold not in (1, 2, 4) or 2**doublings % fold:
            raise ModelError(f"{path} takes {first[1]} channels; only networks of RGB pictures are read.")
        return UpscalerFile(
            path=path, kind="RRDBNet", scale=2**doublings // fold, blocks=_count(shapes),
            width=first[0], growth=grown[0], doublings=doublings, fold=fold, names=names,
        )  # fmt: skip
    if len(compact) == 4 and len(shapes.get("body.1.weight", ())) == 1:
        layers = _count(shapes)
        gives = (shapes.get(f"body.{layers - 1}.weight") or (0,))[0]
        scale = math.isqrt(gives // 3)
        if compact[1] != 3 or not scale or 3 * scale**2 != gives or layers % 2 == 0:
            raise ModelError(f"{path} goes from {compact[1]} channels to {gives}; RGB networks are read.")
        return UpscalerFile(
            path=path, kind="SRVGGNetCompact", scale=scale, blocks=(layers - 3) // 2, width=compact[0],
            names=names,
        )  # fmt: skip
    some = ", ".join(repr(name[:60])[1:-1] for name in sorted(shapes)[:3]) or "nothing"
    raise ModelError(f"{path} is no upscaling network that is read here (it has {some}); {_KNOWN} are.")


def _count(shapes: Mapping[str, Shape]) -> int:
    return 1 + max(int(match[1]) for match in map(_BODY.match, shapes) if match)


def _check(net: UpscalerFile, shapes: Mapping[str, Shape], dtypes: Mapping[str, str]) -> None:
    """All tensors of the network are there and no others, in its shapes and in numbers that can be read."""
    if (
        net.blocks > MOST_BLOCKS
        or max(net.width, net.growth) > MOST_WIDTH
        or not 1 <= net.scale <= MOST_SCALE
    ):
        what = f"{net.blocks} blocks of {net.width} channels, scale {net.scale}"
        raise ModelError(f"{net.path} claims {what}, which no such network has; fetch it again.")
    wanted = net.shapes()
    for name, shape in wanted.items():
        if shapes.get(name) != shape:
            found = list(shapes[name]) if name in shapes else "missing"
            raise ModelError(
                f"{net.path} is no whole {net.kind}: {net.names.get(name, name)} is {found}, not "
                f"{list(shape)}; fetch it again, or use another ({_KNOWN} are read)."
            )
    for name in shapes:
        if name not in wanted:
            raise ModelError(
                f"{net.path} has {net.names[name][:60]!r} beside a {net.kind}, a variant that is not read "
                f"here; {_KNOWN} are."
            )
        if dtypes[name] not in DTYPES:
            raise ModelError(f"{net.path} keeps {net.names[name]} as {dtypes[name]}; save it as F32 or F16.")
