"""The file's size: planned, made, remembered; for shots, storyboards, resumed renders, clips on disk."""

from __future__ import annotations

import json
import re
import wave
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import kinema
import upscalers
from kinema.animation.enlarge import enlarged
from kinema.cli import run
from kinema.core.contracts import Record
from kinema.core.errors import ConfigError, GeometryError, MediaError, ModelError, ResourceError
from kinema.io.audio import listen
from kinema.io.clip import Clip
from kinema.io.mux import AudioPart
from kinema.io.probe import MAX_PIXELS, MAX_SIDE
from kinema.io.record import read_record
from kinema.models.upscaler_file import read_upscaler
from kinema.pipelines.job import make_job
from kinema.pipelines.model import Model
from kinema.pipelines.preview import preview_clip
from kinema.pipelines.source import read_request
from kinema.pipelines.upscale import Network, enlargement, upscaled
from kinema.pipelines.upscale_clip import upscale_clip
from kinema.story.shot import Shot
from kinema.story.storyboard import Storyboard
from kinema.story.upscale import Upscale, write_scale
from moving_scenes import clip


@pytest.fixture(scope="module")
def model(small) -> Model:
    return kinema.load(str(small), device="cpu")


@pytest.fixture
def no_weights(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("weights are read")

    for name in ("models.upscaler.load_upscaler", "pipelines.run.load", "pipelines.run.load_vae"):
        monkeypatch.setattr(f"kinema.{name}", refuse)


FIELDS = {"seed": 1, "frames": 5, "steps": 2, "fps": 8}


def test_a_shots_file_is_larger_and_its_frames_are_the_shots_own(model):
    plain = kinema.generate("a rooster", model=model, **FIELDS)
    made = kinema.generate("a rooster", model=model, **FIELDS, upscale="2:nearest")
    assert (made.size, len(made)) == ((128, 128), 5)
    assert np.array_equal(made.array(), plain.array().repeat(2, 1).repeat(2, 2))
    assert made.record.shot["upscale"] == {"scale": 2, "method": "nearest"}
    assert (made.record.shot["width"], made.record.shot["height"]) == (64, 64)


def test_frames_are_drawn_in_between_before_they_are_made_larger(model):
    between = kinema.generate("a rooster", model=model, **FIELDS, interpolate="16:flow").array()
    made = kinema.generate("a rooster", model=model, **FIELDS, interpolate="16:flow", upscale=1.5)
    assert np.array_equal(made.array(), [enlarged(frame, (96, 96)) for frame in between])


def test_the_job_has_the_files_size_and_a_preview_the_models(model):
    job = make_job(Shot(model=model.card.id, upscale=1.5, frames=5))
    assert (job.width, job.height, job.made_size) == (96, 96, (64, 64))
    assert next(iter(preview_clip(job))).shape == (64, 64, 3)
    canvas = Storyboard.make(shots=(Shot(model=model.card.id, frames=5, upscale=2),), canvas="80x48")
    assert (make_job(canvas).width, make_job(canvas).height) == (160, 96)


def test_the_shots_of_one_file_ask_for_one_size(model):
    shots = [Shot(model=model.card.id, frames=5, upscale=scale) for scale in (2, 4)]
    with pytest.raises(ConfigError, match="one clip has one size: write upscale beside the shots"):
        make_job(Storyboard.make(shots=shots))
    board = Storyboard.from_mapping({"upscale": 2, "model": model.card.id, "shots": ["a fox", "a wolf"]})
    assert make_job(board).width == 128


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        (1.3, r"upscale: scale=1\.3 makes 64x64 into 83\.2x83\.2.*1\.28125 \(82x82\) or 1\.3125 \(84x84\)"),
        ("65/64", r"into 65x65, which is not of whole even sides; write 1\.03125 \(66x66\)"),
    ],
)  # fmt: skip
def test_a_size_of_broken_pixels_is_refused_before_weights_load(small, no_weights, tmp_path, scale, said):
    net = str(upscalers.doubled(tmp_path / "2x.safetensors"))
    for upscale in (scale, {"scale": scale, "model": net}):
        shot = Shot(model=str(small), **FIELDS, upscale=upscale)
        with pytest.raises(GeometryError, match=said):
            kinema.render(shot)
    with pytest.raises(AssertionError, match="weights are read"):
        kinema.render(shot.with_(upscale=net))


