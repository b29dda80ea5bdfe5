"""The stand-in is the flow of a known distribution: what the conditioning carries shows in its pictures."""

from __future__ import annotations

import wave
from dataclasses import replace

import numpy as np
import pytest
import torch

from kinema.io.clip import Clip
from kinema.pipelines.cards import read_card
from kinema.pipelines.figure import color_of
from kinema.pipelines.job import make_job
from kinema.pipelines.planning import make_plan
from kinema.pipelines.preview import camera_path, preview, preview_clip
from kinema.pipelines.stand_in import SCALE, SPREAD, Palette, StandInCodec, StandInFlow, stand_in
from kinema.story.shot import Shot
from kinema.story.storyboard import Storyboard

CARD = read_card("embedded")


def frames(**fields) -> np.ndarray:
    shot = Shot(**{"size": "64x64", "frames": 17, "seed": 1, "guidance": CARD.defaults.guidance, **fields})
    return preview_clip(make_job(shot)).array().astype(float)


def background(clip: np.ndarray) -> np.ndarray:
    """The mean colour of each frame's upper rows, where no disc is."""
    return clip[:, :12].mean(axis=(1, 2))


def test_the_velocity_is_that_of_the_distribution():
    """Monte Carlo: the mean of x_0 among samples that pass near x at level s."""
    flow = StandInFlow(1, 0.5, 4)
    palette = Palette(torch.tensor([[0.4, -0.2, 0.8]]), None)
    mean = float(SCALE * flow._mean(torch.zeros(1, 3, 1, 1, 1), palette)[0, 0, 0, 0, 0])
    s, x = 0.7, 0.3 * mean + 0.5
    rng = np.random.default_rng(0)
    clean = mean + SPREAD * rng.standard_normal(2_000_000)
    noise = rng.standard_normal(2_000_000)
    near = np.abs((1 - s) * clean + s * noise - x) < 0.02
    expected = (noise - clean)[near].mean()
    point = torch.full((1, 3, 1, 1, 1), x)
    v = flow(point, torch.tensor([[1000 * s]]), palette)
    assert float(v[0, 0, 0, 0, 0]) == pytest.approx(expected, abs=0.05)


def test_prompts_show_in_their_colours_with_the_weights_of_the_plan():
    fields = {"prompt": {0: "a fox", 16: "a wolf"}, "guidance": CARD.defaults.guidance}
    found = background(frames(**fields))
    plan = make_plan(Shot(size="64x64", frames=17, seed=1, **fields), CARD)
    colors = np.array([color_of("a fox"), color_of("a wolf")]) / 127.5 - 1
    for t, frame in enumerate((0, 2, 6, 10, 14)):
        mixed = np.array(plan.prompts.weights[t]) @ colors
        assert found[frame] == pytest.approx(127.5 * (1 + 0.55 * mixed), abs=6)


def test_guidance_and_negative_prompts_act():
    weak, strong = (background(frames(prompt="a fox", guidance=g)) for g in (1, 3))
    assert np.abs(strong - 127.5).mean() > 2 * np.abs(weak - 127.5).mean()
    plain, other = frames(prompt="a fox"), frames(prompt="a fox", negative="a wolf")
    assert np.abs(background(plain) - background(other)).max() > 10


def test_the_disc_crosses_the_frame():
    clip = frames(prompt="a fox") - background(frames(prompt="a fox"))[:, None, None]
    weight = np.abs(clip[:, 28:36]).sum(axis=(1, 3))
    middle = (weight * np.arange(64)).sum(axis=1) / weight.sum(axis=1)
    assert middle[0] < middle[8] < middle[16]


def test_the_same_seed_is_the_same_grain():
    one, again, other = frames(prompt="a"), frames(prompt="a"), frames(prompt="a", seed=2)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_a_held_picture_and_a_clip_show_through(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (17, 4, 4, 3), dtype=np.uint8).repeat(16, axis=1).repeat(16, axis=2)
    path = Clip(pixels[:1].repeat(17, axis=0), 8).save(tmp_path / "c.mkv")
    kept = [frames(prompt="a", source={"path": str(path), "strength": s}) for s in (0, 0.5, 0.8, 1)]
    far = [np.abs(clip - pixels[0]).mean() for clip in kept]
    assert far == sorted(far)
    assert far[0] < 12 < 25 < far[3]
    from PIL import Image

    Image.fromarray(pixels[0]).save(tmp_path / "a.png")
    held = frames(prompt="a", keyframes=[f"{tmp_path / 'a.png'}@-1"])
    assert np.abs(held[16] - pixels[0]).mean() < 12 < 25 < np.abs(held[0] - pixels[0]).mean()


