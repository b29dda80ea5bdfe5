"""A clip painted inside: what the mask keeps is the clip's own pixels, bit for bit; the rest is made anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import kinema
from kinema.animation.retouch import blur
from kinema.core.errors import ConfigError, MediaError
from kinema.pipelines import masks
from kinema.pipelines.conditioning import condition
from kinema.pipelines.inpaint import open_latents
from kinema.pipelines.job import make_job
from kinema.pipelines.model import Model
from kinema.pipelines.planning import make_plan
from kinema.pipelines.preview import preview_clip
from kinema.story.shot import Shot
from kinema.story.source import Source

SIDE, FRAMES = 64, 9


@pytest.fixture(scope="module")
def model(small) -> Model:
    return kinema.load(str(small), device="cpu")


@pytest.fixture
def clip(tmp_path: Path) -> tuple[str, np.ndarray]:
    return clip_file(tmp_path / "clip.mkv")


def clip_file(
    path: Path, size: tuple[int, int] = (SIDE, SIDE), frames: int = FRAMES
) -> tuple[str, np.ndarray]:
    """A lossless clip on disk, and its frames."""
    pixels = np.random.default_rng(4).integers(0, 256, (frames, size[1], size[0], 3), dtype=np.uint8)
    kinema.Clip(pixels, 8).save(path, quality="lossless")
    return str(path), kinema.Clip.open(path).array()


def mask_file(path: Path, white: tuple[slice, slice]) -> str:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[white] = 255
    Image.fromarray(mask).save(path)
    return str(path)


def painted(model: Model, **source: object) -> kinema.Clip:
    return kinema.generate("a fox", model=model, seed=4, steps=4, source=source)


def test_what_the_mask_keeps_is_the_clip_to_the_bit(model, clip, tmp_path):
    path, pixels = clip
    right = (slice(None), slice(32, None))
    mask = mask_file(tmp_path / "right.png", right)
    made = painted(model, path=path, mask=mask).array()
    assert made.shape == pixels.shape
    assert np.array_equal(made[:, :, :32], pixels[:, :, :32])
    assert (made[:, :, 32:] != pixels[:, :, 32:]).any(axis=-1).mean() > 0.9
    other = painted(model, path=path, mask=mask, mask_invert=True).array()
    assert np.array_equal(other[:, :, 32:], pixels[:, :, 32:])
    assert (other[:, :, :32] != pixels[:, :, :32]).any(axis=-1).mean() > 0.9


def test_kept_latents_are_the_clips_and_free_ones_know_of_them(model, clip, tmp_path):
    path, _ = clip
    shot = Shot(model=model.card.id, seed=4, steps=4, prompt="a fox", source=Source(path=path, strength=0))
    home = condition(make_plan(shot, model.card), model).start_BCTYX
    mask = mask_file(tmp_path / "right.png", (slice(None), slice(32, None)))
    latents = painted(model, path=path, mask=mask).latents
    half = home.shape[4] // 2
    assert torch.allclose(latents[..., :half], home[..., :half], atol=1e-4)
    alone = kinema.generate("a fox", model=model, seed=4, steps=4, frames=FRAMES).latents
    apart = (latents - alone)[..., half:].abs().max()
    assert apart > 1e-3  # the same noise, another neighbour


def test_a_white_mask_is_no_mask(model, clip, tmp_path):
    path, _ = clip
    white = mask_file(tmp_path / "white.png", (slice(None), slice(None)))
    free = kinema.generate("a fox", model=model, seed=4, steps=4, source={"path": path, "strength": 1})
    assert np.array_equal(painted(model, path=path, mask=white).array(), free.array())


def test_a_mask_fills_unless_a_strength_is_given(clip, tmp_path):
    path, _ = clip
    assert Source(path=path).strength == 0.6
    assert Source(path=path, mask="m.png").strength == 1
    assert Source(path=path, mask="m.png", strength=0.4).strength == 0.4
    shot = Shot(source={"path": path, "mask": "m.png"})
    again = Shot.from_mapping(shot.model_dump(mode="json", exclude_none=True))
    assert again.source == shot.source


def test_a_latent_is_free_when_any_of_its_pixels_is(model, clip, tmp_path):
    masks = np.zeros((FRAMES, SIDE, SIDE, 3), np.uint8)
    masks[6, 17, 40] = 255  # one pixel of one frame
    kinema.Clip(masks, 8).save(tmp_path / "masks.mkv", quality="lossless")
    shot = Shot(model=model.card.id, source={"path": clip[0], "mask": str(tmp_path / "masks.mkv")})
    plan = make_plan(shot, model.card)
    opened = open_latents(plan)
    space = model.card.stride.space
    group = model.card.stride.group_of(6)
    assert opened.sum() == 1
    assert opened[0, group, 17 // space, 40 // space] == 1
    made = painted(model, path=clip[0], mask=str(tmp_path / "masks.mkv")).array()
    changed = (made != clip[1]).any(axis=-1)
    assert changed.sum() <= 1
    assert not np.delete(changed, 6, axis=0).any()


def test_feathers_mix_by_the_softened_mask(model, clip, tmp_path):
    path, pixels = clip
    mask = mask_file(tmp_path / "right.png", (slice(None), slice(32, None)))
    soft = painted(model, path=path, mask=mask, mask_feather=3).array()
    assert np.array_equal(soft[:, :, :22], pixels[:, :, :22])  # 9 pixels are as far as it reaches
    near = np.abs(soft.astype(int) - pixels)[:, :, 28:32].mean()
    assert 0 < near < np.abs(soft.astype(int) - pixels)[:, :, 40:].mean()


def test_a_still_mask_is_softened_once(model, clip, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(masks, "blur", lambda *asked: calls.append(asked) or blur(*asked))
    mask = mask_file(tmp_path / "right.png", (slice(None), slice(32, None)))
    source = {"path": clip[0], "mask": mask, "mask_feather": 3}
    open_latents(make_plan(Shot(model=model.card.id, source=source), model.card))
    assert len(calls) == 1


def test_bars_are_what_pad_leaves_open(model, tmp_path):
    path, pixels = clip_file(tmp_path / "clip.mkv")
    source = {"path": path, "mask": "bars"}
    made = kinema.generate(
        "a fox", model=model, seed=4, steps=4, size="96x64", fit="pad", source=source
    ).array()
    assert made.shape[2] == 96
    assert np.array_equal(made[:, :, 16:80], pixels)
    assert made[:, :, :16].any(axis=-1).mean() > 0.9  # not black


def test_windows_and_cut_renders_keep_it_too(model, tmp_path):
    path, pixels = clip_file(tmp_path / "long.mkv", frames=41)
    mask = mask_file(tmp_path / "right.png", (slice(None), slice(32, None)))
    made = painted(model, path=path, mask=mask)
    assert np.array_equal(made.array()[:, :, :32], pixels[:, :, :32])
    shot = Shot(model=model.card.id, prompt="a fox", seed=4, steps=4, source={"path": path, "mask": mask})

    class Stop(Exception):
        pass

    def cut(event):
        if event.phase == "denoise" and event.step == 2:
            raise Stop

    out = tmp_path / "out.mkv"
    with pytest.raises(Stop):
        kinema.render(shot, model=model, out=out, checkpoint_every=1, on_progress=cut, quality="lossless")
    kinema.render(shot, model=model, out=out, quality="lossless")
    whole = kinema.render(shot, model=model, out=tmp_path / "whole.mkv", quality="lossless")
    assert np.array_equal(kinema.Clip.open(out).array(), whole.array())
    assert np.array_equal(whole.array()[:, :, :32], pixels[:, :, :32])


@pytest.mark.parametrize("kind", ["t2v", "two-experts", "ti2v"])
def test_wan_paints_inside_too(wan, tmp_path, kind):
    model = kinema.load(str(wan(kind)), device="cpu")
    path, pixels = clip_file(tmp_path / "clip.mkv", frames=5)
    mask = mask_file(tmp_path / "right.png", (slice(None), slice(32, None)))
    source = {"path": path, "mask": mask}
    made = kinema.generate("a fox", model=model, seed=4, steps=4, size="64x64", source=source)
    assert np.array_equal(made.array()[:, :, :32], pixels[:, :, :32])
    assert (made.array()[:, :, 32:] != pixels[:, :, 32:]).any(axis=-1).mean() > 0.9


def test_what_is_kept_shows_in_previews(small, tmp_path):
    path, pixels = clip_file(tmp_path / "clip.mkv")
    mask = mask_file(tmp_path / "right.png", (slice(None), slice(32, None)))
    shot = Shot(model=str(small), seed=4, prompt="a red fox", source={"path": path, "mask": mask})
    shown = preview_clip(make_job(shot)).array()
    assert np.array_equal(shown[:, :, :32], pixels[:, :, :32])
    assert not np.array_equal(shown[:, :, 32:], pixels[:, :, 32:])


def test_another_mask_is_another_plan(model, clip, tmp_path):
    mask = mask_file(tmp_path / "m.png", (slice(0, 8), slice(0, 8)))
    shot = Shot(model=model.card.id, seed=1, source={"path": clip[0], "mask": mask})
    before = make_plan(shot, model.card).digest
    mask_file(tmp_path / "m.png", (slice(0, 16), slice(0, 8)))
    assert make_plan(shot, model.card).digest != before


@pytest.mark.parametrize(
    ("source", "more", "said"),
    [
        ({"mask": "black.png"}, {}, "is black all over"),
        ({"mask": "white.png", "mask_invert": True}, {}, "is white all over"),
        ({"mask": "none.png"}, {}, "none.png"),
        ({"mask": "none.mp4"}, {}, "none.mp4"),
        ({"mask": "bars"}, {}, "not fit: crop"),
        ({"mask": "bars"}, {"fit": "pad"}, "opens nothing"),
        ({"mask_feather": 2}, {}, "does nothing without source.mask"),
        ({"mask_invert": True}, {}, "does nothing without source.mask"),
        ({"mask": "white.png", "mask_feather": -1}, {}, "mask_feather"),
    ],
)
def test_masks_that_cannot_be_meant_are_refused_before_weights_load(
    small, clip, tmp_path, monkeypatch, source, more, said
):
    monkeypatch.chdir(tmp_path)
    mask_file(tmp_path / "black.png", (slice(0, 0), slice(None)))
    mask_file(tmp_path / "white.png", (slice(None), slice(None)))
    with pytest.raises((ConfigError, MediaError), match="(?s)" + said.replace(".", r"\.")) as caught:
        kinema.render(Shot(model=str(small), source={"path": clip[0], **source}, **more))
    assert "\n" not in str(caught.value)