def test_sizes_are_exact():
    assert enlargement(Upscale(scale=Fraction(4, 3)), (960, 540)).new_size == (1280, 720)
    assert enlargement(Upscale(scale=3), (65, 33)).new_size == (195, 99)  # odd from odd, as the writer pads


@pytest.mark.parametrize(
    ("size", "scale", "most"),
    [
        ((832, 480), 16, 15),  # 13312x7680: above 100 million pixels, no side above 16384
        ((1920, 1080), 16, 6),
        ((4000, 100), 16, 4),  # here the side comes first
        ((8000, 6000), 2, Fraction(36, 25)),
        ((8000, 6000), "1.999", Fraction(36, 25)),
    ],
)
def test_a_size_that_could_not_be_read_again_is_refused_with_the_largest_that_can(size, scale, most):
    with pytest.raises(GeometryError, match=rf"million: write {write_scale(most)}\.$"):
        enlargement(Upscale(scale=scale), size)
    width, height = enlargement(Upscale(scale=most), size).new_size
    assert max(width, height) <= MAX_SIDE
    assert width * height <= MAX_PIXELS
    with pytest.raises(GeometryError, match="leave it out"):
        enlargement(Upscale(scale=2, method="nearest"), (8000, 6000))
    with pytest.raises(GeometryError, match="leave it out"):
        enlargement(Upscale(scale=1.5), (16384, 16))


@pytest.mark.parametrize(
    ("size", "scale"), [((512, 512), "1.3"), ((4096, 4096), "1.0003"), ((1002, 1002), "1.35")]
)
def test_a_scale_that_an_error_names_can_be_typed(size, scale):
    with pytest.raises(GeometryError, match="not of whole even sides; write ") as refused:
        enlargement(Upscale.model_validate(scale), size)
    named = re.findall(r"([\d./]+) \((\d+)x(\d+)\)", str(refused.value))
    assert named
    pattern = re.compile(Upscale.model_json_schema()["properties"]["scale"]["anyOf"][1]["pattern"])
    for text, width, height in named:
        assert enlargement(Upscale.model_validate(text), size).new_size == (int(width), int(height))
        assert pattern.fullmatch(text)


def test_a_resumed_render_has_the_bytes_of_an_uninterrupted_one(model, tmp_path):
    net = upscalers.saved(tmp_path / "4x.safetensors", upscalers.compact())
    shot = Shot(prompt="a fox", model=model.card.id, **FIELDS, upscale=f"2:{net}")
    whole = kinema.render(shot, model=model, out=tmp_path / "whole.mp4")
    assert whole.size == (128, 128)
    seen = []

    def stop(event):
        seen.append(event.phase)
        if (event.phase, event.step) == ("upscale", 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kinema.render(shot, model=model, out=tmp_path / "cut.mp4", on_progress=stop)
    assert "denoise" in seen
    again = []
    kinema.render(shot, model=model, out=tmp_path / "cut.mp4", on_progress=lambda e: again.append(e.phase))
    assert "denoise" not in again
    assert (tmp_path / "cut.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert read_record(tmp_path / "cut.mp4").model["upscale"]["file"] == "4x.safetensors"


def test_frames_are_made_larger_one_at_a_time_and_held_ones_once(tmp_path, monkeypatch):
    drawn, made = [], []
    monkeypatch.setattr("kinema.animation.enlarge.enlarged", lambda f, *a: made.append(1) or enlarged(f, *a))
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (8, 8, 3), np.uint8) for _ in range(3)]

    def source():
        for index in (0, 0, 0, 1, 2, 2):
            drawn.append(index)
            yield frames[index].copy()

    out = upscaled(source(), enlargement(Upscale(scale=2), (8, 8)), "cpu")
    assert not drawn
    for count, index in enumerate((0, 0, 0, 1, 2, 2), start=1):
        assert np.array_equal(next(out), enlarged(frames[index], (16, 16)))
        assert len(drawn) == count
    assert len(made) == 3


