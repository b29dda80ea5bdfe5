"""The camera in a plan: numbers only, refused early, and doing in each mode what it says."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import kinema
from kinema.animation.camera import path
from kinema.animation.depth import EstimatedDepth, FlatDepth, GivenDepth, Preparation
from kinema.animation.warp import warp_frame
from kinema.core.errors import ConfigError, ModelError
from kinema.core.runtime import frame_noise
from kinema.pipelines.camera import moves as moves_file
from kinema.pipelines.camera.known import moved_latents
from kinema.pipelines.camera.moves import CameraMoves
from kinema.pipelines.cards import read_card
from kinema.pipelines.conditioning import condition
from kinema.pipelines.frame_by_frame.loop import Loop, LoopState
from kinema.pipelines.frame_by_frame.pictures import Pictures
from kinema.pipelines.known import to_pixels
from kinema.pipelines.model import Model
from kinema.pipelines.planning import make_plan
from kinema.story.camera import Camera
from kinema.story.camera_deforum import DeforumCamera
from kinema.story.shot import Shot

CPU = torch.device("cpu")
PAN = {"pan_x": {0: 0, -1: 0.5}}


@pytest.fixture(scope="module")
def model(small) -> Model:
    return kinema.load(str(small), device="cpu")


@pytest.fixture
def picture(tmp_path) -> str:
    coarse = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC).save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


def plan_of(model, **fields):
    return make_plan(Shot(model=model.card.id, seed=3, frames=9, steps=3, **fields), model.card)


def test_a_plan_holds_the_camera_as_numbers(model):
    plan = plan_of(model, camera={**PAN, "noise": 0.5})
    assert json.loads(json.dumps(asdict(plan)))["camera"]["noise"] == 0.5
    (name, values), *rest = plan.camera.tracks
    assert (name, values[0], values[-1], len(values)) == ("pan_x", 0.0, 0.5, 9)
    assert not rest
    again = plan.camera.path(plan.geometry).between(0, 8).matrix_33
    np.testing.assert_array_equal(again, path(Camera(**PAN), 9, 8, (64, 64)).between(0, 8).matrix_33)
    other = plan_of(model, camera={"pan_x": {0: 0, -1: 0.4}, "noise": 0.5})
    assert plan.digest != other.digest


def test_a_depth_picture_is_part_of_the_plan(model, tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "d.png")
    camera = {"x": {0: 0, -1: 0.1}, "depth": str(tmp_path / "d.png"), "noise": 1}
    first = plan_of(model, camera=camera).digest
    Image.fromarray(np.ones((4, 4), np.uint16)).save(tmp_path / "d.png")
    assert plan_of(model, camera=camera).digest != first


def test_noise_moves_by_whole_latents_and_is_the_shots_own_otherwise(model):
    """The middles of the latent groups are frames 0, 2 and 6."""
    own = frame_noise(3, (model.card.latent_channels, 8, 8), 3)
    still = condition(plan_of(model, camera={"noise": 1}), model).start_BCTYX
    assert torch.equal(still[:, :, 0], still[:, :, 2])
    none = condition(plan_of(model, camera={**PAN, "noise": 0, "follow": 0}), model).start_BCTYX
    assert torch.equal(none, own)
    plan = plan_of(model, camera={"unit": "pixel", "pan_x": {0: 0, 2: 8, 6: 24, 8: 24}, "noise": 1})
    moved = condition(plan, model).start_BCTYX
    stride = 64 // moved.shape[-1]
    for t, pixels in ((1, 8), (2, 24)):
        by = pixels // stride
        assert torch.equal(moved[:, :, t, :, :-by], moved[:, :, 0, :, by:])


def test_a_held_frame_is_the_moved_keyframe(model, picture):
    plan = plan_of(model, keyframes=picture, camera={**PAN, "hold": [-1]})
    conditions = condition(plan, model)
    np.testing.assert_array_equal(conditions.table_SBT[0, 0] > 0, [False, True, False])
    frame = torch.from_numpy(np.array(Image.open(picture))).permute(2, 0, 1)[None].float() / 255
    steps = path(Camera(**PAN), 9, 8, (64, 64))
    clip = torch.stack([warp_frame(frame, steps.between(0, f))[0].clamp(0, 1) for f in range(9)], 2)
    expected = model.vae.encode(clip * 2 - 1)[:, :, 2]
    torch.testing.assert_close(conditions.start_BCTYX[:, :, 2], expected)
    exact = model.vae.encode(to_pixels([np.asarray(Image.open(picture))], CPU))
    assert torch.equal(conditions.start_BCTYX[:, :, :1], exact)  # the keyframe itself stays as it is


def test_follow_is_a_level_for_every_frame(model, picture):
    plan = plan_of(model, keyframes=picture, camera={**PAN, "follow": {0: 0.8, -1: 0.4}})
    assert plan.camera.follow == pytest.approx((0.8, 0.75, 0.55))
    first = condition(plan, model).table_SBT[:, 0].amax(dim=0)
    torch.testing.assert_close(first, torch.tensor([0, 0.25, 0.45]))


@pytest.mark.parametrize(
    ("camera", "says"),
    [
        ({**PAN, "hold": -1}, "the shot has none; give it a keyframe"),
        ({"dialect": "deforum", "mode": "3D", "translation_z": 5}, "write mode: frame_by_frame"),
        ({"z": {0: 0, -1: 1}}, "reaches the flat picture at frame 8"),
        ({"zoom": {0: 1, -1: -1}}, r"camera\.zoom=0 at frame 4"),
    ],
)
def test_what_cannot_be_is_refused_before_weights_load(model, camera, says):
    with pytest.raises(ConfigError, match=says):
        plan_of(model, camera=camera)


def test_a_checkpoint_that_holds_no_frames_refuses_by_name(wan, picture):
    card = read_card(str(wan("i2v")))
    shot = Shot(model=card.id, keyframes=picture, frames=9, size="64x64", camera={**PAN, "hold": -1})
    with pytest.raises(ModelError, match="held frames anywhere"):
        make_plan(shot, card)


def test_frame_by_frame_moves_pictures_and_refuses_what_is_for_clips(model, picture):
    with pytest.raises(ConfigError, match="for mode: joint"):
        plan_of(model, mode="frame_by_frame", keyframes=picture, camera={**PAN, "hold": -1})
    camera = {**PAN, "border": "wrap"}
    plan = plan_of(model, mode="frame_by_frame", keyframes=picture, camera=camera)
    moves = CameraMoves.of(plan, plan.camera)
    frame = torch.rand(1, 3, 64, 64)
    warped, holes = moves.warp(frame, 0, 8)
    torch.testing.assert_close(warped, frame.roll(-32, 3), atol=1e-5, rtol=0)
    assert holes.sum() == 64 * 32
    there, _ = moves.warp(warped, 8, 0)
    torch.testing.assert_close(there, frame, atol=1e-4, rtol=0)
    same, nothing = moves.warp(frame, 5, 5)
    assert torch.equal(same, frame)
    assert nothing is None


def test_a_depth_picture_is_carried_along():
    found = path(Camera(depth="d.png", z={0: 0, 4: 0.25}), 5, 8, (16, 16))
    depth = GivenDepth(lambda i: torch.full((16, 16), 1.0), near=1.0, far=2.0, still=True)
    moves = CameraMoves(found, depth)
    frame = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(moves.distances(frame, 4), torch.full((1, 1, 16, 16), 0.75))
    flat = CameraMoves(path(Camera(z={0: 0, 4: 0.25}), 5, 8, (16, 16)), FlatDepth())
    torch.testing.assert_close(moves.warp(frame, 0, 4)[0], flat.warp(frame, 0, 4)[0], atol=1e-5, rtol=0)


def test_under_deforum_a_depth_picture_goes_where_the_picture_goes():
    """A bar that is near, in the picture and in its depth."""
    values = torch.zeros(64, 64)
    values[:, 28:36] = 1
    camera = DeforumCamera(mode="3D", translation_x=4, padding_mode="zeros", depth="d.png")
    moves = CameraMoves(
        path(camera, 10, 8, (64, 64)), GivenDepth(lambda i: values, near=0.5, far=4.0, still=True)
    )
    picture, across = values.expand(1, 1, 64, 64), torch.arange(64.0)

    def centre(bar: torch.Tensor) -> float:
        weight = bar.clamp(0, 1).mean(dim=(0, 1, 2))
        return float((weight * across).sum() / weight.sum())

    for frame in range(1, 10):
        picture, _ = moves.warp(picture, frame - 1, frame)
        found = moves.distances(picture, frame)
        near = (1 / found - 0.25) / (2 - 0.25)
        assert centre(near) == pytest.approx(centre(picture), abs=1.0)
        assert 0.5 <= float(found.min()) < float(found.max()) <= 4.0
    assert abs(centre(picture) - 31.5) > 5


def test_a_depth_picture_goes_each_step_once_to_the_same_bits(monkeypatch):
    """Also where a frame between two that are drawn is gone to from both, back and forth."""
    camera = DeforumCamera(mode="3D", translation_x=0.5, translation_z=2, rotation_3d_y=1, depth="d.png")
    found, values = path(camera, 60, 8, (16, 16)), torch.rand(16, 16, generator=torch.manual_seed(0))
    picture, steps = torch.zeros(1, 3, 16, 16), []
    monkeypatch.setattr(moves_file, "warp_frame", lambda *args: steps.append(1) or warp_frame(*args))

    def moves():
        return CameraMoves(found, GivenDepth(lambda i: values, near=0.5, far=4.0, still=True))

    whole, frames = moves(), [4, 1, 2, 3, 4, 3, 2, *range(5, 60), 50, 59]
    kept = {frame: whole.distances(picture, frame) for frame in frames}
    assert len(steps) == 59
    for frame in (3, 41, 59):
        assert torch.equal(moves().distances(picture, frame), kept[frame])
        assert torch.equal(whole.distances(picture, frame), kept[frame])
    assert len(whole._way) <= moves_file.KEPT_DISTANCES
    assert whole.distances(torch.zeros(1, 3, 8, 8), 59).shape == (1, 1, 8, 8)


def wall_and_corner():
    """A frame's values, 0 in nine tenths and 1 in the rest."""
    values = torch.zeros(20, 20)
    values[:, 18:] = 1
    return values


