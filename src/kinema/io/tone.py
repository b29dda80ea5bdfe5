"""HDR and wide-gamut video as sRGB: what a screen of 203 cd/m2 shows of a scene graded for 1000.

    light = EOTF(code)                       cd/m2, in the file's primaries (PQ: ST 2084; HLG: BT.2100)
    m = max(r, g, b);  light *= EETF(m) / m  highlights rolled off along BT.2390's curve, hue kept
    rgb = clip(M light / 203)                primaries to BT.709 by way of CIE XYZ
    frame = sRGB(rgb)

203 cd/m2 is HDR reference white (BT.2408) and the white of the result. SDR in other primaries takes the first
and the last two lines with sRGB's own curve, under which grays stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

WHITE = 203.0  # cd/m2
PEAK = 1000.0  # cd/m2 that the source is taken to reach; most HDR10 and all HLG displays are graded so

Floats = NDArray[np.float32]

# PQ, SMPTE ST 2084
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
# HLG, ARIB STD-B67 and BT.2100
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073
_HLG_GAMMA = 1.2  # of a display of 1000 cd/m2

_D65, _DCI = (0.3127, 0.3290), (0.314, 0.351)
# x and y of red, green, blue and white
_PRIMARIES = {
    "bt709": ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),
    "bt2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    "smpte431": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _DCI),
    "smpte432": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
}
HDR = ("smpte2084", "arib-std-b67")
WIDE = tuple(name for name in _PRIMARIES if name != "bt709")
_BAND = 1 << 20  # pixels worked on at a time


@dataclass(frozen=True, slots=True)
class ToSRGB:
    """A conversion of 16-bit frames.

    Attributes:
        transfer: ffmpeg's name of the source's curve; any but PQ's and HLG's counts as sRGB's.
        primaries: ffmpeg's name of the source's primaries; unknown ones count as BT.709's.
    """

    transfer: str
    primaries: str

    def __call__(self, frame: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """uint16 `[H, W, 3 or 4]`, full range, to uint8 sRGB of the same shape; alpha stays as it is."""
        out = np.empty(frame.shape, np.uint8)
        rows = max(1, _BAND // frame.shape[1])
        for top in range(0, len(frame), rows):
            band = frame[top : top + rows]
            out[top : top + rows, :, :3] = self._band(band[..., :3])
            if frame.shape[2] == 4:
                out[top : top + rows, :, 3] = (band[..., 3].astype(np.uint32) + 128) // 257
        return out

    def _band(self, code: NDArray[np.uint16]) -> NDArray[np.uint8]:
        light = _table(self.transfer)[code]
        if self.transfer == "arib-std-b67":
            light = _hlg_display(light)
        if self.transfer in HDR:
            light *= _roll_off(light.max(axis=2, keepdims=True))
        rgb = light @ to_bt709(self.primaries).T.astype(np.float32)
        return (srgb_encode(np.clip(rgb, 0, 1)) * 255 + 0.5).astype(np.uint8)


@cache
def _table(transfer: str) -> Floats:
    """Light of each of the 65536 codes: cd/m2 for PQ, scene light 0..1 for HLG, else 0..1 of white."""
    curve: Callable[[NDArray], NDArray] = srgb_decode
    if transfer in HDR:
        curve = pq_decode if transfer == "smpte2084" else hlg_decode
    return curve(np.arange(65536) / 65535).astype(np.float32)


def _hlg_display(scene: Floats) -> Floats:
    """HLG's OOTF: `1000 Y^0.2 E` cd/m2, with Y the luminance of the scene light E by BT.2020."""
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593], np.float32)
    shown: Floats = PEAK * luminance[..., None] ** np.float32(_HLG_GAMMA - 1) * scene
    return shown


def _roll_off(most: Floats) -> Floats:
    """Factor from cd/m2 to shares of white, for pixels whose strongest channel has `most` cd/m2."""
    safe = np.maximum(most, 1e-6)
    factor: Floats = (pq_decode(eetf(pq_encode(safe))) / (WHITE * safe)).astype(np.float32)
    return factor


def eetf(code: NDArray) -> NDArray:
    """BT.2390's curve on PQ codes, from a source of `PEAK` to a screen of `WHITE` cd/m2 (black is 0 on both).

    With e = code / PQ(PEAK) and L = PQ(WHITE) / PQ(PEAK): codes below the knee 1.5 L - 0.5 stay; above it a
    Hermite spline leads to L at e = 1.
    """
    peak = pq_encode(np.array(PEAK))
    limit = pq_encode(np.array(WHITE)) / peak
    knee = 1.5 * limit - 0.5
    e = np.minimum(code / peak, 1.0)
    t = (np.maximum(e, knee) - knee) / (1 - knee)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * limit
    )
    return np.where(e < knee, e, spline) * peak


def pq_decode(code: NDArray) -> NDArray:
    """cd/m2 of a PQ code in 0..1."""
    power = np.maximum(code, 0) ** (1 / _M2)
    return 10_000 * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1)


def pq_encode(light: NDArray) -> NDArray:
    """PQ code in 0..1 of cd/m2."""
    power = (light / 10_000) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2


def hlg_decode(code: NDArray) -> NDArray:
    """Scene light 0..1 of an HLG code in 0..1."""
    low = code**2 / 3
    return np.where(code <= 0.5, low, (np.exp((np.maximum(code, 0.5) - _C) / _A) + _B) / 12)


def srgb_decode(code: NDArray) -> NDArray:
    """Light 0..1 of an sRGB code in 0..1."""
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


def srgb_encode(light: NDArray) -> NDArray:
    """sRGB code in 0..1 of light 0..1."""
    return np.where(
        light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055
    )


@cache
def to_bt709(primaries: str) -> NDArray[np.float64]:
    """The matrix from linear light in these primaries to BT.709's; white stays white."""
    if primaries not in WIDE:
        return np.eye(3)
    matrix: NDArray[np.float64] = np.linalg.inv(_to_xyz("bt709")) @ _to_xyz(primaries)
    return matrix / matrix.sum(axis=1, keepdims=True)  # where whites differ, the source's becomes ours


def _to_xyz(primaries: str) -> NDArray[np.float64]:
    """Linear light to CIE XYZ: columns are the primaries, scaled so that (1, 1, 1) is the white point."""
    *colours, white = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in _PRIMARIES[primaries])
    columns = np.stack(colours, axis=1)
    scaled: NDArray[np.float64] = columns * np.linalg.solve(columns, white)
    return scaled