def test_a_network_makes_frames_of_its_scale_or_of_another(tmp_path):
    net = str(upscalers.doubled(tmp_path / "2x.safetensors"))
    frames = [np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)]
    twice = frames[0].repeat(2, 0).repeat(2, 1)
    (own,) = upscaled(iter(frames), enlargement(Upscale(model=net), (12, 9)), "cpu")
    assert np.array_equal(own, twice)
    (more,) = upscaled(iter(frames), enlargement(Upscale(model=net, scale=4), (12, 9)), "cpu")
    assert np.array_equal(more, enlarged(twice, (48, 36)))


def test_hidden_colours_do_not_reach_the_edge_through_a_network(tmp_path):
    smooth = {name: torch.zeros_like(t) for name, t in upscalers.compact(2, blocks=1).items()}
    smooth["body.0.weight"][:3, :3] = torch.eye(3)[..., None, None] / 9  # a mean of 3x3, less the middle
    for k in (1, 3):
        smooth[f"body.{k}.weight"][:] = 1
    smooth["body.2.weight"][:3, :3, 1, 1] = torch.eye(3)
    smooth["body.4.weight"][:, :3, 1, 1] = torch.eye(3).repeat_interleave(4, 0)
    net = str(upscalers.saved(tmp_path / "a.safetensors", smooth))
    frame = np.zeros((12, 12, 4), np.uint8)
    frame[4:8, 4:8] = (60, 100, 20, 255)
    (made,) = upscaled(iter([frame]), enlargement(Upscale(model=net), (12, 12)), "cpu")
    seen = made[made[..., 3] > 100][:, :3]
    assert made.shape == (24, 24, 4)
    assert np.abs(seen.astype(int) - (120, 200, 40)).max() <= 2


def test_running_out_of_memory_is_one_line(tmp_path, monkeypatch):
    how = enlargement(Upscale(model=str(upscalers.doubled(tmp_path / "2x.safetensors"))), (8, 8))

    def full(*args):
        raise RuntimeError("CUDA out of memory. Tried to allocate")

    wherever = ("pipelines.upscale.Network.__call__", "models.upscaler.load_upscaler")
    for place in (*wherever, "animation.enlarge.enlarged"):
        with monkeypatch.context() as patch:
            patch.setattr(f"kinema.{place}", full)
            with pytest.raises(ResourceError) as told:
                list(upscaled(iter(clip("pan", 1)[:, :8, :8]), how, "cpu"))
        assert "not enough memory to make 8x8 2 times as large by 2x.safetensors" in str(told.value)
        assert "a smaller network" in str(told.value)
    monkeypatch.setattr("kinema.animation.enlarge._resized", lambda *args: bytearray(1 << 62))
    with pytest.raises(ResourceError, match="large by lanczos; write a smaller scale, or close other"):
        list(upscaled(iter(clip("pan", 1)[:, :8, :8]), enlargement(Upscale(scale=2), (8, 8)), "cpu"))


def test_what_is_wrong_with_a_network_is_not_taken_for_too_little_memory(tmp_path):
    net = upscalers.doubled(tmp_path / "2x.safetensors")
    how = enlargement(Upscale(model=str(net)), (8, 8))
    net.write_bytes(net.read_bytes()[:-8])
    with pytest.raises(ModelError, match="damaged"):
        list(upscaled(iter(clip("pan", 1)[:, :8, :8]), how, "cpu"))


def test_a_network_makes_the_same_bytes_in_bands(tmp_path, monkeypatch):
    how = enlargement(Upscale(model=str(upscalers.saved(tmp_path / "a", upscalers.compact()))), (64, 64))
    (whole,) = upscaled(iter(clip("spin", 1)), how, "cpu")
    monkeypatch.setattr("kinema.animation.enlarge.BAND", 256 * 7)
    (made,) = upscaled(iter(clip("spin", 1)), how, "cpu")
    assert np.array_equal(made, whole)


def test_a_network_that_gives_no_numbers_is_named(tmp_path):
    state = upscalers.compact(2, blocks=1)
    state["body.0.weight"][:] = 1e38
    net = str(upscalers.saved(tmp_path / "mad.safetensors", state))
    with pytest.raises(kinema.KinemaError, match=r"mad\.safetensors gave values that are not finite"):
        list(upscaled(iter(clip("pan", 1)), enlargement(Upscale(model=net), (64, 64)), "cpu"))


