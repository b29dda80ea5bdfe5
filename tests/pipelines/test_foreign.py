"""Other diffusers pipelines behind one adapter: a shot's frames are those of the pipeline's own call, and a
call that was cut off goes on to the bit; on checkpoints in the true layout with random weights."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

import kinema
from foreign_checkpoints import save_motion_adapter
from kinema.core.errors import ConfigError, GeometryError, ModelError
from kinema.core.runtime import generator
from kinema.io.image import fit_image
from kinema.pipelines.cards import read_card
from kinema.pipelines.diffusers_solvers import VP_SOLVERS
from kinema.pipelines.durable.store import read_snapshot, write_snapshot
from kinema.pipelines.foreign.asked import option_defaults, takes
from kinema.pipelines.foreign.families import FAMILIES, USUAL
from kinema.pipelines.foreign.render import render_plan
from kinema.pipelines.foreign.signature import COMPUTED, call_arguments
from kinema.pipelines.memory import Snapshot
from kinema.pipelines.planning import make_plan
from kinema.story.shot import Shot
from kinema.story.storyboard import Storyboard

SIZE = {"ltx": 32, "ltx-condition": 32}
FRAMES = {"mochi": 7, "animatediff": 4, "svd": 4}
CALLS = {
    call.name: (family, call) for family in FAMILIES for calls in family.calls.values() for call in calls
}


SLOW = {"euler", "heun", "dpm++2m", "dpm++2m-karras", "dpm++2m-sde-karras", "ddim", "ddpm", "lcm"}
"""Solvers whose memory is like another's that is always tested."""


def marked(values, name):
    return pytest.param(*values, marks=[pytest.mark.slow] if name in SLOW else [])


@pytest.fixture(scope="module")
def loaded(foreign):
    models = {}

    def of(kind):
        if kind not in models:
            models[kind] = kinema.load(str(foreign(kind)), device="cpu")
        return models[kind]

    return of


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """A picture, another, and a clip of 9 frames at 8 fps."""
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    frames = rng.integers(0, 255, (9, 32, 32, 3), dtype=np.uint8)
    kinema.Clip(frames, 8).save(folder / "clip.mp4")
    return folder


def size_of(kind):
    side = SIZE.get(kind, 16)
    return f"{side}x{side}"


def shot_of(kind, model, **fields):
    given = {"prompt": "a red fox", "steps": 3, "seed": 7, "guidance": 4, "size": size_of(kind)}
    given |= {"frames": FRAMES.get(kind, 9)}
    if kind == "svd":
        del given["prompt"], given["guidance"]
    if "source" in fields:
        del given["frames"]
    return Shot(model=model.card.id, **(given | fields))


def frames_of(kind, model, memory=None, on_progress=lambda _: None, previous=None, **fields):
    plan = make_plan(shot_of(kind, model, **fields), model.card)
    more = {} if memory is None else {"memory": memory}
    return render_plan(plan, model, previous=previous, on_progress=on_progress, **more).array()


def theirs(kind, model, name, **call):
    """The frames of diffusers' own pipeline, as it rounds them for its own export."""
    pipe = getattr(diffusers, name)(**model.pipe.components)
    pipe.scheduler = call.pop("scheduler", model.scheduler("checkpoint"))
    pipe.set_progress_bar_config(disable=True)
    side = SIZE.get(kind, 16)
    given = {"prompt": "a red fox", "num_inference_steps": 3, "height": side, "width": side}
    given |= {"num_frames": FRAMES.get(kind, 9), "guidance_scale": 4.0, "output_type": "np"}
    given |= {"generator": generator(7, "noise")}
    for gone in call.pop("without", ()):
        del given[gone]
    video = pipe(**(given | call)).frames[0]
    return (np.asarray(video) * 255).round().astype(np.uint8)


def picture(media, side, name="a"):
    return Image.fromarray(fit_image(np.asarray(Image.open(media / f"{name}.png")), side, side))


# The same frames as the pipeline's own call


