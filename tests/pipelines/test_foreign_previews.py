"""Clean estimates of other diffusers pipelines: at the last step the latents that the pipeline decodes;
a decoder that gives the pipeline's own frames, and previews of what is kept of a cut render."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

import kinema
from kinema.core.contracts import Progress
from kinema.pipelines.cards import read_card
from kinema.pipelines.diffusers_solvers import VP_SOLVERS
from kinema.pipelines.durable.preview import preview
from kinema.pipelines.foreign.render import render_plan
from kinema.pipelines.loading import decoder_of, load_decoder
from kinema.pipelines.planning import make_plan
from kinema.pipelines.render import Sampled, decoded
from kinema.serve.previews import Previewer
from kinema.story.shot import Shot

SIDE = {"ltx": 32, "ltx-condition": 32}
FRAMES = {"mochi": 7, "animatediff": 4, "svd": 4}
KINDS = ("ltx", "ltx-condition", "cogvideo", "cogvideo-1.5", "hunyuan", "mochi", "animatediff", "svd", "vace")


@pytest.fixture(scope="module")
def loaded(foreign):
    models = {}

    def of(kind):
        if kind not in models:
            models[kind] = kinema.load(str(foreign(kind)), device="cpu")
        return models[kind]

    return of


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("media") / "a.png"
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def shot_of(kind, model, **fields):
    side = SIDE.get(kind, 16)
    given = {"size": f"{side}x{side}", "frames": FRAMES.get(kind, 9), "steps": 4, "seed": 7}
    given |= {} if kind == "svd" else {"prompt": "a red fox", "guidance": 4}
    return Shot(model=model.card.id, **(given | fields))


def watched(kind, model, **fields):
    """The frames, and the clean estimate of every step."""
    events = []
    plan = make_plan(shot_of(kind, model, **fields), model.card)
    frames = render_plan(plan, model, previous=None, on_progress=events.append).array()
    return plan, frames, [event.clean for event in events if event.phase == "denoise"]


def held(kind, picture):
    return {"keyframes": str(picture)} if kind == "svd" else {}


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_estimate_is_what_the_pipeline_decodes(loaded, picture, kind):
    model = loaded(kind)
    plan, frames, cleans = watched(kind, model, **held(kind, picture))
    g = plan.geometry
    shape = (1, model.card.latent_channels, g.latent_frames, g.rows, g.columns)
    assert [clean.shape for clean in cleans] == [shape] * len(cleans)
    assert not any(torch.equal(a, b) for a, b in pairwise(cleans))
    seen = list(decoded(decoder_of(model), Sampled(cleans[-1], 0, g.keep), lambda _: None))
    assert np.abs(np.stack(seen).astype(int) - frames).max() <= 1
    assert frames.std() > 5


@pytest.mark.parametrize("solver", VP_SOLVERS)
def test_every_solver_has_an_estimate(loaded, solver):
    model = loaded("animatediff")
    _, frames, cleans = watched("animatediff", model, solver=solver)
    first, last = (
        np.stack(list(decoded(decoder_of(model), Sampled(clean, 0, 4), lambda _: None))).astype(int)
        for clean in (cleans[0], cleans[-1])
    )
    assert np.abs(last - frames).mean() <= 1 < np.abs(first - frames).mean()


def test_a_held_first_frame_is_in_the_estimate(loaded, picture):
    model = loaded("ltx")
    plan, frames, cleans = watched("ltx", model, keyframes=str(picture))
    assert cleans[0].shape[2] == plan.geometry.latent_frames
    assert torch.equal(cleans[0][:, :, 0], cleans[-1][:, :, 0])
    seen = np.stack(list(decoded(decoder_of(model), Sampled(cleans[-1]), lambda _: None)))
    assert np.abs(seen.astype(int) - frames).max() <= 1


def test_pictures_at_frames_are_no_part_of_the_clip(loaded, picture):
    model = loaded("ltx-condition")
    _, frames, cleans = watched("ltx-condition", model, keyframes=[f"{picture}@0", f"{picture}@8:0.6"])
    seen = np.stack(list(decoded(decoder_of(model), Sampled(cleans[-1]), lambda _: None)))
    assert np.abs(seen.astype(int) - frames).max() <= 1


def test_watching_changes_nothing(loaded):
    """The pictures are made between two steps; neither the pipeline nor torch's own numbers notice."""
    model = loaded("animatediff")
    plan = make_plan(shot_of("animatediff", model), model.card)
    plain = render_plan(plan, model, previous=None, on_progress=lambda _: None).array()
    clock, pictures = iter(range(0, 1000, 5)), []
    show = Previewer(decoder_of(model), 8, clock=lambda: next(clock) / 5 + 0.0)

    def listen(event: Progress) -> None:
        if event.phase == "denoise" and (made := show(event)) is not None:
            pictures.append(made)

    state = torch.get_rng_state()
    shown = render_plan(plan, model, previous=None, on_progress=listen).array()
    assert np.array_equal(shown, plain)
    assert torch.equal(torch.get_rng_state(), state)
    assert pictures
    with Image.open(io.BytesIO(pictures[-1])) as image:
        assert image.format == "WEBP"


@pytest.mark.parametrize("kind", ["ltx", "animatediff"])
def test_what_is_kept_of_a_cut_render_is_shown(loaded, tmp_path, kind):
    model = loaded(kind)
    shot, kept = shot_of(kind, model), []

    class Cut(Exception):
        pass

    def stop(event: Progress) -> None:
        if event.phase == "denoise" and event.step == 3:
            kept.append(event.clean)
            raise Cut

    with pytest.raises(Cut):
        kinema.render(shot, model=model, out=tmp_path / "a.mp4", on_progress=stop, checkpoint_every=1)
    seen = preview(tmp_path / "a.mp4", device="cpu").array()
    vae = load_decoder(read_card(model.card.id), device="cpu")
    expected = list(decoded(vae, Sampled(kept[0], 0, len(seen)), lambda _: None))
    assert len(seen) == FRAMES.get(kind, 9)
    assert np.abs(seen.astype(int) - np.stack(expected)).max() <= 1
    events = []
    kinema.render(shot, model=model, out=tmp_path / "a.mp4", on_progress=events.append)
    first = next(event for event in events if event.phase == "denoise")
    assert torch.equal(first.clean, kept[0])


def test_a_piece_of_an_estimate_is_decoded_by_itself(loaded):
    """What the linear picture is fitted to: one latent frame, smaller than the clip."""
    for kind in ("ltx", "cogvideo", "hunyuan", "mochi", "vace"):
        vae = decoder_of(loaded(kind))
        z = torch.ones(1, loaded(kind).card.latent_channels, 1, 2, 2)
        with torch.inference_mode():
            [frame] = list(vae.stream(z))
        side = 2 * vae.stride.space
        assert frame.shape == (1, 3, 1, side, side)