@pytest.mark.parametrize(("means", "wall", "corner"), [("disparity", 1.1, 1.0), ("distance", 1.9, 2.0)])
@pytest.mark.parametrize("still", [True, False])
def test_deforum_evens_out_what_the_source_measures(means, wall, corner, still):
    """A wall that is far, by its disparity, or near, by its distance; as MiDaS and Zoe are read there."""
    found = path(DeforumCamera(mode="3D", translation_x=0.001, depth="d.png"), 3, 8, (20, 20))
    given = GivenDepth(lambda i: wall_and_corner(), near=0.5, far=4.0, means=means, still=still)
    moves = CameraMoves(found, given)
    for frame in (0, 1):
        z = moves._distances(torch.zeros(1, 3, 20, 20), found.steps[1], frame)[0, 0, 10]
        assert z[[0, 19]].tolist() == pytest.approx([wall, corner], abs=2e-3)


def test_deforum_evens_out_a_networks_own_disparities_at_every_frame():
    """Not those that were clipped to the spread of the shot's first frame."""
    found = path(DeforumCamera(mode="3D", translation_x=1, depth="d.png"), 3, 8, (20, 20))
    scale = [1.0, 40.0]
    ramp = torch.linspace(1, 2, 400).reshape(1, 20, 20)
    source = EstimatedDepth(
        lambda pixels: ramp * scale[0], Preparation(size=(20, 20)), "disparity", near=0.5, far=4.0
    )
    moves = CameraMoves(found, source)
    first, later = torch.zeros(1, 3, 20, 20), []
    for _ in range(2):
        later.append(moves._distances(first, found.steps[1], len(later)))
        scale.reverse()
    torch.testing.assert_close(later[0].flatten(), torch.linspace(2, 1, 400), atol=5e-3, rtol=0)
    torch.testing.assert_close(later[1], later[0], atol=5e-3, rtol=0)


