"""What was measured of a model: for each tier the means that were fastest, and how near to exact they came.

One JSON file per model, named by its fingerprint: in the package for the embedded model, in the user's cache
for others (`kinema calibrate MODEL`). No weights are loaded to find it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kinema.core.errors import ConfigError
from kinema.core.places import cache_folder
from kinema.io.atomic import publish, staging
from kinema.pipelines.card import ModelCard
from kinema.story.shortcuts import Shortcuts

FORMAT = 1
PACKAGED = Path(__file__).resolve().parents[2] / "assets" / "speed"
TARGETS = {"near": 35.0, "fast": 28.0}
"""PSNR in dB against the exact clip: for near of every measured clip, for fast of nine tenths of them."""
_SAMPLES, _SAMPLE_BYTES = 64, 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """The exact run that tiers were measured against.

    Attributes:
        steps, solver, grid, shift, method, interval: a tier is for runs with these very values.
        guidance: its error grows with it.
        width, height, frames: of the measured clips.
    """

    steps: int
    solver: str
    grid: str
    shift: float
    method: str
    interval: tuple[float, float]
    guidance: float
    width: int
    height: int
    frames: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One way to be faster, as it was measured.

    Attributes:
        steps: of the sampler.
        shortcuts: what is not computed in every step.
        psnr: mean over the clips, dB against the exact ones.
        low: of the lowest tenth of them.
        worst: of the lowest.
        forwards: of the transformer.
        seconds: of one clip, median; None where none was measured.
    """

    steps: int
    shortcuts: Shortcuts
    psnr: float
    low: float
    worst: float
    forwards: int
    seconds: float | None = None

    def reaches(self, tier: str) -> bool:
        """Whether it is near enough for a tier."""
        return (self.worst if tier == "near" else self.low) >= TARGETS[tier]


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """All that was measured of a model under one set of conditions.

    Attributes:
        conditions: of the exact run.
        forwards, seconds: of the exact run.
        clips: how many were compared.
        tiers: the fastest that reached each target.
        others: what else was tried.
    """

    conditions: Conditions
    forwards: int
    clips: int
    tiers: Mapping[str, Measured]
    seconds: float | None = None
    others: tuple[Measured, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "conditions": asdict(self.conditions),
            "forwards": self.forwards,
            "seconds": self.seconds,
            "clips": self.clips,
            "tiers": {name: _measured_json(measured) for name, measured in self.tiers.items()},
            "others": [_measured_json(measured) for measured in self.others],
        }

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Calibration:
        """Inverse of `to_json`; `KeyError`, `TypeError` or `ConfigError` for anything else."""
        conditions = dict(values["conditions"])
        conditions["interval"] = tuple(conditions["interval"])
        return Calibration(
            conditions=Conditions(**conditions),
            forwards=values["forwards"],
            seconds=values["seconds"],
            clips=values["clips"],
            tiers={name: _measured(part) for name, part in values["tiers"].items()},
            others=tuple(map(_measured, values["others"])),
        )


def _measured_json(measured: Measured) -> dict[str, Any]:
    found = {
        name: getattr(measured, name) for name in ("steps", "psnr", "low", "worst", "forwards", "seconds")
    }
    return {**found, "shortcuts": measured.shortcuts.to_mapping()}


def _measured(values: Mapping[str, Any]) -> Measured:
    return Measured(**{**values, "shortcuts": Shortcuts.from_mapping(values["shortcuts"])})


def forwards(shortcuts: Shortcuts, steps: int, *, guided: bool = True) -> int:
    """Forwards of the transformer with a schedule, guidance and its reuse known ahead."""
    skipped, reused = shortcuts.skipped(steps), set(shortcuts.reuse)
    return sum(0 if j in skipped else 1 if j in reused or not guided else 2 for j in range(steps))


def fingerprint(card: ModelCard) -> str | None:
    """What tells this transformer from others: its configuration and bytes from all over its weights.

    Quick for files of any size; None where they are not on this machine yet.
    """
    folders = sorted(card.folder.glob("transformer*"))
    files = [path for group in card.files for path in group]
    files = files or [path for folder in folders for path in sorted(folder.glob("*.safetensors"))]
    if not files:
        return None
    digest = hashlib.sha256(json.dumps(dict(card.transformer), sort_keys=True, default=str).encode())
    for path in files:
        size = path.stat().st_size
        digest.update(str(size).encode())
        with path.open("rb") as file:
            for part in range(_SAMPLES):
                file.seek(size * part // _SAMPLES)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def calibrations(card: ModelCard) -> Iterator[Calibration]:
    """What was measured of a model, the user's own first."""
    mark = fingerprint(card)
    for folder in (cache_folder() / "speed", PACKAGED) if mark else ():
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, ConfigError):
            kept = json.loads((folder / f"{mark}.json").read_text(encoding="utf-8"))
            if kept["format"] == FORMAT:
                yield from map(Calibration.from_json, kept["calibrations"])


def store(card: ModelCard, calibration: Calibration, folder: Path | None = None) -> Path:
    """Keep a calibration, in place of an earlier one under the same conditions.

    Args:
        card: of the model, whose weights are on this machine.
        calibration: what was measured.
        folder: where; None for the user's cache.
    """
    mark, folder = fingerprint(card), folder or cache_folder() / "speed"
    assert mark is not None, "the model was loaded to measure it"
    place = folder / f"{mark}.json"
    kept: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, ValueError, KeyError):
        kept = json.loads(place.read_text(encoding="utf-8"))["calibrations"]
    ours = calibration.to_json()
    kept = [ours, *(other for other in kept if other["conditions"] != ours["conditions"])]
    folder.mkdir(parents=True, exist_ok=True)
    with staging(folder) as work:
        text = json.dumps({"format": FORMAT, "model": card.id, "calibrations": kept}, indent=1)
        (work / place.name).write_text(text + "\n", encoding="utf-8")
        publish(work / place.name, place, overwrite=True)
    return place