def test_a_network_that_leaves_the_range_of_halves_runs_in_float32(tmp_path, monkeypatch):
    state = upscalers.compact(2, blocks=1)
    for name in ("body.0.weight", "body.0.bias"):
        state[name] = state[name] * 1e6
    state["body.2.weight"] = state["body.2.weight"] / 1e6
    file = read_upscaler(upscalers.saved(tmp_path / "wide.safetensors", state))
    (frame,) = clip("spin", 1)
    net = Network(file, "cpu")
    whole = net(frame)
    net._dtype = torch.float16  # as on a GPU
    net._net = net._loaded()
    monkeypatch.setattr("kinema.animation.enlarge.BAND", 128 * 7)
    assert np.array_equal(net(frame), whole)
    assert net._dtype == torch.float32


# Clips on disk


def test_a_clip_made_by_kinema_keeps_its_record_and_is_made_again_as_large(model, tmp_path):
    first = kinema.generate("a rooster", model=model, **FIELDS)
    first.save(tmp_path / "a.mkv", quality="lossless")
    upscale_clip(tmp_path / "a.mkv", Upscale(scale=2, method="nearest")).save(
        tmp_path / "b.mkv", quality="lossless"
    )
    record = read_record(tmp_path / "b.mkv")
    assert record.post["upscale"] == {"scale": 2, "method": "nearest", "model": None}
    assert (record.post["of"], record.post["size"]) == ("a.mkv", "64x64")
    assert record.model == first.record.model
    made = Clip.open(tmp_path / "b.mkv").array()
    assert np.array_equal(made, first.array().repeat(2, 1).repeat(2, 2))
    assert np.array_equal(kinema.render(read_request(tmp_path / "b.mkv"), model=model).array(), made)
    upscale_clip(tmp_path / "b.mkv", Upscale(scale=1.5)).save(tmp_path / "c.mkv")
    assert read_request(tmp_path / "c.mkv").upscale == Upscale(scale=3)
    assert read_record(tmp_path / "c.mkv").post["before"]["upscale"]["scale"] == 2


def test_a_strangers_clip_remembers_only_what_was_done(tmp_path):
    net = upscalers.doubled(tmp_path / "2x.safetensors")
    Clip(clip("spin", 3), 8).save(tmp_path / "a.mkv", quality="lossless")
    upscale_clip(tmp_path / "a.mkv", Upscale(model=str(net))).save(tmp_path / "b.mkv")
    record = read_record(tmp_path / "b.mkv")
    assert not record.shot
    assert record.post["weights"]["file"] == "2x.safetensors"
    assert len(record.post["weights"]["sha256"]) == 64
    with pytest.raises(MediaError, match=r"only upscaled; run kinema upscale on a\.mkv"):
        read_request(tmp_path / "b.mkv")
    upscale_clip(tmp_path / "b.mkv", Upscale(scale=2)).save(tmp_path / "c.mkv")
    assert not read_record(tmp_path / "c.mkv").shot


def remembering(path: Path, shot: dict, **more) -> Path:
    """A clip of 64x64 whose record a stranger wrote."""
    return Clip(clip("spin", 2), 8, Record(shot, **more)).save(path, quality="lossless", overwrite=True)


@pytest.mark.parametrize(
    "shot",
    [
        {"prompt": "a fox", "upscale": {"scale": "abc"}},
        {"prompt": "a fox", "upscale": {"scale": "1/0"}},
        {"prompt": "a fox", "upscale": [4]},
        {"prompt": "a fox", "upscale": {"size": 2}},
        {"prompt": "a fox", "upscale": {"model": "4x.safetensors"}},
        {"prompt": "a fox", "upscale": {"scale": "4993/4999"}},
        {"upscale": 2, "shots": ["a fox"]},
        {"shots": 5},
        {"shots": [{"prompt": "a fox"}, {"prompt": "a wolf", "upscale": "huge"}]},
    ],
)
def test_a_record_that_cannot_say_both_keeps_its_shot(tmp_path, shot):
    made = upscale_clip(remembering(tmp_path / "a.mkv", shot), Upscale(scale=3))
    assert made.record.shot == shot
    assert made.record.post["upscale"]["scale"] == 3


@pytest.mark.parametrize(("before", "scale"), [(4, 12), ("2:nearest", 6), ({"scale": "4/3"}, 4)])
def test_a_record_may_say_it_in_any_words(tmp_path, before, scale):
    shot = {"prompt": "a fox", "upscale": before}
    made = upscale_clip(remembering(tmp_path / "a.mkv", shot), Upscale(scale=3))
    assert made.record.shot["upscale"]["scale"] == scale