class Shade:
    """A depth network that counts its runs, and finds what is bright near."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, pixels):
        self.runs += 1
        return pixels.mean(dim=1) + self.runs % 2  # another answer to the same picture would show


def test_a_depth_model_looks_once_at_each_picture_of_a_cadence(model, picture):
    """Frames between two are made of both; a render that goes on is the one that was not stopped."""
    plan = make_plan(
        Shot(
            model=model.card.id, prompt="x", seed=3, frames=17, steps=3, mode="frame_by_frame",
            keyframes=picture,
            camera={"x": {0: 0, -1: 0.5}, "depth": picture},
            redraw={"cadence": 4, "strength": 0.5},
        ),
        model.card,
    )  # fmt: skip

    class Darker:
        def draw(self, drawing):
            return drawing.canvas * 0.8

    def loop():
        preparation = Preparation(size=(64, 64))
        source = EstimatedDepth(network := Shade(), preparation, "disparity", near=0.5, far=4.0)
        moves = CameraMoves(plan.camera.path(plan.geometry), source)
        return Loop(plan, Darker(), moves, Pictures(plan)), network

    whole, network = loop()
    states = []
    frames = list(whole.clip(on_progress=lambda _: None, on_state=states.append))
    assert len(states) == 5
    assert network.runs == 5
    for state in states[1:-1]:
        again, network = loop()
        network.runs = state.stroke - 1  # of the picture that it goes on from
        state = LoopState.from_tensors(state.tensors())
        rest = list(again.clip(on_progress=lambda _: None, state=state))
        assert np.array_equal(rest, frames[-len(rest) :])


def test_a_frame_moves_the_spread_of_disparities_once():
    levels = iter([1.0, 3.0, 3.0, 3.0])
    ramp = torch.linspace(0, 1, 64).reshape(1, 8, 8)
    source = EstimatedDepth(
        lambda _: ramp * next(levels), Preparation(size=(8, 8)), "disparity", near=0.5, far=4.0
    )
    spreads = []
    for frame in (0, 4, 4, 0):
        source(torch.zeros(1, 3, 8, 8), frame)
        spreads.append(source.state[1])
    assert spreads[1] == pytest.approx(spreads[0] * 1.1)
    assert spreads[1:] == [spreads[1]] * 3


def test_deforum_space_is_walked_from_frame_to_frame_both_ways():
    found = path(DeforumCamera(mode="3D", translation_x=4, rotation_3d_z=1), 5, 8, (32, 32))
    moves = CameraMoves(found, FlatDepth())
    x = torch.arange(32.0).expand(1, 1, 32, 32) / 32
    there, _ = moves.warp(x, 0, 4)
    step_by_step = x
    for step in found.steps[1:]:
        step_by_step, _ = warp_frame(step_by_step, step)
    assert torch.equal(there, step_by_step)
    back, _ = moves.warp(there, 4, 0)
    assert (back - x)[..., 8:-8, 8:-8].abs().max() < 0.01


def test_a_camera_over_a_keyframe_is_seen_without_being_told_how(model, picture, wan):
    plan = plan_of(model, keyframes=picture, camera="pan left")
    assert plan.camera.follow == (0.5, 0.5, 0.5)
    assert any("held to the moved keyframe by 0.5" in note for note in plan.notes)
    assert not any(plan_of(model, camera="pan left").camera.follow)  # there is no picture to move
    assert plan_of(model, keyframes=picture, camera={**PAN, "hold": -1}).camera.follow == (0, 0, 1)
    card = read_card(str(wan("i2v")))  # holds the first frame and no other
    shot = Shot(model=card.id, keyframes=picture, frames=9, size="64x64", camera="pan left")
    assert any("the camera moves nothing" in note for note in make_plan(shot, card).notes)


def test_what_does_nothing_is_noted(model, picture):
    assert any("does not move" in note for note in plan_of(model, camera={"zoom": 2}).notes)
    idle = {"dialect": "deforum", "angle": 3, "translation_z": 5}
    assert any("translation_z do nothing in mode 2D" in note for note in plan_of(model, camera=idle).notes)


def test_a_clip_with_a_camera_is_made_again_from_its_file(model, picture, tmp_path):
    fields = {"keyframes": picture, "camera": {**PAN, "follow": 0.5, "noise": 0.3}, "frames": 9, "steps": 3}
    clip = kinema.generate("a", model=model, seed=5, **fields)
    saved = clip.save(tmp_path / "clip.mp4")
    again = kinema.render(Path(saved), model=model)
    assert np.array_equal(again.array(), clip.array())


def test_a_camera_that_follows_goes_around_a_loop(model, picture):
    shot = Shot(
        model=model.card.id,
        seed=3,
        frames=8,
        steps=3,
        loop=True,
        keyframes=[f"{picture}@0"],
        camera={"roll": "90 * t", "follow": 1},
    )
    plan = make_plan(shot, model.card)
    assert condition(plan, model).start_BCTYX.shape[2] == plan.geometry.latent_frames == 2
    seen = moved_latents(plan, plan.camera, model, None)
    # four quarter turns are a whole one: both groups show the same, and so does what goes before each
    torch.testing.assert_close(seen[:, :, 1], seen[:, :, 0], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("camera", "jumps"),
    [
        ({"pan_x": {0: 0, -1: 0.5}}, True),
        ({"zoom": {0: 1, 8: 1.4, -1: 1.02}}, False),
        ({"roll": {0: 0, -1: 348.75}}, False),  # 32 frames of 11.25 degrees: the last step closes the circle
        ({"roll": {0: 0, -1: 180}}, True),
    ],
)
def test_a_camera_that_does_not_come_back_in_a_loop_is_told(camera, jumps):
    shot = Shot(prompt="a fox", loop=True, frames=32, camera={**camera, "noise": 1.0})
    notes = make_plan(shot, read_card("embedded")).notes
    assert any("does not come back" in note for note in notes) == jumps