@pytest.mark.parametrize(
    ("kind", "name", "fields", "call"),
    [
        ("ltx", "LTXPipeline", {"negative": "dog"}, {"negative_prompt": "dog", "frame_rate": 25}),
        ("ltx", "LTXPipeline", {"guidance_rescale": 0.5}, {"guidance_rescale": 0.5, "frame_rate": 25}),
        ("ltx-condition", "LTXConditionPipeline", {"fps": 24}, {"frame_rate": 24}),
        ("cogvideo", "CogVideoXPipeline", {"negative": "dog"}, {"negative_prompt": "dog"}),
        ("cogvideo", "CogVideoXPipeline", {"frames": 1}, {"num_frames": 1}),
        ("hunyuan", "HunyuanVideoPipeline", {}, {}),
        ("vace", "WanVACEPipeline", {"negative": "dog"}, {"negative_prompt": "dog"}),
        (
            "hunyuan",
            "HunyuanVideoPipeline",
            {"negative": "dog", "options": {"true_cfg_scale": 3.0}},
            {"negative_prompt": "dog", "true_cfg_scale": 3.0},
        ),
        ("mochi", "MochiPipeline", {"negative": "dog"}, {"negative_prompt": "dog"}),
        ("animatediff", "AnimateDiffPipeline", {"negative": "dog"}, {"negative_prompt": "dog"}),
        (
            "animatediff",
            "AnimateDiffPipeline",
            {"options": {"decode_chunk_size": 2}},
            {"decode_chunk_size": 2},
        ),
    ],
)
def test_text_to_video_is_the_pipelines_own(loaded, kind, name, fields, call):
    model = loaded(kind)
    ours = frames_of(kind, model, **fields)
    expected = theirs(kind, model, name, **call)
    assert np.array_equal(ours, expected)
    if "frames" not in fields:
        assert ours.std() > 5


@pytest.mark.parametrize(
    ("kind", "name", "call"),
    [
        ("ltx", "LTXImageToVideoPipeline", {"frame_rate": 25}),
        ("cogvideo-i2v", "CogVideoXImageToVideoPipeline", {}),
        (
            "svd",
            "StableVideoDiffusionPipeline",
            {
                "without": ("prompt", "guidance_scale"),
                "fps": 7,
                "min_guidance_scale": 1.0,
                "max_guidance_scale": 3.0,
                "motion_bucket_id": 90,
            },
        ),
    ],
)
def test_image_to_video_is_the_pipelines_own(loaded, media, kind, name, call):
    model = loaded(kind)
    options = {"motion_bucket_id": 90} if kind == "svd" else {}
    ours = frames_of(kind, model, keyframes=str(media / "a.png"), options=options)
    image = picture(media, SIZE.get(kind, 16))
    assert np.array_equal(ours, theirs(kind, model, name, image=image, **call))
    assert not np.array_equal(ours, frames_of(kind, model, keyframes=str(media / "b.png"), options=options))


def test_pictures_at_frames_are_conditions(loaded, media):
    from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition

    model = loaded("ltx-condition")
    held = [f"{media}/a.png@0", f"{media}/b.png@8:0.6"]
    ours = frames_of("ltx-condition", model, keyframes=held, options={"image_cond_noise_scale": 0.1})
    conditions = [
        LTXVideoCondition(image=picture(media, 32, "a"), frame_index=0, strength=1.0),
        LTXVideoCondition(image=picture(media, 32, "b"), frame_index=8, strength=0.6),
    ]
    more = {"conditions": conditions, "image_cond_noise_scale": 0.1, "frame_rate": 25}
    assert np.array_equal(ours, theirs("ltx-condition", model, "LTXConditionPipeline", **more))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("cogvideo", "CogVideoXVideoToVideoPipeline"),
        ("animatediff", "AnimateDiffVideoToVideoPipeline"),
    ],
)
def test_video_to_video_is_the_pipelines_own(loaded, media, kind, name):
    model, source = loaded(kind), {"path": str(media / "clip.mp4"), "strength": 0.7}
    ours = frames_of(kind, model, source=source)
    clip = kinema.Clip.open(media / "clip.mp4").array()
    video = [Image.fromarray(fit_image(frame, 16, 16)) for frame in clip]
    more = {"video": video, "strength": 0.7, "without": ("num_frames",)}
    assert np.array_equal(ours, theirs(kind, model, name, **more))
    assert len(ours) == 9


@pytest.mark.parametrize("strength", [0.0, 1e-9, 0.0005])
def test_a_clip_that_hardly_may_change_is_one_step_not_an_error(loaded, media, strength):
    model, path = loaded("animatediff"), str(media / "clip.mp4")
    least = frames_of("animatediff", model, source={"path": path, "strength": 0.001})
    hardly = frames_of("animatediff", model, source={"path": path, "strength": strength})
    assert np.array_equal(hardly, least)


