"""Every mode is data: what is held stays bit for bit, what is free follows the seed, and files keep both."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import kinema
from kinema.core.errors import ConfigError, GeometryError
from kinema.core.runtime import frame_noise
from kinema.io.image import fit_image
from kinema.pipelines import known
from kinema.pipelines.cards import read_card
from kinema.pipelines.conditioning import condition
from kinema.pipelines.job import make_job
from kinema.pipelines.known import to_pixels
from kinema.pipelines.model import Model
from kinema.pipelines.planning import make_plan
from kinema.pipelines.render import to_uint8
from kinema.story.shot import Shot
from kinema.story.storyboard import Storyboard

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(small) -> Model:
    return kinema.load(str(small), device="cpu")


def picture(path: Path, seed: int, side: int = 64) -> str:
    """A smooth picture, so that its codec round trip says something."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(path)
    return str(path)


def clip_file(path: Path, frames: int, side: int = 64, fps: int = 8) -> tuple[str, np.ndarray]:
    """A lossless clip on disk, and its frames."""
    rng = np.random.default_rng(frames)
    ends = rng.integers(0, 256, (2, side, side, 3)).astype(float)
    pixels = np.stack([ends[0] + (ends[1] - ends[0]) * f / frames for f in range(frames)]).astype(np.uint8)
    kinema.Clip(pixels, fps).save(path)
    return str(path), pixels


def encoded(model: Model, frames: np.ndarray) -> torch.Tensor:
    return model.vae.encode(to_pixels(frames, CPU))


# Pictures


def test_a_first_frame_is_its_codec_round_trip_to_the_last_bit(model, tmp_path):
    path = picture(tmp_path / "a.png", 1)
    clip = kinema.generate("a rooster", model=model, seed=3, frames=9, keyframes=path)
    held = encoded(model, np.asarray(Image.open(path))[None])
    assert torch.equal(clip.latents[:, :, :1], held)
    decoded = next(iter(model.vae.stream(held)))
    assert np.array_equal(clip.array()[0], to_uint8(decoded)[0])
    free = kinema.generate("a rooster", model=model, seed=3, frames=9)
    assert not torch.equal(clip.latents[:, :, 1:], free.latents[:, :, 1:])  # the others see it


@pytest.mark.parametrize("solver", ["euler", "unipc", "dpm++2m-sde"])
def test_keyframes_are_held_in_the_latent_frames_they_land_in(model, tmp_path, solver):
    paths = [picture(tmp_path / f"{i}.png", i) for i in range(2)]
    keys = [f"{paths[0]}@0", f"{paths[1]}@8"]
    clip = kinema.generate("", model=model, seed=3, frames=13, keyframes=keys, solver=solver)
    pixels = [np.asarray(Image.open(path)) for path in paths]
    assert torch.equal(clip.latents[:, :, 0], encoded(model, pixels[0][None])[:, :, 0])
    group = encoded(model, np.stack([pixels[1]] * 5))[:, :, 1]
    found = [torch.equal(clip.latents[:, :, t], group) for t in range(4)]
    assert found == [False, False, True, False]  # frames 5 to 8 are latent frame 2


def test_a_weak_keyframe_starts_where_its_strength_says(model, tmp_path):
    path = picture(tmp_path / "a.png", 1)
    shot = Shot(model=model.card.id, seed=1, frames=9, keyframes=f"{path}@4:0.7", steps=4)
    conditions = condition(make_plan(shot, model.card), model)
    torch.testing.assert_close(conditions.table_SBT[:, 0].amax(dim=0), torch.tensor([1, 0.3, 1]))


def test_two_pictures_in_one_latent_frame_are_refused(model, tmp_path):
    path = picture(tmp_path / "a.png", 1)
    with pytest.raises(ConfigError, match=r"frames 5 and 7 share latent frame 2; keep them at least 4"):
        kinema.generate("", model=model, frames=9, keyframes=[f"{path}@5", f"{path}@7"])


