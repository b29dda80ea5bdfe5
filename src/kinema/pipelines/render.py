"""A plan becomes a clip: condition, sample, decode as the frames are drawn.

frames <- stream(vae) <- sample(guided(network)) <- condition(plan)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import chain, islice

import numpy as np
import torch
from torch import Tensor

from kinema.core.contracts import OnProgress, Progress
from kinema.core.errors import NumericError
from kinema.diffusion.cache import CacheRule, StepCache
from kinema.diffusion.carry import Carry
from kinema.diffusion.guard import Guarded
from kinema.diffusion.guidance import Guidance, Guided
from kinema.diffusion.reuse import Reused
from kinema.diffusion.sampler import SamplerState, sample
from kinema.diffusion.solvers import solver
from kinema.diffusion.state import pack, unpack
from kinema.diffusion.step import FrameNoise, Step, Velocity
from kinema.diffusion.windows import Windowed, staggered
from kinema.io.clip import Clip
from kinema.models.careful import careful, finite
from kinema.pipelines.cached import CachedNetwork
from kinema.pipelines.carried import carried_frames
from kinema.pipelines.conditioning import Conditions, condition
from kinema.pipelines.guiding import guidance, steered
from kinema.pipelines.inpaint import restored
from kinema.pipelines.memory import FORGETFUL, Memory, Snapshot
from kinema.pipelines.model import Decoder, Model
from kinema.pipelines.network import CarefulNetwork, Network, ready
from kinema.pipelines.plan import Plan
from kinema.pipelines.worn import Frames, worn
from kinema.story.shortcuts import FINAL, WARMUP, Shortcuts
from kinema.story.shot import PREVIOUS

VIEWED_STEPS = 2
SAMPLER, LATENTS = "sampler", "latents"
"""Names under which a plan's memory has the state between two steps, and the finished latents."""


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """What the decoder makes a plan's frames from.

    Attributes:
        latents_BCTYX: the earlier clip's end where there is one, then the plan's.
        skip: how many of the first decoded frames were shown already.
        keep: how many after them are shown; None for all.
        loop: whether the last frame goes on into the first.
    """

    latents_BCTYX: Tensor
    skip: int = 0
    keep: int | None = None
    loop: bool = False

    def snapshot(self) -> Snapshot:
        """For a later process."""
        facts = {n: getattr(self, n) for n in ("skip", "keep", "loop")}
        return Snapshot({LATENTS: self.latents_BCTYX}, facts)

    @staticmethod
    def of(snapshot: Snapshot) -> Sampled:
        """Inverse of `snapshot`; a sampler's state gives the guess of the clean latents so far."""
        facts = snapshot.facts
        return Sampled(snapshot.tensors[LATENTS], facts["skip"], facts["keep"], facts["loop"])


def render_plan(
    plan: Plan,
    model: Model,
    *,
    previous: Clip | None,
    on_progress: OnProgress,
    memory: Memory = FORGETFUL,
) -> Clip:
    """Sample a plan's latents now; the clip's frames are decoded as they are drawn.

    Args:
        plan: from `make_plan`.
        model: loaded for the plan's model.
        previous: the clip before, for a shot of a storyboard that goes on from it.
        on_progress: called with events; raise from it to stop.
        memory: where to go on, and where to leave the state.
    """
    sampled = sample_plan(plan, model, previous=previous, on_progress=on_progress, memory=memory)
    memory.settle(LATENTS, sampled.snapshot())
    return decode_plan(plan, model.vae, sampled, on_progress)


def sample_plan(
    plan: Plan, model: Model, *, previous: Clip | None, on_progress: OnProgress, memory: Memory = FORGETFUL
) -> Sampled:
    """Condition and denoise; see `render_plan`."""
    on_progress(Progress("text", 0, 1))
    conditions = condition(
        plan, model, previous=previous, told=lambda text: on_progress(Progress("text", 0, 1, note=text))
    )
    on_progress(Progress("text", 1, 1))
    skip = 0 if conditions.tail is None else conditions.tail.frames
    g, steps = plan.geometry, solver(plan.sampling.solver)

    def sampled(x_BCTYX: Tensor) -> Sampled:
        return Sampled(shown_latents(conditions, x_BCTYX), skip, g.keep, g.loop)

    def offer(state: SamplerState) -> None:
        def make() -> Snapshot:
            tensors, facts = pack(state, steps)
            assert state.clean_BCTYX is not None
            guess = sampled(state.clean_BCTYX).snapshot()
            return Snapshot({**tensors, **guess.tensors}, {**facts, **guess.facts})

        memory.offer(SAMPLER, make)

    found = memory.recall(SAMPLER)
    state = None if found is None else unpack(found.tensors, found.facts, steps, model.device)
    x_BCTYX = denoise(plan, model, conditions, on_progress, state=state, on_state=offer)
    return sampled(x_BCTYX)