def test_vace_follows_a_clip_where_its_mask_is_open(loaded, media, tmp_path):
    model = loaded("vace")
    half = np.zeros((16, 16), np.uint8)
    half[:, 8:] = 255
    Image.fromarray(half).save(tmp_path / "mask.png")
    control = {"path": str(media / "clip.mp4"), "mask": str(tmp_path / "mask.png"), "strength": 0.8}
    given = {"control": control, "fps": 8, "keyframes": f"{media}/a.png@3"}
    ours = frames_of("vace", model, **given)
    clip = kinema.Clip.open(media / "clip.mp4").array()
    video = [Image.fromarray(fit_image(frame, 16, 16)) for frame in clip]
    mask = [Image.fromarray(half)] * 9
    video[3], mask[3] = picture(media, 16), Image.new("L", (16, 16), 0)
    call = {"video": video, "mask": mask, "conditioning_scale": 0.8, "negative_prompt": ""}
    assert np.array_equal(ours, theirs("vace", model, "WanVACEPipeline", **call))
    for change in ({"control": control | {"strength": 0.2}}, {"keyframes": f"{media}/b.png@3"}):
        assert not np.array_equal(ours, frames_of("vace", model, **(given | change)))


def test_vace_holds_pictures_anywhere_and_carries_clips_on(loaded, media):
    model = loaded("vace")
    ours = frames_of("vace", model, keyframes=[f"{media}/a.png@0", f"{media}/b.png@-1"], fps=8)
    gray, open_, closed = (
        Image.new("RGB", (16, 16), (128,) * 3),
        *(Image.new("L", (16, 16), v) for v in (255, 0)),
    )
    video = [picture(media, 16, "a"), *[gray] * 7, picture(media, 16, "b")]
    mask = [closed, *[open_] * 7, closed]
    assert np.array_equal(ours, theirs("vace", model, "WanVACEPipeline", video=video, mask=mask))
    clip = str(media / "clip.mp4")
    longer = frames_of("vace", model, extend={"path": clip, "context": 2}, frames=4, size="32x32")
    before = kinema.Clip.open(clip).array()
    side = {"height": 32, "width": 32}
    video = [*(Image.fromarray(f) for f in before[-5:]), *[gray.resize((32, 32))] * 4]
    mask = [m.resize((32, 32)) for m in [*[closed] * 5, *[open_] * 4]]
    expected = theirs("vace", model, "WanVACEPipeline", video=video, mask=mask, **side)
    assert np.array_equal(longer[9:], expected[5:])


def test_a_control_clip_begins_with_the_first_new_frame_of_a_clip_that_goes_on(loaded, media):
    model, path = loaded("vace"), str(media / "clip.mp4")
    given = {"extend": {"path": path, "context": 2}, "control": {"path": path, "mask": path}}
    ours = frames_of("vace", model, **given, frames=4, size="32x32")
    clip = [Image.fromarray(frame) for frame in kinema.Clip.open(path).array()]
    mask = [*[Image.new("L", (32, 32), 0)] * 5, *(frame.convert("L") for frame in clip[:4])]
    call = {"video": [*clip[-5:], *clip[:4]], "mask": mask, "height": 32, "width": 32}
    assert np.array_equal(ours[9:], theirs("vace", model, "WanVACEPipeline", **call)[5:])


@pytest.mark.parametrize("solver", [marked((solver,), solver) for solver in VP_SOLVERS])
def test_solvers_are_diffusers_schedulers(loaded, solver):
    model = loaded("animatediff")
    name, options = VP_SOLVERS[solver]
    scheduler = getattr(diffusers, name).from_config(model.pipe.scheduler.config, **options)
    expected = theirs("animatediff", model, "AnimateDiffPipeline", scheduler=scheduler)
    assert np.array_equal(frames_of("animatediff", model, solver=solver), expected)


def test_the_shift_is_the_schedulers(loaded):
    model = loaded("hunyuan")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_config(model.pipe.scheduler.config, shift=3.0)
    expected = theirs("hunyuan", model, "HunyuanVideoPipeline", scheduler=scheduler)
    assert np.array_equal(frames_of("hunyuan", model, shift=3), expected)
    assert not np.array_equal(expected, frames_of("hunyuan", model))


