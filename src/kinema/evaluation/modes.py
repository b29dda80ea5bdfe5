"""How well the modes beside text to video work: held frames are kept, ways are smooth, seams are unseen."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import repeat
from torch import Tensor

from kinema.evaluation.factors import Marks, Panel, fitted, identities
from kinema.evaluation.marks import psnr
from kinema.evaluation.prompts import Prompt
from kinema.evaluation.subject import Sampling, Subject


def held_frames(
    subject: Subject, prompts: Sequence[Prompt], real_BCFHW: Tensor, sampling: Sampling, panel: Panel
) -> dict[str, float]:
    """PSNR in dB of a given first frame, and of given first and last frames; beside the codec's own.

    A picture that is kept and then falls apart is no animation: who is shown in the frames after the given
    one is told too, as a share of the clips by the stricter judge, beside the same of the codec's real clips.

    Args:
        subject: the model.
        prompts: what the clips show.
        real_BCFHW: real clips of them, which lend their frames.
        sampling: how.
        panel: who says who is shown.
    """
    frames, height, width = real_BCFHW.shape[2:]
    first, last = real_BCFHW[:, :, :1], real_BCFHW[:, :, -1:]
    codec = subject.codec
    start = codec.encode(first)
    end = codec.encode(repeat(last, "B C 1 H W -> B C f H W", f=codec.stride.time), first=False)
    made = subject.clips(prompts, (frames, height, width), sampling, held={0: start})
    both = subject.clips(
        prompts, (frames, height, width), sampling, held={0: start, (frames - 1) // codec.stride.time: end}
    )
    scenes = [prompt.scene for prompt in prompts]
    known = identities(made[:, :, 1:], scenes, panel)["identity top-1"]
    coded = identities(codec.decode(codec.encode(real_BCFHW))[:, :, 1:], scenes, panel)["identity top-1"]
    return {
        "first frame held: who goes on, top-1": lower(known),
        "codec: the same": lower(coded),
        "first frame held: psnr of it": psnr(made[:, :, :1], first),
        "codec: psnr of a first frame": psnr(codec.decode(start), first),
        "keyframes: psnr of the first": psnr(both[:, :, :1], first),
        "keyframes: psnr of the last": psnr(both[:, :, -1:], last),
        "codec: psnr of a last frame": psnr(codec.decode(end, first=False)[:, :, -1:], last),
    }


def lower(marks: Marks) -> float:
    """The mean of the measure that finds less."""
    return min(float(mark.mean()) for mark in marks.values())


def travel_order(
    subject: Subject,
    prompts: Sequence[Prompt],
    shape_FHW: tuple[int, int, int],
    sampling: Sampling,
    panel: Panel,
) -> dict[str, float]:
    """How steadily a clip goes from one prompt to the next one's: the mean rank correlation with time.

    What is ranked is how much likelier the second identity is than the first, frame by frame; 1 is monotone.
    Ways from an identity to itself are left out, and nothing is said where all are.
    """
    after = [*prompts[1:], prompts[0]]
    pairs = [(one, other) for one, other in zip(prompts, after, strict=True) if _whom(one) != _whom(other)]
    if not pairs:
        return {}
    ones, others = [one for one, _ in pairs], [other for _, other in pairs]
    clips = subject.clips(ones, shape_FHW, sampling, towards=[prompt.text for prompt in others])
    small = fitted(clips, panel.net.net.config.size)
    found = []
    for clip, one, other in zip(small, ones, others, strict=True):
        log_FK = panel.net.log_probabilities(clip.transpose(0, 1).unsqueeze(2))
        indices = [panel.net.index(_whom(prompt)) for prompt in (one, other)]
        found.append(rank_correlation(log_FK[:, indices[1]] - log_FK[:, indices[0]]))
    return {"travel: rank correlation with time": sum(found) / len(found)}


def _whom(prompt: Prompt) -> str:
    return prompt.scene.identity.name


def rank_correlation(values_F: Tensor) -> float:
    """Spearman's correlation of a sequence with its own order; equal values share a rank.

    Where all are equal it is 0.
    """
    below_F = (values_F[:, None] > values_F).sum(dim=1)
    equal_F = (values_F[:, None] == values_F).sum(dim=1)
    rank_F = below_F + (equal_F - 1).double() / 2
    if bool((rank_F == rank_F[0]).all()):
        return 0.0
    time_F = torch.arange(len(rank_F), dtype=torch.float64)
    return float(torch.corrcoef(torch.stack([rank_F, time_F]))[0, 1])


def seam(
    subject: Subject, prompts: Sequence[Prompt], real_BCFHW: Tensor, sampling: Sampling
) -> dict[str, float]:
    """The change where a continuation begins, over the clip's usual change; 1 is unseen.

    The first half of a real clip is held as latents, and the model goes on from it.
    """
    frames, height, width = real_BCFHW.shape[2:]
    latents = subject.codec.encode(real_BCFHW)
    known = max(1, latents.shape[2] // 2)
    held = {number: latents[:, :, number : number + 1] for number in range(known)}
    made = subject.clips(prompts, (frames, height, width), sampling, held=held)
    joint = subject.codec.stride.pixel_frames(known)
    return {
        "extension: change at the seam over the usual": seam_ratio(made, joint),
        "real: the same": seam_ratio(subject.codec.decode(latents), joint),
    }


def seam_ratio(clips_BCFHW: Tensor, joint: int) -> float:
    """The mean change into frame `joint` over the mean of all other changes."""
    change_F = clips_BCFHW.diff(dim=2).abs().mean(dim=(0, 1, 3, 4))
    others = torch.cat([change_F[: joint - 1], change_F[joint:]])
    return float(change_F[joint - 1] / others.mean().clamp_min(1e-6))
