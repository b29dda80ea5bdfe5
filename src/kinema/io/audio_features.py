"""What can be heard in samples: energy by frequency, beginnings, tempo and beats.

    e_h = sum_n (w_n x_{h s + n})^2 / sum_n w_n^2 = sum_k |X_hk|^2 / (N sum_n w_n^2)      (Parseval)
    onset_h = sum_b max(0, log(1 + c P_hb) - log(1 + c P_{h-1,b})), less its mean over a second

for Hann windows w of N samples, s samples apart, and P_hb the amplitude in band b. Tempo is the lag at which
the onsets repeat best, weighed towards 120 beats a minute; beats are the path through the onsets that keeps
to it (D. Ellis, Beat Tracking by Dynamic Programming, Journal of New Music Research 36, 2007).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RATE = 22_050
"""Samples per second that everything here expects."""
WINDOW, HOP = 2048, 512
"""Of the energies."""
FINE_WINDOW, FINE_HOP = 1024, 256
"""Of the onsets."""

LATE = 0.175 * FINE_WINDOW / RATE
"""A beginning is seen when it enters the window, so many seconds before its middle (measured on clicks)."""

_BATCH = 2048
_BANDS = 40
_COMPRESSION = 100.0
_SLOWEST, _FASTEST, _USUAL = 40.0, 240.0, 120.0  # beats per minute
_TIGHTNESS = 100.0
_SILENT = 1e-4  # of full scale: -80 dB


def energies(samples: NDArray[np.float32], low: float = 0.0, high: float = RATE) -> Array:
    """The mean square of the samples between two frequencies, low included, around each multiple of `HOP`."""
    frequencies = np.fft.rfftfreq(WINDOW, 1 / RATE)
    inside_K = heard_between(low, high)
    twice_K = np.where((frequencies > 0) & (frequencies < RATE / 2), 2.0, 1.0)
    window = np.hanning(WINDOW + 1)[:-1]
    scale = WINDOW * np.sum(window**2)
    parts = [
        (np.abs(spectra) ** 2 * twice_K)[:, inside_K].sum(axis=1) / scale
        for spectra in _spectra(samples, window, HOP)
    ]
    return np.concatenate(parts)


def heard_between(low: float, high: float) -> NDArray[np.bool_]:
    """Which of the frequencies that `energies` tells apart lie there, low included, `[K]`."""
    frequencies = np.fft.rfftfreq(WINDOW, 1 / RATE)
    inside: NDArray[np.bool_] = (frequencies >= low) & (frequencies < high)
    return inside


def onsets(samples: NDArray[np.float32]) -> Array:
    """How much begins around each multiple of `FINE_HOP`, 1 at most; 0 everywhere in silence."""
    window = np.hanning(FINE_WINDOW + 1)[:-1]
    bands_KB = _bands()
    parts, last_B = [], np.zeros(_BANDS)
    for spectra in _spectra(samples, window, FINE_HOP):
        loud_HB = np.log1p(_COMPRESSION * (np.abs(spectra) @ bands_KB) / np.sum(window))
        rise_HB = np.diff(loud_HB, axis=0, prepend=last_B[None])
        last_B = loud_HB[-1]
        parts.append(np.maximum(rise_HB, 0.0).sum(axis=1))
    flux = np.concatenate(parts)
    flux = np.maximum(flux - _running_mean(flux, round(RATE / FINE_HOP)), 0.0)
    top = float(flux.max(initial=0.0))
    return flux / top if top > _SILENT * _BANDS else np.zeros_like(flux)


def tempo(onset_H: Array) -> float:
    """Beats per minute; 0 where nothing repeats."""
    per_minute = 60.0 * RATE / FINE_HOP
    least, most = int(per_minute / _FASTEST), int(per_minute / _SLOWEST) + 1
    if len(onset_H) < 2 * most or not onset_H.any():
        most = len(onset_H) // 2
    if most <= least + 1 or not onset_H.any():
        return 0.0
    centred = onset_H - onset_H.mean()
    size = 1 << (2 * len(centred) - 1).bit_length()
    spectrum = np.abs(np.fft.rfft(_smoothed(centred, 2.0), size)) ** 2
    repeats_L = np.fft.irfft(spectrum)[: most + 1] / max(np.sum(centred**2), 1e-12)
    lag_L = np.arange(most + 1)
    weight_L = np.exp(-0.5 * np.log2(per_minute / np.maximum(lag_L, 1) / _USUAL) ** 2)
    score_L = np.where(lag_L >= least, repeats_L * weight_L, -np.inf)
    best = int(np.argmax(score_L))
    return 0.0 if repeats_L[best] < 0.05 else per_minute / _peak(repeats_L, best)


def beats(onset_H: Array, per_minute: float) -> Array:
    """The seconds of the beats at about this tempo, rising; none in silence."""
    if per_minute <= 0.0 or not onset_H.any():
        return np.zeros(0)
    period = 60.0 * RATE / FINE_HOP / per_minute
    strength = _smoothed(onset_H / max(float(onset_H.std()), 1e-9), period / 32.0)
    score, before = _best_paths(strength, period)
    first = max(0, len(score) - round(period))  # the last beat is among the last period's frames
    path = [first + int(np.argmax(score[first:]))]
    while before[path[-1]] >= 0:
        path.append(int(before[path[-1]]))
    found = np.array(path[::-1])
    strong = np.flatnonzero(strength[found] > 0.1 * np.median(strength[found]))
    found = found[strong[0] : strong[-1] + 1]
    at = np.array([_peak(strength, int(h)) for h in found]) * FINE_HOP / RATE + LATE
    return np.where(found == 0, 0.0, at)  # of the first frame, only a part has been heard


def steady_tempo(beat_N: Array, guess: float) -> float:
    """Beats per minute of the straight line through the beats; `guess` when there are too few."""
    if len(beat_N) < 4:
        return guess
    slope = np.polyfit(np.arange(len(beat_N)), beat_N, 1)[0]
    return float(60.0 / slope)


def _best_paths(strength: Array, period: float) -> tuple[Array, NDArray[np.intp]]:
    """The best score of a beat at each frame, and the beat before it (-1 for the first)."""
    nearest, farthest = max(1, round(period / 2)), round(2 * period)
    step = np.arange(-farthest, -nearest + 1)
    penalty = -_TIGHTNESS * np.log(-step / period) ** 2
    score, before = strength.copy(), np.full(len(strength), -1)
    started = False
    for frame in range(len(strength)):
        at = frame + step
        inside = at >= 0
        if not inside.any():
            continue
        ways = score[at[inside]] + penalty[inside]
        best = int(np.argmax(ways))
        started = started or strength[frame] > 0.01 * strength.max()
        if ways[best] > 0 and started:
            score[frame] = strength[frame] + ways[best]
            before[frame] = at[inside][best]
    return score, before


def _spectra(samples: NDArray[np.float32], window: Array, hop: int) -> Iterator[NDArray[np.complex128]]:
    """Spectra `[H, K]` of windows around 0, hop, 2 hop, ..., some thousand at a time."""
    size = len(window)
    padded = np.concatenate([np.zeros(size // 2, np.float32), samples, np.zeros(size, np.float32)])
    count = 1 + len(samples) // hop
    for start in range(0, count, _BATCH):
        stop = min(start + _BATCH, count)
        index = np.arange(start, stop)[:, None] * hop + np.arange(size)
        yield np.fft.rfft(padded[index] * window, axis=1)


def _bands() -> Array:
    """Triangles `[K, B]` over frequencies that are evenly apart on a logarithmic scale, 30 Hz to 10 kHz."""
    frequencies = np.fft.rfftfreq(FINE_WINDOW, 1 / RATE)
    edges = np.geomspace(30.0, 10_000.0, _BANDS + 2)
    rising = (frequencies[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies[:, None]) / (edges[2:] - edges[1:-1])
    return np.clip(np.minimum(rising, falling), 0.0, None)


def _running_mean(x: Array, width: int) -> Array:
    total = np.cumsum(np.concatenate([np.zeros(1), np.pad(x, width // 2, mode="edge")]))
    means: Array = (total[width:] - total[:-width])[: len(x)] / width
    return np.pad(means, (0, len(x) - len(means)), mode="edge")


def _smoothed(x: Array, deviation: float) -> Array:
    reach = max(1, round(3 * deviation))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(deviation, 1e-6)) ** 2)
    smooth: Array = np.convolve(x, kernel / kernel.sum(), mode="full")[reach : reach + len(x)]
    return smooth


def _peak(x: Array, at: int) -> float:
    """Where the parabola through a maximum and its neighbours has its top."""
    if not 0 < at < len(x) - 1:
        return float(at)
    left, middle, right = x[at - 1 : at + 2]
    bend = left - 2.0 * middle + right
    return at + float(np.clip(0.5 * (left - right) / bend, -0.5, 0.5)) if bend < 0 else float(at)