def test_svd_scales_run_from_the_first_frame_to_the_last(loaded, media):
    model = loaded("svd")
    picked = {"keyframes": str(media / "a.png")}
    ours = frames_of("svd", model, guidance={0: 2, -1: 5}, **picked)
    image = picture(media, 16)
    call = {"without": ("prompt", "guidance_scale"), "fps": 7, "image": image}
    expected = theirs(
        "svd", model, "StableVideoDiffusionPipeline", min_guidance_scale=2.0, max_guidance_scale=5.0, **call
    )
    assert np.array_equal(ours, expected)
    resolved = Shot.from_mapping(make_plan(shot_of("svd", model, **picked), model.card).shot)
    assert np.array_equal(
        frames_of("svd", model, **picked), frames_of("svd", model, guidance={0: 1, -1: 3}, **picked)
    )
    again = make_plan(resolved, model.card)
    assert again.sampling.guidance == make_plan(shot_of("svd", model, **picked), model.card).sampling.guidance


# Prompts over frames, and long clips


def test_prompt_travel_is_the_pipelines_prompt_dict(loaded):
    model = loaded("animatediff")
    ours = frames_of("animatediff", model, prompt={0: "a red fox", 5: "the snow"}, negative="dog", frames=6)
    pipe = diffusers.AnimateDiffPipeline(**model.pipe.components)
    pipe.scheduler = model.scheduler("checkpoint")
    pipe.enable_free_noise(context_length=6, context_stride=6)
    video = pipe(
        prompt={0: "a red fox", 5: "the snow"},
        negative_prompt="dog",
        num_frames=6,
        height=16,
        width=16,
        num_inference_steps=3,
        guidance_scale=4.0,
        generator=generator(7, "noise"),
        output_type="np",
    ).frames[0]
    pipe.disable_free_noise()
    assert np.abs(ours.astype(int) - (video * 255).round().astype(int)).max() <= 1
    plain = frames_of("animatediff", model, negative="dog", frames=6)
    assert np.abs(plain.astype(int) - ours.astype(int)).max() > 1
    assert np.array_equal(plain, frames_of("animatediff", model, negative="dog", frames=6))


@pytest.mark.slow
def test_a_clip_longer_than_the_model_is_made_in_windows(loaded):
    model = loaded("animatediff")
    fields = {"frames": 20, "windows": {"kind": "fuse", "length": 8, "overlap": 4}}
    ours = frames_of("animatediff", model, **fields)
    pipe = diffusers.AnimateDiffPipeline(**model.pipe.components)
    pipe.scheduler = model.scheduler("checkpoint")
    pipe.enable_free_noise(context_length=8, context_stride=4)
    call = {"num_frames": 20, "height": 16, "width": 16, "num_inference_steps": 3, "guidance_scale": 4.0}
    more = {"generator": generator(7, "noise"), "output_type": "np"}
    video = pipe(prompt="a red fox", **call, **more).frames[0]
    pipe.disable_free_noise()
    assert np.abs(ours.astype(int) - (video * 255).round().astype(int)).max() <= 1
    by_itself = make_plan(shot_of("animatediff", model, frames=20), model.card)
    assert by_itself.windows is not None
    assert by_itself.windows.length == 16


# A call that was cut off


class Disk:
    """A memory that keeps every state as the durable layer does, in a file."""

    def __init__(self, folder, stop=None):
        self.folder, self.stop, self.kept = folder, stop, 0

    def recall(self, name):
        return read_snapshot(self.folder / f"{name}.state", "key")

    def offer(self, name, make):
        self.settle(name, make())

    def settle(self, name, snapshot: Snapshot):
        self.kept += 1
        write_snapshot(self.folder / f"{name}.state", snapshot, "key", point="step", durable=False)


class Cut(Exception):
    """A render that was stopped."""


def cut_at(step):
    def on_progress(event):
        if event.phase == "denoise" and event.step == step:
            raise Cut

    return on_progress


SOLVERS = [
    ("ltx", None), ("ltx-condition", None), ("cogvideo", "dpm"), ("hunyuan", None), ("vace", None),
    ("svd", None), *[marked(("animatediff", solver), solver) for solver in VP_SOLVERS],
    pytest.param("mochi", None, marks=pytest.mark.slow),
    pytest.param("cogvideo-i2v", None, marks=pytest.mark.slow),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "solver"), SOLVERS)