def test_a_picture_of_another_shape_is_cropped_to_the_frame(model, tmp_path):
    wide = np.asarray(Image.open(picture(tmp_path / "a.png", 1, 128)))[:64]
    Image.fromarray(wide).save(tmp_path / "wide.png")
    clip = kinema.generate("", model=model, frames=5, keyframes=str(tmp_path / "wide.png"))
    assert torch.equal(clip.latents[:, :, :1], encoded(model, fit_image(wide, 64, 64, "crop")[None]))


# Clips that go on


def test_extension_keeps_the_clip_and_goes_on_from_its_latents(model, tmp_path):
    path, pixels = clip_file(tmp_path / "clip.mkv", 23)
    job = make_job(Shot(model=model.card.id, seed=2, frames=8, extend=path))
    assert (job.frames, job.length) == (8, 31)
    clip = kinema.generate("", model=model, seed=2, frames=8, extend=path)
    assert len(clip) == 31
    assert np.array_equal(clip.array()[:23], pixels)
    held = encoded(model, pixels[-13:])  # twice the context of 2 latent frames: 1 + 3 * 4 frames
    assert torch.equal(clip.latents[:, :, :4], held)
    assert clip.latents.shape[2] == 4 + 2
    assert np.array_equal(clip.array()[23:], to_uint8(model.vae.decode(clip.latents))[13:])
    with_nothing = kinema.generate("", model=model, seed=2, frames=9)
    assert not torch.equal(clip.latents[:, :, 4:], with_nothing.latents[:, :, 1:])


def test_extension_of_a_clip_shorter_than_its_context(model, tmp_path):
    path, pixels = clip_file(tmp_path / "clip.mkv", 3)
    clip = kinema.generate("", model=model, seed=2, frames=4, extend=path)
    assert np.array_equal(clip.array()[:3], pixels)
    assert torch.equal(clip.latents[:, :, :1], encoded(model, pixels[-1:]))
    assert len(clip) == 7


@pytest.mark.parametrize("kind", ["fuse", "continue"])
def test_one_picture_is_carried_on_in_windows(model, tmp_path, kind):
    """What is held is as long as the clip; the windows of a plan that says more look beyond the latents."""
    path = picture(tmp_path / "a.png", 1)
    shot = Shot(model=model.card.id, frames=20, extend=path, windows={"length": 9, "kind": kind}, steps=2)
    plan = make_plan(shot, model.card)
    assert (plan.geometry.context, plan.windows.total) == (1, 6)
    assert make_plan(shot.with_(extend={"path": path, "context": 1}), model.card).windows == plan.windows
    clip = kinema.render(shot, model=model)
    assert (len(clip.array()), clip.latents.shape[2]) == (21, 6)


def test_a_shot_holds_no_more_than_the_one_before_it_leaves(model):
    def board(context: int | None, *lengths: int) -> Storyboard:
        first, *others = ({"prompt": "a", "frames": frames} for frames in lengths)
        extend = {"path": "previous", "context": context}
        shots = [first, *({**other, "extend": "previous"} for other in others[:-1])]
        shots.append({**others[-1], "extend": extend, "windows": {"length": 9}})
        return Storyboard.from_mapping({"model": model.card.id, "seed": 5, "steps": 2, "shots": shots})

    assert make_job(board(None, 1, 20)).plans[1].geometry.context == 1
    assert kinema.render(board(None, 1, 20), model=model).array().shape[0] == 21
    with pytest.raises(GeometryError, match=r"shots\[1\]: context=3 is more than the 2 latent frames"):
        make_job(board(3, 5, 20))
    assert kinema.render(board(5, 9, 8, 20), model=model).array().shape[0] == 37
    with pytest.raises(GeometryError, match=r"shots\[2\]: context=6 is more than .* write at most 5"):
        make_job(board(6, 9, 8, 20))