def test_what_repeats_pixels_unevenly_is_no_setting(tmp_path):
    file = remembering(tmp_path / "a.mkv", {"prompt": "a fox", "upscale": 1.5})
    made = upscale_clip(file, Upscale(scale=3, method="nearest"))
    assert made.record.shot["upscale"] == 1.5
    made.save(tmp_path / "b.mkv")
    assert read_request(tmp_path / "b.mkv").upscale == Upscale(scale=1.5)


def test_frames_of_a_cancelled_render_were_not_yet_larger(tmp_path):
    shot = {"prompt": "a fox", "upscale": {"scale": 2, "method": "lanczos"}}
    part = remembering(tmp_path / "a.mkv", shot, post={"partial": 2})
    upscale_clip(part, Upscale(scale=3)).save(tmp_path / "b.mkv")
    assert read_request(tmp_path / "b.mkv").upscale == Upscale(scale=3)
    upscale_clip(tmp_path / "b.mkv", Upscale(scale=2)).save(tmp_path / "c.mkv")
    assert read_request(tmp_path / "c.mkv").upscale == Upscale(scale=6)


def test_odd_parts_of_a_record_are_passed_over(tmp_path):
    file = remembering(tmp_path / "a.mkv", {"prompt": "a fox"}, post=[1], model=5)
    made = upscale_clip(file, Upscale(scale=2))
    assert (made.record.model, "before" in made.record.post) == ({}, False)


@pytest.mark.parametrize("name", ["a.mov", "a.webm", "a.webp", "%d.png"])
def test_transparency_is_kept_where_the_file_has_it(tmp_path, name):
    frames = np.zeros((3, 32, 32, 4), np.uint8)
    frames[:, 8:24, 8:24] = (250, 200, 40, 255)
    frames[:, 0, 0] = [(90 * f, 0, 0, 255) for f in range(3)]  # equal frames would be one in a WebP
    Clip(frames, 8).save(tmp_path / name, quality="high")
    made = upscale_clip(tmp_path / name, Upscale(scale=2)).array()
    assert made.shape == (3, 64, 64, 4)
    assert made[1, 4, 4, 3] <= 8
    assert np.abs(made[1, 32, 32].astype(int) - (250, 200, 40, 255)).max() <= 10
    frames[..., 3] = 255
    Clip(frames, 8).save(tmp_path / "opaque.webp", quality="lossless")
    assert upscale_clip(tmp_path / "opaque.webp", Upscale(scale=2)).array().shape[-1] == 3
    assert Clip.open(tmp_path / name).array().shape[-1] == 3


def test_a_clip_keeps_its_sound_and_its_rate(tmp_path):
    rate = 48_000
    with wave.open(str(tmp_path / "tone.wav"), "wb") as sound:
        sound.setparams((1, 2, rate, 0, "NONE", ""))
        sound.writeframes((np.sin(np.arange(2 * rate) / 17) * 20_000).astype("<i2").tobytes())
    part = AudioPart(path=str(tmp_path / "tone.wav"), at=Fraction(0), seconds=Fraction(1))
    silent = Clip(np.zeros((30, 16, 16, 3), np.uint8), "30000/1001")
    replace(silent, audio=(part,)).save(tmp_path / "loud.mp4")
    upscale_clip(tmp_path / "loud.mp4", Upscale(scale=2)).save(tmp_path / "out.mp4")
    made = Clip.open(tmp_path / "out.mp4")
    assert (made.fps, len(made), made.size) == (Fraction(30000, 1001), 30, (32, 32))
    assert listen(tmp_path / "out.mp4").seconds == pytest.approx(30 * 1001 / 30000, abs=0.03)


def test_a_picture_that_lasts_a_second_lasts_a_second(tmp_path):
    greys = [Image.new("RGB", (32, 32), (value,) * 3) for value in (20, 60, 100, 140)]
    greys[0].save(tmp_path / "pause.webp", save_all=True, append_images=greys[1:], lossless=True, quality=100,
                  duration=[100, 1000, 100, 100])  # fmt: skip
    made = upscale_clip(tmp_path / "pause.webp", Upscale(scale=2, method="nearest"))
    shown = made.array()[:, 0, 0, 0]
    assert (made.fps, len(shown), len(made)) == (10, 13, 13)
    assert shown.tolist() == [20, *[60] * 10, 100, 140]