def decode_plan(plan: Plan, vae: Decoder, sampled: Sampled, on_progress: OnProgress) -> Clip:
    """A clip whose frames are decoded as they are drawn."""
    frames = restored(plan, decoded(vae, sampled, on_progress))
    if plan.given.extend in (None, PREVIOUS):  # a previous shot has shown its own frames
        return clip_of(plan, sampled, frames)
    # what a clip on disk already shows never passes through the codec
    return clip_of(plan, sampled, chain(carried_frames(plan), frames))


def clip_of(plan: Plan, sampled: Sampled | None, frames: Iterator[np.ndarray]) -> Clip:
    """A plan's clip, whose frames come from wherever they are."""
    g = plan.geometry
    return Clip(
        frames,
        Fraction(g.fps),
        latents=None if sampled is None else sampled.latents_BCTYX.cpu(),
        count=g.shown + g.keep,
        size=(g.width, g.height),
    )


def denoise(
    plan: Plan,
    model: Model,
    conditions: Conditions,
    on_progress: OnProgress,
    *,
    state: SamplerState | None = None,
    on_state: Callable[[SamplerState], None] | None = None,
) -> Tensor:
    """Clean latents `[1, C, T, Y, X]`, held context included.

    Args:
        plan, model, conditions: of the render.
        on_progress: called after every step; raise from it to stop.
        state: where to go on; None for the beginning.
        on_state: called after every step with what goes on from there.
    """
    context = 0 if conditions.tail is None else conditions.tail.held
    table_SBT = conditions.table_SBT
    frames, carry = Frames(), Carry({} if state is None else dict(state.carried))

    def keep(after: SamplerState) -> None:
        assert on_state is not None
        on_state(replace(after, carried=dict(carry.tensors)))

    with worn(model.dit, plan.loras, context=context, frames=frames):
        velocity = guided(plan, model, conditions, context, frames, _teller(on_progress), carry)
        x_BCTYX = sample(
            conditions.painting(velocity),
            conditions.start_BCTYX if state is None else state.x_BCTYX,
            table_SBT if plan.windows is None else staggered(table_SBT, plan.windows),
            solver(plan.sampling.solver),
            noise=FrameNoise(plan.sampling.seed, first=plan.geometry.first - context),
            on_step=on_progress,
            on_state=None if on_state is None else keep,
            start=0 if state is None else state.index,
            state=None if state is None else state.solver,
        )
    if (text := _left_out(plan, carry)) is not None:
        on_progress(Progress("denoise", len(table_SBT) - 1, len(table_SBT) - 1, note=text))
    return x_BCTYX


def _left_out(plan: Plan, carry: Carry) -> str | None:
    """What was done in place of an exact run; None for that."""
    if plan.sampling.shortcuts is None or not plan.sampling.shortcuts.acts:
        return None
    possible, cached, reused = carry.counts
    return (
        f"{possible - cached - reused} of {possible} forwards were run: {cached} were carried on from "
        f"earlier steps, and {reused} times guidance was reused."
    )


def _teller(on_progress: OnProgress) -> Callable[[Step, str], None]:
    def tell(step: Step, text: str) -> None:
        on_progress(Progress("denoise", step.index, step.steps, note=text))

    return tell


def guided(
    plan: Plan,
    model: Model,
    conditions: Conditions,
    context: int,
    frames: Frames,
    told: Callable[[Step, str], None],
    carry: Carry,
) -> Velocity:
    """The guided network: on the whole clip, or on windows of it, whose frames the LoRAs are told."""
    fast = ready(model, conditions, plan.sampling)
    network = Network(model.dit, conditions, plan.sampling, fast)
    rule, shortcuts = guidance(plan.sampling, conditions.table_SBT, context), plan.sampling.shortcuts
    if plan.windows is None:
        rule_of_all = reused(steered(rule, plan.sampling), shortcuts, carry, network)
        return Guided(guarded(network, told, shortcuts, carry), rule_of_all)

    # windows move on, and each may hold channels of its own: those of a few steps are enough
    @lru_cache(VIEWED_STEPS * len(plan.windows.windows(0, 0)))
    def view(places: tuple[int, ...]) -> Velocity:
        at, name = list(places), "-".join(map(str, places))
        scale = torch.as_tensor(rule.scale)[..., at]
        part = replace(network, conditions=conditions.at(at))
        window = Guided(
            guarded(part, told, shortcuts, carry, name),
            reused(steered(replace(rule, scale=scale), plan.sampling), shortcuts, carry, network, name),
        )
        return frames.shown(at, window)

    return Windowed(view, plan.windows)