def test_a_chain_of_shots_holds_what_was_carried_so_far(model):
    """A shot leaves its own latent frames and those it carried on, however long the whole clip is by then."""

    def board(*contexts: int) -> Storyboard:
        others = [{"frames": 4, "extend": {"path": "previous", "context": c}} for c in contexts]
        shots = [{"prompt": "a", "frames": 33}, *others]
        return Storyboard.from_mapping({"model": model.card.id, "seed": 5, "steps": 2, "shots": shots})

    # 9 latent frames; 2 of them and 1 more; all 3 and 1 more: 4, though 2 * 3 are as many as the clip has
    kept = [plan.geometry.carried for plan in make_job(board(1, 3, 4)).plans]
    assert kept == [0, 2, 3, 4]
    clip = kinema.render(board(1, 3, 4), model=model)
    assert clip.array().shape[0] == 33 + 3 * 4
    assert clip.latents.shape[2] == 4 + 1
    with pytest.raises(GeometryError, match=r"shots\[3\]: context=5 is more than the 4 latent frames"):
        make_job(board(1, 3, 5))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"width": 128, "height": 128}, r"128x128 is not the size of .* \(64x64\)"),
        ({"width": 128}, r"128x64 is not the size of"),
        ({"fps": 12}, r"fps=12 is not the rate of .* \(8\)"),
        ({"frames": 9}, r"frames=9 is not a multiple of 4; the nearest lengths are 8 and 12"),
        ({"extend": {"context": 3}}, r"context=3 is more than the clip's 2 whole latent frames"),
    ],
)
def test_extension_keeps_size_and_rate(model, tmp_path, fields, reason):
    path, _ = clip_file(tmp_path / "clip.mkv", 9)
    extend = {"path": path, **fields.pop("extend", {})}
    with pytest.raises(GeometryError, match=reason):
        kinema.generate("", model=model, **{"frames": 8, "extend": extend, **fields})


def test_a_storyboard_goes_on_from_latents_and_noise_of_the_shot_before(model):
    common = {"model": model.card.id, "seed": 5}
    board = Storyboard.from_mapping(
        {
            **common,
            "shots": [{"prompt": "a", "frames": 9}, {"prompt": "b", "frames": 8, "extend": "previous"}],
        }
    )
    job = make_job(board)
    clip = kinema.render(board, model=model)
    assert clip.array().shape[0] == 9 + 8
    alone = kinema.generate("a", model=model, seed=5, frames=9)
    assert np.array_equal(clip.array()[:9], alone.array())
    assert torch.equal(clip.latents[:, :, :3], alone.latents)
    conditions = condition(job.plans[1], model, previous=alone)
    shape = (model.card.latent_channels, 8, 8)
    assert torch.equal(conditions.start_BCTYX[:, :, :2], alone.latents[:, :, 1:])
    assert torch.equal(conditions.start_BCTYX[:, :, 2:], frame_noise(5, shape, 2, first=3))


def test_a_storyboard_takes_size_and_rate_of_its_first_shot(small):
    first = {"prompt": "a", "width": 96, "height": 64, "fps": 12, "frames": 9}
    board = Storyboard.from_mapping(
        {"model": str(small), "shots": [first, {"prompt": "b", "frames": 4, "extend": "previous"}, "c"]}
    )
    sizes = {(p.geometry.width, p.geometry.height, p.geometry.fps) for p in make_job(board).plans}
    assert sizes == {(96, 64, "12")}


def test_a_storyboard_does_not_go_on_in_another_model_or_from_trimmed_frames(small, wan):
    follow = {"prompt": "b", "frames": 4, "extend": "previous"}
    first = {"prompt": "a", "frames": 9, "model": str(small)}
    other = {**follow, "model": str(wan("ti2v"))}
    with pytest.raises(ConfigError, match="use one model"):
        make_job(Storyboard.from_mapping({"shots": [first, other]}))
    trimmed = {**first, "frames": 7, "length_fit": True}
    with pytest.raises(ConfigError, match="give that one 9 frames"):
        make_job(Storyboard.from_mapping({"shots": [trimmed, {**follow, "model": str(small)}]}))