@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_call_goes_on_to_the_bit(loaded, media, tmp_path, kind, solver, step):
    model = loaded(kind)
    fields = {"solver": solver, "steps": 3}
    if kind in ("svd", "cogvideo-i2v", "ltx-condition"):
        fields["keyframes"] = str(media / "a.png")
    events = []
    whole = frames_of(kind, model, on_progress=events.append, **fields)
    steps = max(e.steps for e in events if e.phase == "denoise")
    with pytest.raises(Cut):
        frames_of(kind, model, Disk(tmp_path), cut_at(step), **fields)
    forwards = []
    hook = model.denoiser.register_forward_hook(lambda _m, _i, out: forwards.append(type(out).__name__))
    try:
        rest = frames_of(kind, model, Disk(tmp_path), events.append, **fields)
    finally:
        hook.remove()
    assert np.array_equal(rest, whole)
    assert forwards.count("Nothing") == step * len(forwards) / steps  # no work for steps that were taken
    done = [e.step for e in events if e.phase == "denoise"]
    assert done == [*range(1, steps + 1), *range(step, steps + 1)]


def test_after_the_last_step_only_the_decoder_runs(loaded, tmp_path):
    model = loaded("animatediff")
    with pytest.raises(Cut):
        frames_of("animatediff", model, Disk(tmp_path), cut_at(3))
    later = Disk(tmp_path)
    assert np.array_equal(frames_of("animatediff", model, later), frames_of("animatediff", model))
    assert later.kept == 0


@pytest.mark.slow
def test_video_to_video_goes_on_to_the_bit(loaded, media, tmp_path):
    model, source = loaded("cogvideo"), {"path": str(media / "clip.mp4"), "strength": 0.7}
    whole = frames_of("cogvideo", model, source=source, steps=5, solver="dpm")
    with pytest.raises(Cut):
        frames_of("cogvideo", model, Disk(tmp_path), cut_at(2), source=source, steps=5, solver="dpm")
    assert np.array_equal(
        whole, frames_of("cogvideo", model, Disk(tmp_path), source=source, steps=5, solver="dpm")
    )


