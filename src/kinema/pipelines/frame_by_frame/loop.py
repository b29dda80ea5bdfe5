"""The frame-by-frame loop (after Deforum): move the last frame, prepare it, redraw it, keep its colours.

    canvas   = touches(contrast(guides(warp(last))))  where the camera goes; pictures that are near; noise
    drawn    = redraw(canvas, strength, prompts)      an image model, or a video model with one frame
    frame    = colours(drawn, reference)              drift is taken away before it is seen or fed back
    shown    = frame where the mask is open, the moved last frame elsewhere

The order has reasons. Guides come before the touches, so that a picture that is mixed in gets the same noise
as the rest. Noise comes last, so that sharpening does not act on it. Colours are matched once, after
drawing, to those before the noise: the next canvas is made from a matched frame, and matching it again would
only undo what guides bring in. What a mask keeps is taken from the moved frame itself, not through the
model's codec, which would wear it out, and colours are counted where the mask is open: what is kept has not
drifted, and would hide how far the rest has.

With a cadence, a frame between two drawn ones is both of them, moved to where it is, and blended.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import Protocol

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from kinema.animation import retouch
from kinema.animation.colour import Colours, Method, colours, keep_colours, recolour
from kinema.core.contracts import OnProgress, Progress
from kinema.core.runtime import generator
from kinema.io.clip import Clip
from kinema.pipelines.frame_by_frame.pictures import Pictures
from kinema.pipelines.frame_by_frame.plan import RedrawPlan, Stroke
from kinema.pipelines.images.engine import Drawing, ImageEngine, Seeds
from kinema.pipelines.plan import Plan


class Moves(Protocol):
    """The camera between the frames of a clip.

    Attributes:
        state: what it remembers from frame to frame, plain numbers; put back to go on from there.
    """

    state: tuple[float, ...]

    def warp(self, picture_BCHW: Tensor, start: int, end: int) -> tuple[Tensor, Tensor | None]:
        """Frame `start`'s picture as the camera sees it at frame `end`, which may be before.

        Returns:
            The picture, filled to its borders, and where it had nothing to show `[B, 1, H, W]`, 1 there;
            None for nowhere.
        """
        ...


class Still:
    """A camera that does not move."""

    state: tuple[float, ...] = ()

    def warp(self, picture_BCHW: Tensor, start: int, end: int) -> tuple[Tensor, Tensor | None]:
        """The picture itself."""
        return picture_BCHW, None


@dataclass(frozen=True, slots=True, eq=False)
class LoopState:
    """Where the loop stands between two drawn frames; enough to go on with the same pixels.

    Attributes:
        stroke: index of the next drawn frame in the plan's strokes; all frames up to the one before it have
            been given.
        picture: the last drawn frame, float32 `[1, 3, H, W]`, 0..1, as it is fed back: not rounded.
        reference: the colours that are kept; None for none.
        moves: what the camera remembers (how far a depth model's distances are spread).
    """

    stroke: int
    picture: Tensor
    reference: Colours | None
    moves: tuple[float, ...] = ()

    def tensors(self) -> dict[str, Tensor]:
        """The same as tensors by name, for a safetensors file."""
        found = {"stroke": torch.tensor(self.stroke), "picture": self.picture.clone()}
        found["moves"] = torch.tensor(self.moves, dtype=torch.float64)
        if self.reference is not None:
            found |= {f.name: getattr(self.reference, f.name).clone() for f in fields(self.reference)}
        return found

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor]) -> LoopState:
        """Read what `tensors` gave."""
        names = [f.name for f in fields(Colours)]
        reference = Colours(*(tensors[name] for name in names)) if names[0] in tensors else None
        moves = tuple(float(value) for value in tensors["moves"])
        return LoopState(int(tensors["stroke"]), tensors["picture"], reference, moves)


@dataclass(frozen=True, slots=True, eq=False)
class Loop:
    """What does not change from frame to frame.

    Attributes:
        plan: with a `redraw` part.
        engine: draws its pictures.
        moves: its camera.
        pictures: keyframes, mask and colour reference, read from their files.
    """

    plan: Plan
    engine: ImageEngine
    moves: Moves
    pictures: Pictures

    @property
    def redraw(self) -> RedrawPlan:
        """The plan's part that is about this mode."""
        assert self.plan.redraw is not None, "a plan in mode frame_by_frame"
        return self.plan.redraw

    def after(self, picture_BCHW: Tensor) -> LoopState:
        """The beginning of a clip that carries another on, from that one's last frame."""
        if self.redraw.colour == "off":
            return LoopState(0, picture_BCHW, None)
        shown = self._open(self.redraw.strokes[0])
        return LoopState(0, picture_BCHW, self.pictures.reference or colours(picture_BCHW, shown))

    def clip(
        self,
        *,
        on_progress: OnProgress,
        state: LoopState | None = None,
        on_state: Callable[[LoopState], None] | None = None,
    ) -> Clip:
        """The frames, drawn as they are asked for.

        Args:
            on_progress: called after every drawn frame; raise from it to stop.
            state: where to go on: the clip then begins after the frames that were given.
            on_state: called when all frames up to a drawn one were taken, with what goes on from there.
        """
        g = self.plan.geometry
        given = self.redraw.strokes[state.stroke - 1].frame + 1 if state and state.stroke else 0
        frames = self._frames(on_progress, state, on_state)
        return Clip(frames, Fraction(g.fps), count=g.keep - given, size=(g.width, g.height))

    def _frames(
        self, on_progress: OnProgress, state: LoopState | None, on_state: Callable[[LoopState], None] | None
    ) -> Iterator[np.ndarray]:
        strokes = self.redraw.strokes
        if state is not None:
            self.moves.state = state.moves
        for index in range(0 if state is None else state.stroke, len(strokes)):
            before, state = state, self.draw(index, state)
            on_progress(Progress("draw", index + 1, len(strokes)))
            if before is not None and index:
                yield from self._between(index, before.picture, state.picture)
            yield to_uint8(state.picture)
            if on_state is not None:
                on_state(replace(state, moves=self.moves.state))

    def draw(self, index: int, state: LoopState | None) -> LoopState:
        """The drawn frame `index`, and what goes on from it."""
        stroke = self.redraw.strokes[index]
        if stroke.exact is not None:
            picture = self.pictures.held(stroke.exact)
            return LoopState(index + 1, picture, self._reference(stroke, picture, state))
        moved, holes = (None, None) if state is None else self._moved(index, state.picture)
        toned = self._toned(stroke, self._guided(stroke, moved))
        drawing = self._drawing(stroke, toned, holes)
        picture = self._drawn(drawing)
        if state is not None:
            picture = self._coloured(drawing, picture, toned, state, self._window(stroke))
        kept = toned if moved is None else moved
        if drawing.open is not None and kept is not None:
            picture = kept + opened(drawing) * (picture - kept)
        picture = retouch.clamped(picture)
        return LoopState(index + 1, picture, self._reference(stroke, picture, state))

    def _moved(self, index: int, picture_BCHW: Tensor) -> tuple[Tensor, Tensor | None]:
        """The last drawn frame where the camera is now; a clip that goes on begins where it ended."""
        if index == 0:
            return picture_BCHW, None
        before, stroke = self.redraw.strokes[index - 1], self.redraw.strokes[index]
        return self.moves.warp(picture_BCHW, before.frame, stroke.frame)

    def _coloured(
        self,
        drawing: Drawing,
        picture_BCHW: Tensor,
        before_BCHW: Tensor | None,
        state: LoopState,
        window: float,
    ) -> Tensor:
        """The picture in the colours that it was drawn from, on their way back to the reference.

        Those before the noise: it was to be removed, and would add to the contrast frame by frame. A picture
        drawn from nothing has no colours to keep but those of a reference picture.
        """
        if state.reference is None:
            return picture_BCHW
        method: Method = "histogram" if self.redraw.colour == "histogram" else "transport"
        if drawing.canvas is None or before_BCHW is None:
            fixed = self.pictures.reference
            return picture_BCHW if fixed is None else recolour(picture_BCHW, fixed, method=method)
        seen = drawing.open
        if drawing.holes is not None:
            seen = (1 - drawing.holes) * (1 if seen is None else seen)
        return keep_colours(
            picture_BCHW, before_BCHW, state.reference, window=window, weight_B1HW=seen, method=method
        )

    def _open(self, stroke: Stroke) -> Tensor | None:
        return self.pictures.mask(stroke.frame, stroke.mask_feather)

    def _window(self, stroke: Stroke) -> float:
        """Frames over which colours return to the reference: never where a mask wanders over a frame's own
        colours, as those of one place are none of another's."""
        return math.inf if self.pictures.wanders and self.pictures.reference is None else stroke.colour_window

    def _drawing(self, stroke: Stroke, toned: Tensor | None, holes: Tensor | None) -> Drawing:
        """What the engine is asked for."""
        canvas = self._touched(stroke, toned)
        mask = None if toned is None else self._open(stroke)
        if stroke.strength == 1.0 and mask is None:
            canvas = None  # nothing of it would be left
        return Drawing(
            frame=stroke.frame,
            seeds=Seeds(*stroke.seeds, self.plan.sampling.seed if self.redraw.travels else None),
            steps=stroke.steps,
            solver=stroke.solver,
            strength=1.0 if canvas is None else stroke.strength,
            noise_multiplier=stroke.noise_multiplier,
            canvas=canvas,
            open=mask,
            holes=holes if self.redraw.holes == "redraw" and canvas is not None else None,
        )

    def _drawn(self, drawing: Drawing) -> Tensor:
        if drawing.strength == 0.0 and drawing.holes is None and drawing.canvas is not None:
            return drawing.canvas
        return self.engine.draw(drawing)

    def _guided(self, stroke: Stroke, canvas: Tensor | None) -> Tensor | None:
        """The canvas with the pictures that are near mixed in."""
        for index, share in stroke.guides:
            picture = self.pictures.held(index)
            canvas = picture if canvas is None else torch.lerp(canvas, picture, share)
        return canvas

    def _toned(self, stroke: Stroke, canvas: Tensor | None) -> Tensor | None:
        return None if canvas is None else retouch.clamped(retouch.contrast(canvas, stroke.contrast))

    def _touched(self, stroke: Stroke, canvas: Tensor | None) -> Tensor | None:
        if canvas is None:
            return None
        fresh = generator(self.plan.sampling.seed, f"canvas/frame {stroke.frame}")
        canvas = retouch.sharpen(
            canvas, stroke.sharpen, self.redraw.sharpen_radius, self.redraw.sharpen_threshold
        )
        canvas = retouch.blur(canvas, stroke.blur)
        return retouch.clamped(retouch.add_noise(canvas, stroke.noise, self.redraw.noise_kind, fresh))

    def _reference(self, stroke: Stroke, picture: Tensor, state: LoopState | None) -> Colours | None:
        """The colours that the frames after this one keep."""
        if self.redraw.colour == "off":
            return None
        if self.pictures.reference is not None:
            return self.pictures.reference
        held = self.pictures.at(stroke.frame)
        if self.redraw.colour_from == "keyframes" and held is not None:
            return colours(held, self._open(stroke))
        if state is None or state.reference is None or (stroke.strength == 1.0 and self.redraw.mask is None):
            # drawn from nothing: colours have not drifted, they begin here
            return colours(picture, self._open(stroke))
        return state.reference

    def _between(self, index: int, first_BCHW: Tensor, last_BCHW: Tensor) -> Iterator[np.ndarray]:
        """The frames between two drawn ones: both moved there and blended; what one lacks the other has."""
        start, end = self.redraw.strokes[index - 1].frame, self.redraw.strokes[index].frame
        for frame in range(start + 1, end):
            share = (frame - start) / (end - start)
            a_BCHW, missing_a = self.moves.warp(first_BCHW, start, frame)
            b_BCHW, missing_b = self.moves.warp(last_BCHW, end, frame)
            weight_a = (1 - share) * (1 if missing_a is None else 1 - missing_a)
            weight_b = share * (1 if missing_b is None else 1 - missing_b)
            total = torch.as_tensor(weight_a + weight_b)
            both = (weight_a * a_BCHW + weight_b * b_BCHW) / total.clamp(min=1e-6)
            plain = torch.lerp(a_BCHW, b_BCHW, share)
            yield to_uint8(torch.where(total > 1e-6, both, plain))


def opened(drawing: Drawing) -> Tensor:
    """Where the drawn picture is shown: where the mask is open, and in every hole, which has nothing else."""
    assert drawing.open is not None
    return drawing.open if drawing.holes is None else torch.maximum(drawing.open, drawing.holes)


def to_uint8(picture_BCHW: Tensor) -> np.ndarray:
    """One picture, 0..1, as uint8 `[H, W, 3]`."""
    pixels = picture_BCHW[0].clamp(0, 1).mul(255).round().byte()
    array: np.ndarray = rearrange(pixels, "C H W -> H W C").contiguous().numpy()
    return array
