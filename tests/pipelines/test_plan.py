"""Plans: legal geometry always, tracks as group means, misfits refused with the nearest values that do."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kinema.core.errors import ConfigError, GeometryError, MediaError
from kinema.io.clip import Clip
from kinema.io.mux import AudioPart
from kinema.pipelines.card import EMBEDDED, ModelCard
from kinema.pipelines.cards import read_card
from kinema.pipelines.plan import Plan
from kinema.pipelines.planning import make_plan
from kinema.story.prompt_track import PromptTrack
from kinema.story.shot import Shot


@pytest.fixture(scope="module")
def card() -> ModelCard:
    return read_card(EMBEDDED)


def plan_of(card: ModelCard, **fields: object) -> Plan:
    return make_plan(Shot.make(**{"seed": 1, **fields}), card)


def test_weights_are_group_means_of_the_track(card):
    track = {0: "a fox", 6: "a wolf", -1: "a bear"}
    plan = plan_of(card, prompt=track, frames=17)
    texts, weights_FK = PromptTrack(track).sample(17, Fraction(plan.geometry.fps))
    assert plan.prompts.spans == tuple(((text, 1.0),) for text in texts)
    groups = [weights_FK[:1], *np.split(weights_FK[1:], 4)]
    expected_TK = np.stack([group.mean(axis=0) for group in groups])
    np.testing.assert_allclose(plan.prompts.weights, expected_TK, atol=1e-12)


@pytest.fixture(scope="module")
def two_seconds(tmp_path_factory) -> str:
    """16 frames at 8 a second."""
    path = tmp_path_factory.mktemp("clips") / "two-seconds.mkv"
    Clip(np.zeros((16, 16, 16, 3), np.uint8), 8).save(path)
    return str(path)


@pytest.mark.parametrize(("fps", "frames"), [(None, 13), (8, 13), (4, 5), (24, 45), ("30000/1001", 57)])
def test_a_clip_made_over_at_another_rate_keeps_its_duration(card, two_seconds, fps, frames):
    plan = plan_of(card, prompt="a fox", source=two_seconds, fps=fps)
    assert plan.geometry.keep == frames
    assert not any("stands still" in note for note in plan.notes)


@pytest.mark.parametrize("way", ["source", "extend"])
def test_the_sound_of_a_clip_is_not_dropped_in_silence(card, two_seconds, tmp_path, way):
    beat = Path(__file__).parents[2] / "samples/inputs/beat.flac"
    loud = tmp_path / "loud.mp4"
    heard = (AudioPart(path=str(beat), at=Fraction(0), seconds=Fraction(2)),)
    Clip(np.zeros((16, 16, 16, 3), np.uint8), 8, audio=heard).save(loud)
    about_sound = f"the sound of loud.mp4 is left out; --audio {loud} lays it under the clip."
    assert about_sound in plan_of(card, prompt="a fox", **{way: str(loud)}).notes
    for clip, audio in ((loud, str(loud)), (two_seconds, None)):
        plan = plan_of(card, prompt="a fox", audio=audio, **{way: str(clip)})
        assert not any("left out" in note for note in plan.notes)


def test_a_clip_that_is_too_short_is_told(card, two_seconds):
    (note,) = [n for n in plan_of(card, prompt="a fox", source=two_seconds, frames=33).notes if "still" in n]
    assert "before frame 16" in note


def test_stills_have_the_rate_of_the_shot_or_the_model(card, tmp_path):
    for i in range(9):
        Image.new("RGB", (16, 16)).save(tmp_path / f"{i}.png")
    for source, frames in ((tmp_path, 9), (tmp_path / "0.png", 1)):
        for asked, got in ((None, "8"), (12, "12")):
            geometry = plan_of(card, prompt="a fox", source=str(source), fps=asked).geometry
            assert (geometry.keep, geometry.fps) == (frames, got)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"guidance": "t / 0"}, "guidance: "),
        ({"prompt": {0: "a fox", "9s": "a wolf"}}, "prompt: 9s"),
        ({"negative": {0: "a fox", "9s": "a wolf"}}, "negative: 9s"),
        ({"mode": "frame_by_frame", "redraw": {"noise": "1 / t"}}, "redraw.noise: "),
    ],
)
def test_what_is_wrong_over_frames_is_told_by_name(card, fields, name):
    with pytest.raises(ConfigError, match=f"^{name}"):
        plan_of(card, **{"prompt": "a fox", "frames": 17, **fields})


def test_negative_phrases_move_with_the_weight_of_their_prompt(card):
    plan = plan_of(card, prompt={0: "a fox, (snow:-1.2)", 16: "a wolf"}, negative="blur", frames=17)
    assert plan.prompts.spans == ((("a fox", 1.0),), (("a wolf", 1.0),))
    with_snow, without = plan.negatives.spans
    assert ("snow", 1.2) in with_snow
    assert without == (("blur", 1.0),)
    assert plan.negatives.weights == plan.prompts.weights


@given(
    groups=st.integers(0, 12),
    keys=st.dictionaries(
        st.integers(0, 48), st.sampled_from(["a", "b", "c", "a, (d:-1)", "(b:1.5) e"]), min_size=1, max_size=5
    ),
    sides=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    guidance=st.floats(0, 20),
)
@settings(deadline=None, max_examples=60)
def test_a_legal_length_always_gives_a_consistent_plan(groups, keys, sides, guidance):
    card = read_card(EMBEDDED)
    frames = 1 + groups * card.stride.time
    prompt = {frame: text for frame, text in keys.items() if frame < frames} or "a"
    width, height = (side * card.multiple for side in sides)
    plan = plan_of(card, prompt=prompt, frames=frames, width=width, height=height, guidance=guidance)
    g = plan.geometry
    assert g.latent_frames == groups + 1 == len(g.group_starts())
    assert card.stride.pixel_frames(g.latent_frames) == frames == g.keep
    assert (g.rows * card.stride.space, g.columns * card.stride.space) == (height, width)
    for side in (plan.prompts, plan.negatives):
        weights_TK = np.array(side.weights)
        assert weights_TK.shape == (g.latent_frames, len(side.spans))
        assert (weights_TK >= 0).all()
        np.testing.assert_allclose(weights_TK.sum(axis=1), 1, atol=1e-9)
    assert plan.sampling.guidance == pytest.approx([guidance] * g.latent_frames)


@given(frames=st.integers(1, 200))
@settings(deadline=None, max_examples=60)
def test_other_lengths_are_refused_with_the_nearest_or_rounded_up(frames):
    card = read_card(EMBEDDED)
    fitted = plan_of(card, frames=frames, length_fit=True).geometry
    assert fitted.keep == frames <= fitted.frames < frames + card.stride.time
    if fitted.frames == frames:
        assert plan_of(card, frames=frames).geometry == fitted
        return
    near = f"{fitted.frames - card.stride.time} and {fitted.frames}"
    with pytest.raises(GeometryError, match=f"frames={frames} is not 1 .* lengths are {near} "):
        plan_of(card, frames=frames)


@pytest.mark.parametrize(
    ("seconds", "fps", "frames", "noted"),
    [(2, 8, 17, True), (2.125, 8, 17, False), (0.01, 8, 1, True), (1, 24, 25, True), (1.2, 10, 13, True)],
)
def test_seconds_are_rounded_to_a_legal_length_and_noted(card, seconds, fps, frames, noted):
    plan = plan_of(card, seconds=seconds, fps=fps)
    assert plan.geometry.frames == plan.geometry.keep == frames
    assert any("rounded" in note for note in plan.notes) == noted


def test_sizes_off_the_grid_are_refused_with_the_nearest(card):
    m = card.multiple
    with pytest.raises(GeometryError, match=rf"width={8 * m + 1} .*nearest: {8 * m} and {9 * m}"):
        plan_of(card, width=8 * m + 1, height=8 * m)


def test_one_side_alone_keeps_the_models_shape(card):
    own = card.defaults
    g = plan_of(card, width=2 * own.width).geometry
    assert (g.width, g.height) == (2 * own.width, 2 * own.height)
    g = plan_of(card, height=2 * own.height).geometry
    assert (g.width, g.height) == (2 * own.width, 2 * own.height)


def test_clips_beyond_memory_are_refused_before_anything_is_loaded(card):
    with pytest.raises(GeometryError, match="latents, above"):
        plan_of(card, width=4096, height=4096, frames=40_001)


@pytest.mark.parametrize(
    ("fields", "error", "reason"),
    [
        ({"solver": "unipcc"}, ConfigError, "Did you mean 'unipc'"),
        ({"keyframes": "no/such.png"}, MediaError, "no/such.png"),
        ({"source": "no/such.mp4"}, MediaError, "no/such.mp4"),
        ({"prompt": {0: "a", 40: "b"}, "frames": 17}, ConfigError, "40"),
    ],
)
def test_what_is_wrong_is_found_while_planning(card, fields, error, reason):
    with pytest.raises(error, match=reason):
        plan_of(card, **fields)


def test_the_digest_names_what_decides_the_result_and_nothing_else(card):
    shot = {"prompt": {0: "a", 16: "b"}, "frames": 17, "guidance": "2 + t / 8"}
    one, same = plan_of(card, **shot), plan_of(card, **shot)
    assert one.digest == same.digest
    assert json.loads(json.dumps(asdict(one)))["geometry"]["frames"] == 17
    changes = [{"seed": 2}, {"steps": 7}, {"blend": "velocity"}, {"negative": "c"}, {"guidance": 3}]
    digests = {plan_of(card, **{**shot, **change}).digest for change in changes}
    assert len(digests | {one.digest}) == 6
    afterwards = [{"upscale": 2}, {"upscale": "3:nearest"}, {"interpolate": 24}]
    assert {plan_of(card, **{**shot, **change}).digest for change in afterwards} == {one.digest}


def test_a_picture_that_changes_under_its_name_is_another_plan(card, tmp_path):
    shot = {"keyframes": str(tmp_path / "a.png"), "frames": 9}
    digests = set()
    for level in (0, 0, 1):
        Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(tmp_path / "a.png")
        digests.add(plan_of(card, **shot).digest)
    assert len(digests) == 2


def test_a_resolved_shot_plans_to_itself(card):
    plan = plan_of(card, prompt="a fox", seconds=2, guidance={0: 1, -1: 4}, keyframes=())
    again = make_plan(Shot.from_mapping(plan.shot), card)
    assert asdict(again) | {"notes": ()} == asdict(plan) | {
        "notes": (),
        "geometry": asdict(plan.geometry) | {"notes": ()},
    }


def test_a_drawn_seed_is_kept_in_the_record(card):
    shot = Shot(prompt="a fox")
    one, other = make_plan(shot, card), make_plan(shot, card)
    assert one.sampling.seed != other.sampling.seed
    assert one.shot["seed"] == one.sampling.seed


def test_the_card_of_the_package_model_needs_no_weights(tmp_path: Path, card):
    for name in ("model_index.json", "vae/config.json", "transformer/config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((card.folder / name).read_bytes())
    assert read_card(str(tmp_path)).defaults == card.defaults


def test_held_pictures_have_the_models_guidance_for_them(card):
    picture = Path(__file__).parents[2] / "samples/inputs/penguin.png"
    held = replace(card, defaults=replace(card.defaults, guidance=3.0, guidance_held=1.0))
    keyframes = [{"image": str(picture), "frame": 0}]
    assert set(plan_of(held, prompt="a fox").sampling.guidance) == {3.0}
    plan = plan_of(held, prompt="a fox", keyframes=keyframes)
    assert set(plan.sampling.guidance) == {1.0}
    assert plan.shot["guidance"] == 1.0  # its record makes the same clip, whatever later models hold
    assert set(plan_of(held, prompt="a fox", keyframes=keyframes, guidance=2).sampling.guidance) == {2.0}
    plain = replace(card, defaults=replace(card.defaults, guidance=3.0, guidance_held=None))
    assert set(plan_of(plain, prompt="a fox", keyframes=keyframes).sampling.guidance) == {3.0}


@pytest.mark.parametrize("written", [{"negative": "blue"}, {"prompt": "a fox (-blue)"}])
def test_a_negative_prompt_that_nothing_reads_is_told(card, written):
    picture = Path(__file__).parents[2] / "samples/inputs/penguin.png"
    held = replace(card, defaults=replace(card.defaults, guidance=3.0, guidance_held=1.0))
    asked = {"prompt": "a fox", "keyframes": [str(picture)], **written}

    def told(**fields: object) -> bool:
        return any("negative prompt does not act" in note for note in plan_of(held, **fields).notes)

    assert told(**asked)
    assert told(**asked | {"keyframes": [], "guidance": 1})
    assert not told(**asked | {"negative": "", "prompt": "a fox"})
    for more in ({"nag": 8}, {"guidance": 2}, {"guidance": "0:(1), 8:(2)"}, {"keyframes": []}):
        assert not told(**asked | more), more


def test_a_picture_of_strength_zero_is_not_held(card):
    picture = Path(__file__).parents[2] / "samples/inputs/penguin.png"
    held = replace(card, defaults=replace(card.defaults, guidance=3.0, guidance_held=1.0))

    def planned(strength: float) -> tuple[set[float], bool]:
        plan = plan_of(held, prompt="a fox", frames=9, keyframes=[f"{picture}@5:{strength}"])
        return set(plan.sampling.guidance), any("show the picture" in note for note in plan.notes)

    assert planned(0) == ({3.0}, False), "it is the clip from text alone"
    assert planned(0.1) == ({1.0}, True)