def test_a_file_goes_on_where_it_was_cut(loaded, tmp_path):
    model = loaded("animatediff")
    shot = shot_of("animatediff", model)
    kinema.render(shot, model=model, out=tmp_path / "whole.mp4")
    with pytest.raises(Cut):
        kinema.render(shot, model=model, out=tmp_path / "cut.mp4", on_progress=cut_at(2), checkpoint_every=1)
    assert (tmp_path / ".cut.mp4.kinema").is_dir()
    steps = []
    kinema.render(shot, model=model, out=tmp_path / "cut.mp4", on_progress=steps.append)
    assert (tmp_path / "cut.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert [e.step for e in steps if e.phase == "denoise"] == [2, 3]
    again = kinema.render(tmp_path / "cut.mp4", model=model)  # the record makes it again
    assert np.array_equal(again.array(), kinema.render(shot, model=model).array())


def test_latents_that_are_not_finite_are_told_at_their_step(loaded):
    model = loaded("animatediff")
    own = model.denoiser.forward

    def broken(*args, **kwargs):
        out = own(*args, **kwargs)
        out.sample[:] = float("nan")
        return out

    model.denoiser.forward = broken
    try:
        with pytest.raises(kinema.KinemaError, match=r"not finite after step 1 of 3"):
            frames_of("animatediff", model)
        assert model.denoiser.forward is broken  # what was there before is put back
    finally:
        del model.denoiser.forward


# Going on from a clip


@pytest.mark.parametrize("kind", ["ltx", pytest.param("svd", marks=pytest.mark.slow)])
def test_a_clip_is_carried_on_from_its_last_frame(loaded, media, kind):
    model = loaded(kind)
    added = 8 if kind != "svd" else 3
    fields = {"extend": str(media / "clip.mp4"), "frames": added, "size": "32x32"}
    ours = frames_of(kind, model, **fields)
    before = kinema.Clip.open(media / "clip.mp4").array()
    assert len(ours) == 9 + added
    assert np.array_equal(ours[:9], before)
    last = Image.fromarray(before[-1])
    if kind == "ltx":
        call = {"image": last, "frame_rate": 8, "num_frames": 9, "height": 32, "width": 32}
        assert np.array_equal(ours[9:], theirs(kind, model, "LTXImageToVideoPipeline", **call)[1:])


def test_conditions_carry_on_from_several_frames(loaded, media):
    from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition

    model, clip = loaded("ltx-condition"), str(media / "clip.mp4")
    ours = frames_of("ltx-condition", model, extend={"path": clip, "context": 2}, frames=8, size="32x32")
    frames = [Image.fromarray(frame) for frame in kinema.Clip.open(clip).array()[-5:]]
    call = {"conditions": LTXVideoCondition(video=frames), "num_frames": 13, "frame_rate": 8}
    assert np.array_equal(ours[9:], theirs("ltx-condition", model, "LTXConditionPipeline", **call)[5:])


def test_a_storyboard_goes_on_from_shot_to_shot(loaded, media):
    model = loaded("svd")
    first = shot_of("svd", model, keyframes=str(media / "a.png"))
    second = Shot(model=model.card.id, extend="previous", frames=3, steps=3, seed=8)
    frames = kinema.render(Storyboard.make(shots=(first, second)), model=model).array()
    assert len(frames) == 7
    alone = kinema.render(first, model=model).array()
    assert np.array_equal(frames[:4], alone)
    expected = theirs(
        "svd",
        model,
        "StableVideoDiffusionPipeline",
        image=Image.fromarray(alone[-1]),
        without=("prompt", "guidance_scale"),
        fps=7,
        num_frames=4,
        min_guidance_scale=1.0,
        max_guidance_scale=3.0,
        generator=generator(8, "noise"),
    )
    assert np.array_equal(frames[4:], expected[1:])


# A motion adapter on an image checkpoint


def test_a_motion_adapter_moves_an_image_checkpoint(image_model, tmp_path):
    adapter = save_motion_adapter(tmp_path / "adapter")
    name = f"{adapter}@{image_model('sd')}"
    card = read_card(name)
    assert card.modes == {"text", "video"}
    model = kinema.load(name, device="cpu")
    fields = {"frames": 4, "size": "16x16", "steps": 2, "seed": 7, "guidance": 4}
    ours = kinema.generate("a red fox", model=model, **fields).array()
    pipe = diffusers.AnimateDiffPipeline.from_pretrained(
        image_model("sd"), motion_adapter=diffusers.MotionAdapter.from_pretrained(adapter)
    )
    linear = {
        "beta_schedule": "linear",
        "clip_sample": False,
        "timestep_spacing": "linspace",
        "steps_offset": 1,
    }
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, **linear)
    call = {"num_frames": 4, "height": 16, "width": 16, "num_inference_steps": 2, "guidance_scale": 4.0}
    video = pipe("a red fox", **call, generator=generator(7, "noise"), output_type="np").frames[0]
    assert np.array_equal(ours, (video * 255).round().astype(np.uint8))
    with pytest.raises(ModelError, match=r"moves the pictures of Stable Diffusion 1"):
        read_card(f"{adapter}@{image_model('sdxl')}")


# What the table says is what diffusers says


@pytest.mark.parametrize("name", CALLS)
def test_signatures_are_read_as_python_reads_them(name):
    family, call = CALLS[name]
    real = inspect.signature(getattr(diffusers, name).__call__).parameters
    read = call_arguments(call.module, name)
    assert [n for n in list(real)[1:] if real[n].kind is not inspect.Parameter.VAR_KEYWORD] == list(read)
    for argument, default in read.items():
        assert (
            default is COMPUTED
            or default == real[argument].default
            or real[argument].default is inspect._empty
        )
    assert set(call.names.values()) <= set(read)
    assert set(option_defaults(family, call)) <= set(read)
    assert not set(option_defaults(family, call)) & set(USUAL.values())


# What is refused before weights are read