# Video to video


def test_a_clip_to_make_over_is_read_as_it_is_encoded(model, tmp_path, monkeypatch):
    """No more than a latent frame's pixels are ahead of the encoder, whatever the clip's length."""
    path, pixels = clip_file(tmp_path / "clip.mkv", 17)
    plan = make_plan(Shot(model=model.card.id, frames=17, seed=1, source=path), model.card)
    read, ahead, stream = [], [], known.source_stream
    encode, parts = model.vae.encode, model.vae.encode_parts

    def counted(plan):
        for frame in stream(plan):
            read.append(frame)
            yield frame

    def listening(given):
        def heard():
            done = 0
            for part in given:
                ahead.append(len(read) - done)
                done += part.shape[2]
                yield part

        return parts(heard())

    monkeypatch.setattr(known, "source_stream", counted)
    monkeypatch.setattr(model.vae, "encode_parts", listening)
    assert torch.equal(known.source_latents(plan, model), encode(to_pixels(pixels, CPU)))
    assert ahead == [1, 4, 4, 4, 4]


def test_strength_0_keeps_the_clip_and_1_ignores_it(model, tmp_path):
    path, pixels = clip_file(tmp_path / "clip.mkv", 9)
    kept = kinema.generate("", model=model, seed=4, frames=9, source={"path": path, "strength": 0})
    assert torch.equal(kept.latents, encoded(model, pixels))
    ignored = kinema.generate("", model=model, seed=4, frames=9, source={"path": path, "strength": 1})
    free = kinema.generate("", model=model, seed=4, frames=9)
    assert torch.equal(ignored.latents, free.latents)
    half = kinema.generate("", model=model, seed=4, frames=9, source={"path": path, "strength": 0.5})
    near, far = ((x.latents - kept.latents).square().mean() for x in (half, free))
    assert 0 < near < far


def test_a_source_clip_is_brought_to_length_and_rate(model, tmp_path):
    path, pixels = clip_file(tmp_path / "clip.mkv", 12, fps=16)
    shot = {"model": model, "seed": 4, "fps": 8, "source": {"path": path, "strength": 0}}
    every_other = pixels[::2]
    long = kinema.generate("", frames=9, **shot)
    assert torch.equal(long.latents, encoded(model, every_other[[0, 1, 2, 3, 4, 5, 5, 5, 5]]))
    assert long.fps == Fraction(8)


# The same again


