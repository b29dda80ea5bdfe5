"""Previews: seldom enough, small enough, and of the right colours."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

import kinema
from kinema.core.contracts import Progress
from kinema.pipelines.model import Model
from kinema.serve.previews import (
    EVERY,
    MOST_FRAMES,
    Previewer,
    animation,
    decoded,
    first_frame,
    linear,
    middle,
)


@pytest.fixture(scope="module")
def vae():
    model = kinema.load("embedded")
    assert isinstance(model, Model)
    return model.vae


@pytest.fixture(scope="module")
def latents_CTYX(vae):
    """A clip of two colours, the one above the other, and a square that moves."""
    frames = np.full((9, 64, 64, 3), (30, 60, 200), np.uint8)
    frames[:, 32:] = (220, 180, 40)
    for index in range(9):
        frames[index, 20:36, 4 * index : 4 * index + 16] = (200, 30, 30)
    x = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    with torch.inference_mode():
        return vae.encode(x)[0]


def test_the_linear_preview_has_the_colours_of_the_decoded_one(vae, latents_CTYX):
    crop_CYX = middle(latents_CTYX)
    near = linear(latents_CTYX, crop_CYX, first_frame(vae, crop_CYX), vae.stride.space)
    true = decoded(vae, latents_CTYX)
    assert len(near) == latents_CTYX.shape[1]
    small = np.asarray(Image.fromarray(true[-1]).resize((8, 8), Image.Resampling.BOX)).astype(float)
    error = np.abs(near[-1].astype(float) - small).mean()
    flat = np.abs(small - small.mean((0, 1))).mean()
    assert error < flat / 3


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow:
    """A decoder that takes a second per latent frame on a clock of its own."""

    def __init__(self, vae, clock) -> None:
        self.stride, self._vae, self._clock = vae.stride, vae, clock

    def stream(self, latents):
        for part in self._vae.stream(latents):
            self._clock.now += 1.0
            yield part


def test_previews_take_a_tenth_of_the_time_however_slow_the_decoder_is(vae, latents_CTYX):
    clock = Clock()
    preview = Previewer(Slow(vae, clock), 8.0, clock)
    spent, shown = 0.0, 0
    for step in range(400):
        clock.now += 1.0  # the render's own step
        before = clock.now
        picture = preview(Progress("denoise", step, 400, clean=latents_CTYX[None]))
        spent += clock.now - before
        shown += picture is not None
    assert 10 < shown < 60
    assert spent < 0.13 * clock.now


def test_a_quick_decoder_shows_the_estimate_itself(vae, latents_CTYX):
    clock = Clock()
    preview = Previewer(vae, 8.0, clock)  # it costs nothing on this clock
    shown = []
    for step in range(8):
        clock.now += 0.4
        picture = preview(Progress("denoise", step, 8, clean=latents_CTYX[None]))
        shown += [] if picture is None else [Image.open(io.BytesIO(picture)).n_frames]
    frames, latent_frames = 9, latents_CTYX.shape[1]
    assert shown == [latent_frames] + [frames] * 3


def test_at_most_two_a_second(vae, latents_CTYX):
    clock = Clock()
    preview = Previewer(vae, 8.0, clock)
    event = Progress("denoise", 1, 9, clean=latents_CTYX[None])
    assert preview(event) is None  # nothing before the first half second
    shown = 0
    for _ in range(100):
        clock.now += EVERY / 10
        shown += preview(event) is not None
    assert shown == 9 or shown == 10


def test_nothing_is_shown_without_an_estimate_or_a_decoder(vae, latents_CTYX):
    clock = Clock()
    for previewer, event in (
        (Previewer(vae, 8.0, clock), Progress("text", 0, 1)),
        (Previewer(None, 8.0, clock), Progress("denoise", 1, 9, clean=latents_CTYX[None])),
    ):
        clock.now += 10.0
        assert previewer(event) is None


def test_an_animation_lasts_as_long_as_the_clip():
    frames = [np.full((16, 16, 3), 10 * index, np.uint8) for index in range(24)]
    picture = Image.open(io.BytesIO(animation(frames, 12.0)))
    assert picture.n_frames == MOST_FRAMES
    total = 0
    for index in range(picture.n_frames):
        picture.seek(index)
        picture.load()
        total += picture.info["duration"]
    assert total == pytest.approx(2000, abs=30)
    picture.seek(MOST_FRAMES - 1)
    assert abs(int(np.asarray(picture.convert("RGB"))[8, 8, 0]) - 230) < 12