@pytest.mark.parametrize(
    ("kind", "fields", "error", "message"),
    [
        ("svd", {}, ModelError, r"cannot do text to video; it does: image to video"),
        (
            "svd",
            {"prompt": "a fox", "keyframes": "{a}"},
            ConfigError,
            r"Stable Video Diffusion reads no prompt",
        ),
        (
            "svd",
            {"negative": "a dog", "keyframes": "{a}"},
            ConfigError,
            r"has no negative prompt; leave it out",
        ),
        ("svd", {"guidance": "0:(1), 2:(5), 3:(1)", "keyframes": "{a}"}, ConfigError, "in a straight line"),
        ("svd", {"keyframes": "{a}@2"}, ModelError, "cannot do held frames anywhere"),
        ("svd", {"keyframes": "{a}@0:0.5"}, ModelError, "cannot do keyframes below full strength"),
        ("svd", {"solver": "euler", "keyframes": "{a}"}, ConfigError, "unknown solver of .*checkpoint"),
        ("ltx", {"guidance": "0:(1), 8:(5)"}, ConfigError, r"guidance over frames is not carried by"),
        ("ltx", {"camera": "zoom in"}, ConfigError, r"camera is not carried by .*LTX-Video"),
        ("ltx", {"control": {"path": "{clip}"}}, ConfigError, "control is read by Wan VACE and by"),
        ("vace", {"control": {"path": "{clip}", "model": "x"}}, ConfigError, "reads its control itself"),
        (
            "vace",
            {"control": {"path": "{clip}", "end": 0.5}},
            ConfigError,
            "control.start and control.end",
        ),
        (
            "vace",
            {"control": {"path": "{clip}", "strength": "0:(0), 8:(1)"}},
            ConfigError,
            "over frames",
        ),
        ("vace", {"keyframes": "{a}@3:0.5"}, ModelError, "cannot do keyframes below full strength"),
        ("vace", {"source": "{clip}", "frames": None}, ModelError, "cannot do video to video"),
        ("ltx", {"loop": True, "frames": 8}, ConfigError, "loop is not carried by"),
        ("ltx", {"windows": "fuse"}, ConfigError, "windows is not carried by"),
        ("ltx", {"shift": 3}, ConfigError, "shift is not carried by"),
        ("ltx", {"grid": "wan"}, ConfigError, "grid is not carried by"),
        ("ltx", {"guidance_interval": (0.1, 0.9)}, ConfigError, "guidance_interval is not carried by"),
        ("ltx", {"guidance_method": "apg"}, ConfigError, "guidance_method is not carried by"),
        ("ltx", {"blend": "slerp"}, ConfigError, "blend is not carried by"),
        ("cogvideo", {"guidance_rescale": 0.5}, ConfigError, "guidance_rescale is not carried by"),
        ("cogvideo", {"guidance_low": 3}, ConfigError, "guidance_low is for models of two transformers"),
        (
            "ltx",
            {"prompt": {0: "a", 4: "b"}},
            ConfigError,
            r"prompt changes over the clip, and LTX-Video reads",
        ),
        ("ltx", {"prompt": "a (fox:1.3)"}, ConfigError, r"weights such as \(word:1.3\) are not read"),
        ("ltx", {"negative": "dog", "guidance": 1}, ConfigError, r"negative acts through guidance above 1"),
        ("ltx", {"keyframes": "{a}@8"}, ModelError, "cannot do held frames anywhere"),
        ("ltx", {"mode": "frame_by_frame"}, ModelError, r"cannot do frame by frame"),
        ("ltx", {"source": "{clip}", "frames": None}, ModelError, "cannot do video to video"),
        ("ltx", {"size": "40x32"}, GeometryError, r"width=40 is not a multiple of 32 \(nearest: 32 and 64\)"),
        ("ltx", {"frames": 10}, GeometryError, r"frames=10 is not 1 \+ a multiple of 4.*9 and 13"),
        ("mochi", {"frames": 9}, GeometryError, r"1 \+ a multiple of 6.*7 and 13"),
        ("ltx", {"solver": "unipc"}, ConfigError, r"unknown solver of .*Available: checkpoint, euler"),
        ("hunyuan", {"negative": "dog"}, ConfigError, r"add --option true_cfg_scale=4"),
        ("hunyuan", {"options": {"true_cfg": 3.0}}, ConfigError, r"Did you mean 'true_cfg_scale'"),
        ("hunyuan", {"options": {"latents": 3.0}}, ConfigError, r"unknown option of HunyuanVideoPipeline"),
        ("hunyuan", {"options": {"num_frames": 5}}, ConfigError, r"unknown option of HunyuanVideoPipeline"),
        (
            "svd",
            {"options": {"motion_bucket_id": 1.5}, "keyframes": "{a}"},
            ConfigError,
            "not a whole number",
        ),
        (
            "cogvideo",
            {"options": {"use_dynamic_cfg": 1}},
            ConfigError,
            "is not true or false; its default is",
        ),
        ("animatediff", {"blend": "velocity"}, ConfigError, "write blend: embedding or slerp"),
        ("animatediff", {"windows": "continue", "frames": 20}, ConfigError, "windows are fused; write fuse"),
        (
            "ltx-condition",
            {"keyframes": "{a}", "source": "{clip}", "frames": None},
            ModelError,
            "cannot do video to video",
        ),
        (
            "ltx",
            {"extend": {"path": "{clip}", "context": 2}, "size": None, "frames": 8},
            GeometryError,
            "alone",
        ),
    ],
)
def test_what_a_pipeline_cannot_carry_is_refused_by_name(foreign, media, kind, fields, error, message):
    def filled(value):
        if isinstance(value, dict):
            return {name: filled(part) for name, part in value.items()}
        return value.format(a=media / "a.png", clip=media / "clip.mp4") if isinstance(value, str) else value

    card = read_card(str(foreign(kind)))
    given = {"frames": FRAMES.get(kind, 9), "size": size_of(kind), "model": card.id}
    given |= {} if kind == "svd" else {"prompt": "a fox"}
    given |= {name: filled(value) for name, value in fields.items()}
    with pytest.raises(error, match=message):
        make_plan(Shot(**{name: value for name, value in given.items() if value is not None}), card)