def test_the_verb_writes_the_larger_clip(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Clip(clip("spin", 3), 8).save("a.mp4")
    assert run(["upscale", "a.mp4", "--scale", "4", "-o", "b.mp4", "--format", "json"]) == 0
    done = [json.loads(line) for line in capsys.readouterr().out.splitlines()][-1]
    assert (done["event"], done["frames"], done["width"], done["height"]) == ("done", 3, 256, 256)
    assert Clip.open("b.mp4").size == (256, 256)
    assert run(["inspect", "b.mp4"]) == 0
    assert '"upscale"' in capsys.readouterr().out
    assert run(["upscale", "a.mp4", "-o", "b.mp4"]) == 2
    assert "exists" in capsys.readouterr().err
    upscalers.doubled(tmp_path / "2x.safetensors")
    assert run(["upscale", "a.mp4", "--model", "2x.safetensors"]) == 0
    assert Clip.open("a-large.mp4").size == (128, 128)
    Image.new("RGB", (10, 6)).save("still.png")
    assert run(["upscale", "still.png", "--scale", "3"]) == 0
    assert Image.open("still-large.png").size == (30, 18)
    for more in (["--scale", "1.01"], ["--method", "cubic"], ["--model", "none.safetensors"]):
        assert run(["upscale", "a.mp4", "-o", "c.mp4", *more]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "c.mp4").exists()


def test_a_plan_shows_the_size_of_the_file(tmp_path, capsys, model):
    net = upscalers.saved(tmp_path / "4x.safetensors", upscalers.compact())
    wanted = ["plan", "a fox", "--model", model.card.id, "--frames", "5", "--upscale"]
    assert run([*wanted, "{scale: 3, method: bicubic}"]) == 0
    assert "file       192x192, 5 frames" in capsys.readouterr().out
    assert run([*wanted, f"2:{net}", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["event"], told["width"], told["height"], told["frames"]) == ("file", 128, 128, 5)
    assert told["seconds"] > 0
    (tmp_path / "4x.pth").write_bytes(b"\x80\x02")
    with pytest.raises(ModelError, match="pickle"):
        make_job(Shot(model=model.card.id, upscale=str(tmp_path / "4x.pth")))


def test_several_frames_are_no_single_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kinema.animation.enlarge.enlarged", lambda *a: pytest.fail("a frame is made"))
    Clip(clip("spin", 3), 8).save("a.mp4")
    for verb in ("upscale", "interpolate"):
        for out in ("x.jpg", "x.png"):
            for more in ([], ["--dry-run"]):
                assert run([verb, "a.mp4", "-o", out, *more]) == 2
                said = capsys.readouterr().err
                assert f"{out} holds one frame and the clip has more; use .mp4" in said
    assert run(["upscale", "a.mp4", "-o", "frames/%d.png", "--dry-run"]) == 0


def test_a_name_is_chosen_that_can_hold_the_clip(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures = [Image.new("RGBA", (8, 8), (90 * k, 0, 0, 128)) for k in range(3)]
    pictures[0].save("anim.png", save_all=True, append_images=pictures[1:], duration=100)
    assert run(["upscale", "anim.png"]) == 0
    assert Clip.open("anim-large.webp", alpha=True).array().shape == (3, 16, 16, 4)
    assert run(["interpolate", "anim.png", "--fps", "20"]) == 0
    assert len(Clip.open("anim-20fps.webp")) == 5
    for folder in ("scenes.v2", "."):
        (tmp_path / folder).mkdir(exist_ok=True)
        for k, picture in enumerate(pictures):
            picture.save(tmp_path / folder / f"{k:04d}.png")
    assert run(["upscale", "scenes.v2/%04d.png"]) == 0
    assert run(["upscale", "scenes.v2"]) == 0
    assert run(["upscale", "%04d.png"]) == 0
    for made in ("scenes.v2-large", f"{tmp_path.name}-large"):
        assert sorted(path.name for path in Path(made).iterdir()) == ["0001.png", "0002.png", "0003.png"]
    assert len(list(tmp_path.glob("*.png"))) == 4
    assert Clip.open("scenes-large.mp4").size == (16, 16)