def guarded(
    network: Network,
    told: Callable[[Step, str], None],
    shortcuts: Shortcuts | None = None,
    carry: Carry | None = None,
    window: str = "whole",
) -> Guarded:
    """The network behind its cache; predictions are computed again in float32 where they are not finite."""
    if shortcuts is None or shortcuts.cache == "off":
        return Guarded(network, CarefulNetwork(network), told)
    rule = CacheRule(
        kind=shortcuts.cache,
        skips=frozenset(shortcuts.skip),
        threshold=shortcuts.threshold,
        order=shortcuts.order,
        warmup=WARMUP,
        final=FINAL,
    )
    assert carry is not None, "a cache remembers"
    return Guarded(CachedNetwork(network, StepCache(rule, carry), window), CarefulNetwork(network), told)


def reused(
    rule: Guidance, shortcuts: Shortcuts | None, carry: Carry, network: Network, window: str = "whole"
) -> Guidance:
    """The guidance, of which some steps take the difference from before."""
    if shortcuts is None or not shortcuts.acts:
        return rule
    return Reused(rule, frozenset(shortcuts.reuse), carry, window, network.transformer)


def shown_latents(conditions: Conditions, x_BCTYX: Tensor) -> Tensor:
    """What the decoder sees: the earlier clip's end where there is one, then the new latent frames."""
    tail = conditions.tail
    return x_BCTYX if tail is None else torch.cat([tail.latents_BCTYX, x_BCTYX[:, :, tail.held :]], dim=2)


def closed(sampled: Sampled, vae: Decoder) -> Sampled:
    """A loop's latents with as much of its end in front as the decoder remembers, and the frames to drop.

    The decoder begins a clip with a lone frame and an empty memory; after the loop's own end it has neither,
    so that its last frame goes on into its first.
    """
    total, before = sampled.latents_BCTYX.shape[2], vae.memory + 1
    around = [t % total for t in range(-before, total)]
    return replace(
        sampled, latents_BCTYX=sampled.latents_BCTYX[:, :, around], skip=vae.stride.pixel_frames(before)
    )


def decoded(vae: Decoder, sampled: Sampled, on_progress: OnProgress) -> Iterator[np.ndarray]:
    """The decoded frames without those to skip, as many as are shown."""
    seen = closed(sampled, vae) if sampled.loop else sampled
    frames = (f for chunk in chunks(vae, seen.latents_BCTYX, on_progress) for f in to_uint8(chunk))
    stop = None if seen.keep is None else seen.skip + seen.keep
    yield from islice(frames, seen.skip, stop)


def chunks(vae: Decoder, latents_BCTYX: Tensor, on_progress: OnProgress) -> Iterator[Tensor]:
    """Frames `[B, 3, f, H, W]` in -1..1 of one latent frame after the other; memory does not grow.

    From the first that is not finite on, they are decoded again in float32.

    Raises:
        NumericError: a frame is not finite even so; it would be black in the file.
    """
    total = latents_BCTYX.shape[2]
    for done, frames_BCfHW in enumerate(_decoded(vae, latents_BCTYX), start=1):
        if not finite(frames_BCfHW):
            note = f"latent frame {done} of {total} was not finite and was decoded again in float32."
            yield from _decoded_again(vae, latents_BCTYX, done, on_progress, note)
            return
        on_progress(Progress("decode", done, total))
        yield frames_BCfHW


def _decoded_again(
    vae: Decoder, latents_BCTYX: Tensor, first: int, on_progress: OnProgress, note: str
) -> Iterator[Tensor]:
    """The frames from latent frame `first` on, with care."""
    total = latents_BCTYX.shape[2]
    with careful(vae) as watch:
        for done, frames_BCfHW in enumerate(_decoded(vae, latents_BCTYX), start=1):
            if not finite(frames_BCfHW):
                raise NumericError(
                    f"the frames of latent frame {done} of {total} are not finite, in float32 either; it "
                    f"began {watch.place} of the VAE. Check its weights, or use less guidance."
                )
            if done >= first:
                on_progress(Progress("decode", done, total, note=note if done == first else None))
                yield frames_BCfHW


def _decoded(vae: Decoder, latents_BCTYX: Tensor) -> Iterator[Tensor]:
    stream = vae.stream(latents_BCTYX)
    for _ in range(latents_BCTYX.shape[2]):
        with torch.inference_mode():
            frames_BCfHW = next(stream)
        yield frames_BCfHW


def to_uint8(frames_BCfHW: Tensor) -> np.ndarray:
    """Decoded frames of one clip, -1..1, as uint8 `[f, H, W, 3]`."""
    pixels = frames_BCfHW[0].float().clamp(-1, 1).add(1).mul(127.5).round().byte()
    array: np.ndarray = pixels.permute(1, 2, 3, 0).contiguous().cpu().numpy()
    return array