def test_options_are_for_other_pipelines(small):
    card = read_card(str(small))
    with pytest.raises(ConfigError, match=r"options are arguments of another diffusers pipeline"):
        make_plan(Shot(prompt="a", model=card.id, options={"motion_bucket_id": 3}), card)


def test_a_rate_that_the_pipeline_is_not_told_is_noted(foreign):
    card = read_card(str(foreign("cogvideo")))
    plan = make_plan(Shot(prompt="a", model=card.id, frames=9, fps=24), card)
    assert any("moves as for 8 fps, and the file plays 24" in note for note in plan.notes)


def test_plans_differ_by_their_options(foreign, media):
    card = read_card(str(foreign("svd")))
    shot = Shot(model=card.id, frames=4, size="16x16", keyframes=str(media / "a.png"), seed=1)
    digests = {make_plan(shot.with_(options={"motion_bucket_id": n}), card).digest for n in (1, 2)}
    assert len(digests) == 2


COLUMNS = ("text", "image", "first", "last", "keyframes", "video", "extend")


def table_row(class_name, family):
    calls = family.calls[class_name]
    modes = frozenset().union(*(call.modes for call in calls))
    able = ["yes" if mode in modes else "" for mode in COLUMNS]
    able.append("yes" if family.travel else "")
    able.append("yes" if any(takes(call, "negative") for call in calls) else "")
    return "| " + " | ".join([family.title, f"`{class_name}`", *able]) + " |"


def test_the_page_says_what_the_code_can():
    page = (Path(__file__).parents[2] / "docs" / "other-models.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if re.match(r"\| [^|]+ \| `\w+Pipeline` \|", line)]
    expected = [table_row(name, family) for family in FAMILIES for name in family.calls]
    assert [re.sub(r" +\|", " |", row) for row in rows] == [re.sub(r" +\|", " |", row) for row in expected]
    for family in FAMILIES:
        assert f"| {family.title} | {', '.join(f'`{n}`' for n in family.solver_names)} |" in page
    assert all(name in page for family in FAMILIES for name in family.options)


def test_pickled_weights_are_not_read(foreign, tmp_path):
    import shutil

    copy = shutil.copytree(foreign("ltx"), tmp_path / "copy")
    weights = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelError, match="holds pickled weights"):
        kinema.load(str(copy), device="cpu")


def test_nothing_heavy_is_imported_for_a_plan(foreign, media):
    import subprocess
    import sys

    code = (
        "import sys\n"
        "from kinema.pipelines.cards import read_card\n"
        "from kinema.pipelines.planning import make_plan\n"
        "from kinema.story.shot import Shot\n"
        f"card = read_card({str(foreign('svd'))!r})\n"
        f"make_plan(Shot(model=card.id, frames=4, size='16x16', keyframes={str(media / 'a.png')!r}), card)\n"
        "assert 'diffusers' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_low_precision_is_the_pipelines_own(foreign):
    model = kinema.load(str(foreign("cogvideo")), device="cpu", dtype="bfloat16")
    assert model.denoiser.dtype == torch.bfloat16
    ours = frames_of("cogvideo", model, dtype="bfloat16")
    assert np.array_equal(ours, theirs("cogvideo", model, "CogVideoXPipeline"))