def test_the_same_shot_gives_the_same_bytes_in_another_process(model, small):
    clip = kinema.generate("a rooster", model=model, seed=9, frames=5)
    again = kinema.generate("a rooster", model=model, seed=9, frames=5)
    assert np.array_equal(clip.array(), again.array())
    code = (
        "import hashlib, kinema; "
        f"clip = kinema.generate('a rooster', model={str(small)!r}, seed=9, frames=5, device='cpu'); "
        "print(hashlib.sha256(clip.array().tobytes()).hexdigest())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == hashlib.sha256(clip.array().tobytes()).hexdigest()


def test_longer_clips_begin_with_the_same_noise(model):
    shots = (Shot(model=model.card.id, seed=1, frames=frames) for frames in (9, 17))
    short, long = (condition(make_plan(shot, model.card), model).start_BCTYX for shot in shots)
    assert torch.equal(long[:, :, :3], short)
    assert not torch.equal(long[:, :, 3], long[:, :, 2])


def test_streamed_frames_are_those_of_the_whole_decode(model):
    clip = kinema.generate("a rooster", model=model, seed=2, frames=13)
    assert np.array_equal(clip.array(), to_uint8(model.vae.decode(clip.latents)))


def test_a_file_made_again_from_its_record_is_the_same(model, tmp_path):
    shot = {"frames": 6, "length_fit": True, "guidance": "1 + t", "negative": "blue", "blend": "velocity"}
    clip = kinema.generate({0: "a rooster", -1: "a (red:1.4) penguin"}, model=model, **shot)
    path = clip.save(tmp_path / "clip.mkv")
    again = kinema.render(path, model=model)
    assert np.array_equal(again.array(), clip.array())
    assert again.record is not None
    assert clip.record is not None
    assert again.record.shot == clip.record.shot
    assert clip.record.shot["seed"] is not None
    files = clip.record.model["files"]
    weights = Path(model.card.folder) / "transformer" / "diffusion_pytorch_model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert files["transformer/diffusion_pytorch_model.safetensors"] == digest


def test_a_trimmed_clip_is_the_start_of_the_longer_one(model):
    whole = kinema.generate("a rooster", model=model, seed=2, frames=9)
    part = kinema.generate("a rooster", model=model, seed=2, frames=6, length_fit=True)
    assert np.array_equal(part.array(), whole.array()[:6])


def test_blends_agree_on_one_prompt_and_differ_on_two(model):
    def latents(prompt: object, blend: str) -> torch.Tensor:
        return kinema.generate(prompt, model=model, seed=2, frames=9, blend=blend).latents

    blends = ("attention", "embedding", "velocity")
    one = [latents("a rooster", blend) for blend in blends]
    assert torch.equal(one[0], one[1])
    assert torch.equal(one[0], one[2])
    two = [latents({0: "a rooster", 8: "green trees in snow"}, blend) for blend in blends]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert (two[i] - two[j]).abs().max() > 1e-4


def test_a_phrase_of_negative_weight_acts_as_a_negative_prompt(model):
    signed = kinema.generate("a rooster, (snow:-1.3)", model=model, seed=2, frames=5)
    apart = kinema.generate("a rooster", negative="(snow:1.3)", model=model, seed=2, frames=5)
    assert torch.equal(signed.latents, apart.latents)


def test_guidance_over_frames_acts_frame_by_frame(model):
    shot = Shot(model=model.card.id, seed=1, frames=9, guidance={0: 1, 4: 1, 5: 6})
    assert make_plan(shot, model.card).sampling.guidance == (1, 1, 6)
    held = {"model": model, "seed": 2, "frames": 5, "steps": 1, "prompt": "a rooster", "negative": "snow"}
    off, on = (kinema.generate(**held, guidance=g).latents for g in (1, 6))
    mixed = kinema.generate(**held, guidance={0: 1, 1: 6}).latents
    # a side alone and both together are products of other shapes, which round otherwise
    torch.testing.assert_close(mixed[:, :, 0], off[:, :, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed[:, :, 1], on[:, :, 1], atol=1e-5, rtol=0)
    assert (off - on).abs().max() > 1e-2


def test_the_model_in_the_package_makes_a_clip():
    card = read_card("embedded")
    clip = kinema.generate("a rooster", seed=1, frames=5, steps=2, device="cpu")
    assert clip.array().shape == (5, card.defaults.height, card.defaults.width, 3)
    assert clip.array().std() > 1


def test_shots_that_name_no_model_are_the_loaded_ones(model, tmp_path):
    fields = {"prompt": "a fox", "seed": 1, "frames": 5, "steps": 2}
    named = kinema.render(Shot(**fields, model=model.card.id), model=model)
    (tmp_path / "fox.yaml").write_text("prompt: a fox\nseed: 1\nframes: 5\nsteps: 2\n")
    for request in (Shot(**fields), tmp_path / "fox.yaml", Storyboard(shots=[fields])):
        clip = kinema.render(request, model=model)
        assert np.array_equal(clip.array(), named.array())
        assert model.card.id in json.dumps(clip.record.shot)