def test_frame_by_frame_keeps_what_its_strength_leaves():
    calm, wild = (
        frames(
            prompt="a", mode="frame_by_frame", frames=4, redraw={"strength": s, "noise": 0, "colour": "off"}
        )
        for s in (0.2, 0.9)
    )
    change = [np.abs(np.diff(clip, axis=0)).mean() for clip in (calm, wild)]
    assert 0 < change[0] < change[1]


def test_models_that_read_masks_show_their_picture(wan, tmp_path):
    from PIL import Image

    Image.new("RGB", (64, 64), (250, 10, 10)).save(tmp_path / "red.png")
    shot = Shot(model=str(wan("i2v")), prompt="a", keyframes=[str(tmp_path / "red.png")], frames=9, seed=1)
    clip = preview_clip(make_job(shot)).array()
    assert np.abs(clip[0].astype(float) - (250, 10, 10)).mean() < 6
    assert np.abs(clip[4].astype(float) - (250, 10, 10)).mean() > 30


def test_codec_and_strides_are_the_models(wan):
    for card in (CARD, read_card(str(wan("ti2v")))):
        model = stand_in(card, 8)
        codec = model.vae
        assert isinstance(codec, StandInCodec)
        side = 2 * card.stride.space
        clip = torch.rand(1, 3, 1 + card.stride.time, side, side).round() * 2 - 1
        latents = codec.encode(clip)
        assert latents.shape == (1, model.card.latent_channels, 2, 2, 2)
        assert [f.shape[2] for f in codec.stream(latents)] == [1, card.stride.time]
        again = torch.cat(list(codec.stream(codec.encode(torch.full_like(clip, 0.25)))), dim=2)
        torch.testing.assert_close(again, torch.full_like(clip, 0.25))


def test_every_model_of_a_storyboard_has_its_own(wan):
    board = Storyboard(
        shots=[
            {"prompt": "a", "frames": 9, "size": "64x64", "fps": 8},
            {"prompt": "b", "model": str(wan("t2v")), "frames": 9, "size": "64x64", "fps": 8},
        ]
    )
    job = make_job(board)
    assert preview_clip(job).array().shape == (18, 64, 64, 3)
    assert len({replace(card, id="").family for card in job.cards.values()}) == 2


def test_windows_and_loops_have_previews():
    """Every window agrees on what a frame shows, so a long clip is as sharp as a short one."""
    turn = CARD.defaults.frames - 1  # the disc turns back where the model's own clip ends
    prompts = {0: "a fox", 2 * turn: "a wolf"}
    long = frames(frames=2 * turn + 1, prompt=prompts)
    assert background(long)[0] == pytest.approx(background(frames(prompt="a fox"))[0], abs=6)
    assert background(long)[-1] == pytest.approx(background(frames(prompt="a wolf"))[-1], abs=6)
    rows = [clip[k, 24:40].mean(axis=(0, 2)) for clip, k in ((long, 0), (long, turn), (long, 2 * turn))]
    disc = [np.abs(row - np.median(row)).argmax() for row in rows]
    assert disc[0] < 32 < disc[1]
    assert disc[2] < 32
    loop = frames(frames=32, loop=True, prompt="a fox")
    steps = np.abs(np.diff(loop, axis=0, append=loop[:1])).mean(axis=(1, 2, 3))
    assert steps[-1] <= 1.5 * steps.max(initial=0, where=np.arange(32) < 31)
    assert frames(frames=33, windows="continue").shape == (33, 64, 64, 3)
    assert frames(frames=33, blend="velocity", prompt={0: "a fox", 32: "a wolf"}).shape == (33, 64, 64, 3)


def test_a_camera_that_follows_the_sound_has_a_preview(tmp_path):
    samples = (np.sin(np.arange(16000) / 8) * np.linspace(0, 30000, 16000)).astype("<i2")
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(samples.tobytes())
    camera = {"zoom": "1 + audio.rms"}
    shot = Shot(
        size="64x64", frames=6, seed=1, audio=str(tmp_path / "a.wav"), mode="frame_by_frame", camera=camera
    )
    job = make_job(shot)
    seen = camera_path(job.plans[0])
    assert seen.moves
    assert len(seen.poses) == 6
    assert preview(job).width > 0
