"""The whole evaluation: real clips, the codec's round trip, the model, the shuffled floor, a held frame.

    ceiling (real) >= codec >= model >= floor       per factor, each with a 95 % interval

Prompts and seeds are fixed, every prompt is sampled once, and every sample counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kinema.evaluation.identity import IdentityJudge
from kinema.evaluation.marks import Band, Marks, bands, mark, psnr, summary
from kinema.evaluation.prompts import Prompt
from kinema.evaluation.silhouette import Gallery
from kinema.evaluation.subject import Sampling, Subject
from kinema.training.data import SpriteBank, render

Table = dict[str, dict[str, dict[str, float]]]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Judges:
    """The frozen net and the gallery of real renders."""

    net: IdentityJudge
    gallery: Gallery


@dataclass(frozen=True, slots=True)
class Result:
    """What an evaluation found.

    Attributes:
        table: subject, then factor, then mean and interval; "seen" and "held out", "flat" and "gradient",
            "standing" and "crossing" are parts of "model".
        bands: what counted as a natural amount of motion and of flicker.
        extra: numbers of other kinds, such as decibels.
        columns: clips `[B, 3, F, H, W]` by name, for a contact sheet.
    """

    table: Table
    bands: dict[str, Band]
    extra: dict[str, float]
    columns: dict[str, Tensor]


def evaluate(
    subject: Subject,
    prompts: Sequence[Prompt],
    bank: SpriteBank,
    judges: Judges,
    sampling: Sampling,
    *,
    frames: int,
    fps: float,
    held: int = 0,
    say: Say = lambda message: None,
) -> Result:
    """Judge a model on prompts.

    Args:
        subject: the generator.
        prompts: what to ask for.
        bank: the sprites that real clips are rendered from.
        judges: who judges.
        sampling: how clips are sampled.
        frames: pixel frames of a clip; 1 judges stills.
        fps: frames per second.
        held: of the first so many prompts, clips are also made from a given first frame.
        say: told what is being done.
    """
    scenes = [prompt.scene for prompt in prompts]
    real = render(bank, scenes, frames=frames, fps=fps, size=bank.size)
    with torch.no_grad():
        coded = subject.codec.decode(subject.codec.encode(real))
    say(f"sampling {len(prompts)} clips")
    begin = real if sampling.level < 1 else None
    made = subject.clips(prompts, (frames, bank.size, bank.size), sampling, begin_BCFHW=begin)
    say("judging")
    columns = {"real": real, "codec": coded, "model": made}
    marks = {name: mark(clips, scenes, judges.net, judges.gallery) for name, clips in columns.items()}
    band = bands(marks["codec"]) if frames > 1 else {}
    table = {name: summary(found, band) for name, found in marks.items()}
    table |= _parts(prompts, marks["model"], band)
    table["floor"] = summary(_shuffled(made, prompts, judges), band)
    extra = {"codec psnr": psnr(coded, real)}
    if frames > 1:
        extra |= {f"{name}: mean flicker": float(found.flicker.mean()) for name, found in marks.items()}
        extra |= {f"{name}: mean change a frame": float(found.amount.mean()) for name, found in marks.items()}
    if held and frames > 1:
        say(f"sampling {held} clips from their first frames")
        first = _from_first(subject, prompts[:held], real[:held], sampling)
        marks["held"] = mark(first, scenes[:held], judges.net, judges.gallery)
        table["first frame held"] = summary(marks["held"], band)
        extra |= _held_numbers(first, real[:held], coded[:held], marks["held"])
    return Result(table, band, extra, columns)


def text_table(table: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """The table in Markdown: factors down, subjects across, percent with 95 % intervals."""
    subjects = list(table)
    factors = list(dict.fromkeys(factor for row in table.values() for factor in row))
    lines = ["| factor | " + " | ".join(subjects) + " |", "|---" * (len(subjects) + 1) + "|"]
    for factor in factors:
        cells = [_cell(table[subject].get(factor)) for subject in subjects]
        lines.append(f"| {factor} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "-"
    mean, low, high = (f"{100 * found[name]:.0f}" for name in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def _parts(prompts: Sequence[Prompt], marks: Marks, band: Mapping[str, Band]) -> Table:
    """The model's summary on trained and on held-out combinations, on either background, by what moves."""
    rows = {
        "model, seen": [i for i, prompt in enumerate(prompts) if not prompt.unseen],
        "model, held out": [i for i, prompt in enumerate(prompts) if prompt.unseen],
        "model, flat": [i for i, p in enumerate(prompts) if p.scene.background.layout == "flat"],
        "model, gradient": [i for i, p in enumerate(prompts) if p.scene.background.layout != "flat"],
        "model, standing": [i for i, p in enumerate(prompts) if p.scene.motion == "none"],
        "model, crossing": [i for i, p in enumerate(prompts) if p.scene.motion != "none"],
    }
    return {name: summary(marks.select(chosen), band) for name, chosen in rows.items() if chosen}


def _shuffled(made_BCFHW: Tensor, prompts: Sequence[Prompt], judges: Judges) -> Marks:
    """The model's clips judged against other prompts: what guessing is worth.

    A shift by two keeps clips in place with prompts in place, and crossings with crossings.
    """
    shown = [prompt.scene for prompt in prompts]
    wanted = [*shown[2:], *shown[:2]]
    return mark(made_BCFHW, wanted, judges.net, judges.gallery, shown=shown)


def _from_first(
    subject: Subject, prompts: Sequence[Prompt], real_BCFHW: Tensor, sampling: Sampling
) -> Tensor:
    frames, height, width = real_BCFHW.shape[2:]
    return subject.clips(prompts, (frames, height, width), sampling, first_BCFHW=real_BCFHW[:, :, :1])


def _held_numbers(
    made_BCFHW: Tensor, real_BCFHW: Tensor, coded_BCFHW: Tensor, marks: Marks
) -> dict[str, float]:
    first = slice(0, 1)
    return {
        "first frame held: psnr of frame 0": psnr(made_BCFHW[:, :, first], real_BCFHW[:, :, first]),
        "codec: psnr of frame 0": psnr(coded_BCFHW[:, :, first], real_BCFHW[:, :, first]),
        "first frame held: mean change a frame": float(marks.amount.mean()),
    }
