"""Kandinsky 2.2: pictures equal to diffusers' own calls, and looks that travel from picture to picture."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import kinema
from checkpoints import save_kandinsky
from kinema.core.errors import ConfigError, KinemaError, ModelError
from kinema.core.runtime import generator
from kinema.pipelines.cards import read_card
from kinema.pipelines.durable.key import plan_keys
from kinema.pipelines.estimate import estimate
from kinema.pipelines.images.engine import Drawing, Seeds
from kinema.pipelines.images.model import ImageModel, given_noise
from kinema.pipelines.job import make_job
from kinema.pipelines.modes import draw_plan, engine_of
from kinema.pipelines.planning import make_plan
from kinema.pipelines.unclip.embeds import FrameEmbeds
from kinema.story.shot import Shot

WIDTH, HEIGHT = 32, 24
SEEDS = Seeds(7, 7, 0.0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Path]:
    return save_kandinsky(tmp_path_factory.mktemp("kandinsky"))


@pytest.fixture(scope="module")
def names(saved) -> dict[str, str]:
    return {"two": f"{saved['decoder']}@{saved['prior']}", "one": str(saved["both"])}


@pytest.fixture(scope="module")
def model(names) -> ImageModel:
    return kinema.load(names["two"], device="cpu")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[str]:
    folder, found = tmp_path_factory.mktemp("pictures"), []
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 48, 3), np.uint8)
        found.append(str(folder / f"{i}.png"))
        Image.fromarray(pixels).save(found[-1])
    return found


def shot_of(name: str, **fields) -> Shot:
    given = {"prompt": "a red fox", "guidance": 4, "steps": 3, "seed": 7, "frames": 3} | fields
    return Shot(**{"model": name, "size": (WIDTH, HEIGHT), "mode": "frame_by_frame", **given})


def plan_of(model: ImageModel, **fields):
    return make_plan(shot_of(model.card.id, **fields), model.card)


def drawn(model: ImageModel, fields, **drawing) -> torch.Tensor:
    asked = {"frame": 0, "seeds": SEEDS, "steps": 3, "solver": "checkpoint"} | drawing
    return engine_of(plan_of(model, **fields), model, lambda frame, text: None).draw(Drawing(**asked))


def noise_of(model: ImageModel) -> torch.Tensor:
    space = model.card.stride.space
    return SEEDS.noise((4, HEIGHT // space, WIDTH // space))


def canvas() -> torch.Tensor:
    return torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(3))


def embedded(model: ImageModel, negative: str | None, prompt: str = "a red fox") -> dict[str, torch.Tensor]:
    found = model.prior(prompt, negative_prompt=negative, generator=generator(7, "prior"))
    return {"image_embeds": found.image_embeds, "negative_image_embeds": found.negative_image_embeds}


def theirs(model: ImageModel, embeds, guidance: float = 4.0) -> torch.Tensor:
    found = model.pipeline("text", "checkpoint")(
        **embeds, latents=noise_of(model), height=HEIGHT, width=WIDTH, num_inference_steps=3,
        guidance_scale=guidance, generator=generator(7, "drawing"), output_type="np",
    ).images  # fmt: skip
    return torch.from_numpy(found).permute(0, 3, 1, 2)


@pytest.mark.parametrize("negative", ["dog", ""])
@pytest.mark.parametrize("guidance", [4, 1])
def test_text_to_image_is_the_pipelines_own(model, negative, guidance):
    ours = drawn(model, {"negative": negative, "guidance": guidance})
    assert ours.shape == (1, 3, HEIGHT, WIDTH)
    assert torch.allclose(ours, theirs(model, embedded(model, negative or None), guidance), atol=1e-5)
    assert float(ours.std()) > 0.02
    other = drawn(model, {"prompt": "snow", "negative": negative, "guidance": guidance})
    assert not torch.allclose(ours, other, atol=1e-4)


def test_travel_does_not_jump_at_a_key(model):
    """Its own scheduler draws noise between its steps."""
    before, key, far = (
        drawn(model, {}, seeds=Seeds(*seeds, 7)) for seeds in ((3, 9, 1 - 1e-4), (9, 5, 0.0), (3, 9, 0.0))
    )
    assert (before - key).abs().mean() < 0.02 * (far - key).abs().mean()


def test_image_to_image_is_the_pipelines_own_with_the_noise_that_was_given(model):
    pipe = model.pipeline("image", "checkpoint")
    image = Image.fromarray((canvas()[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    exact = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    with given_noise(pipe.scheduler, noise_of(model)):
        their = pipe(
            **embedded(model, "dog"), image=exact, height=WIDTH, width=HEIGHT, strength=0.7,
            num_inference_steps=3, guidance_scale=4.0, generator=generator(7, "drawing"), output_type="pt",
        ).images  # fmt: skip
    ours = drawn(model, {"negative": "dog"}, canvas=exact, strength=0.7)
    assert ours.shape == (1, 3, HEIGHT, WIDTH)  # and not on its side
    assert torch.allclose(ours, their, atol=1e-5)
    again = drawn(model, {"negative": "dog"}, canvas=exact, strength=0.7, seeds=Seeds(8, 8, 0.0))
    assert not torch.allclose(ours, again, atol=1e-3)
    assert torch.equal(drawn(model, {}, canvas=exact, strength=0.0), exact)


def test_a_canvas_is_not_squeezed_into_the_other_orientation(model):
    left = torch.zeros(1, 3, HEIGHT, WIDTH)
    left[..., : WIDTH // 2] = 1
    seen = []
    encode = model.pipe.movq.encode
    model.pipe.movq.encode = lambda pixels: seen.append(pixels) or encode(pixels)
    try:
        drawn(model, {}, canvas=left, strength=0.7)
    finally:
        del model.pipe.movq.encode
    assert torch.equal(seen[0], left * 2 - 1)


def test_a_picture_in_place_of_words_is_their_image_variation(model, pictures):
    first = model.prior.interpolate([Image.open(pictures[0])], [1.0], generator=generator(7, "prior"))
    ours = drawn(model, {"look": pictures[0]})
    assert torch.allclose(ours, theirs(model, dict(first.items())), atol=1e-5)
    assert torch.equal(ours, drawn(model, {"look": pictures[0], "prompt": "snow"}))  # nothing of the words


def test_words_and_pictures_are_mixed_as_interpolate_mixes_them(model, pictures):
    a, b = pictures
    mix = model.prior.interpolate(
        ["a red fox", Image.open(a), Image.open(b)], [0.3, 0.5, 0.2], generator=generator(7, "prior")
    )
    ours = drawn(model, {"look": [f"{a}@0:0.5", f"{b}@0:0.2"]})
    assert torch.allclose(ours, theirs(model, dict(mix.items())), atol=1e-5)


def test_the_look_travels_from_picture_to_picture(model, pictures):
    a, b = pictures
    ends = [FrameEmbeds(plan_of(model, look=path), model).at(0)["image_embeds"] for path in (a, b)]
    words = embedded(model, None)["image_embeds"]
    travel = FrameEmbeds(plan_of(model, frames=5, look=[a, f"{b}@-1:0.5"]), model)
    found = [travel.at(frame)["image_embeds"] for frame in range(5)]
    assert torch.allclose(found[0], ends[0], atol=1e-6)
    assert torch.allclose(found[4], 0.5 * ends[1] + 0.5 * words, atol=1e-6)
    assert torch.allclose(found[1], 0.75 * ends[0] + 0.125 * ends[1] + 0.125 * words, atol=1e-6)
    arc = FrameEmbeds(plan_of(model, frames=5, look=[a, f"{b}@-1"], blend="slerp"), model)
    assert not torch.allclose(arc.at(2)["image_embeds"], (ends[0] + ends[1]) / 2, atol=1e-3)


def test_prompts_travel_too_and_each_has_its_own_negative(model):
    plan = plan_of(model, frames=5, prompt={0: "a red fox", -1: "snow"}, negative={0: "dog", -1: "cat"})
    found = FrameEmbeds(plan, model).at(1)
    corner = {
        (p, n): embedded(model, n, p) for p in ("a red fox", "snow") for n in ("dog", "cat")
    }  # fmt: skip
    want = sum(
        (0.75 if p == "a red fox" else 0.25) * (0.75 if n == "dog" else 0.25) * corner[p, n]["image_embeds"]
        for p, n in corner
    )
    assert torch.allclose(found["image_embeds"], want, atol=1e-5)
    against = [corner["snow", n]["negative_image_embeds"] for n in ("dog", "cat")]
    assert torch.allclose(found["negative_image_embeds"], 0.75 * against[0] + 0.25 * against[1], atol=1e-5)


def test_one_folder_of_both_draws_the_same(model, names):
    both = kinema.load(names["one"], device="cpu")
    assert torch.equal(drawn(both, {}), drawn(model, {}))


def test_a_render_goes_on_to_the_bit(model, pictures):
    plan = plan_of(model, frames=4, look=[f"{pictures[0]}@0:0.4"], redraw={"strength": 0.6})
    states = []
    whole = draw_plan(plan, model, on_progress=print, on_state=states.append).array()
    rest = draw_plan(plan, model, on_progress=print, state=states[1]).array()
    assert whole.shape == (4, HEIGHT, WIDTH, 3)
    assert np.array_equal(rest, whole[2:])


def test_a_still_needs_no_mode(model, pictures):
    clip = kinema.generate(
        "a fox", model=model, frames=1, size=(WIDTH, HEIGHT), steps=2, seed=1, look=[pictures[0]]
    )
    assert clip.array().shape == (1, HEIGHT, WIDTH, 3)


def test_another_prior_or_another_picture_is_another_render(names, saved, pictures, tmp_path):
    decoder, copy = saved["decoder"], tmp_path / "prior"
    shutil.copytree(saved["prior"], copy)
    picture = tmp_path / "look.png"
    shutil.copy(pictures[0], picture)

    def key() -> list[str]:
        return plan_keys(make_job(shot_of(f"{decoder}@{copy}", look=str(picture))), {})

    first = key()
    weights = copy / "prior" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    second = key()
    shutil.copy(pictures[1], picture)
    assert len({*first, *second, *key()}) == 3


# What is refused before weights are read


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"redraw": {"holes": "redraw"}}, "does not inpaint; write holes: border"),
        ({"redraw": {"mask": "PICTURE"}}, "does not inpaint; leave the mask out"),
        ({"solver": "euler"}, "unknown solver"),
        ({"prompt": "a (fox:1.3)"}, "write the prompt without them"),
        ({"size": "34x32"}, "width=34 is not a multiple of 4"),
        ({"look": ["PICTURE@0:0.6", "PICTURE@0:0.6"]}, "the looks at frame 0 have 1.2 together"),
        ({"look": "PICTURE@9"}, r"look\[0\].*9"),
        ({"look": "missing.png"}, "missing.png"),
        ({"control": {"path": "PICTURE", "model": "x"}}, "control is read by ControlNets"),
    ],
)
def test_what_it_cannot_do_is_refused(names, pictures, fields, message):
    def put(value):
        if isinstance(value, str):
            return value.replace("PICTURE", pictures[0])
        if isinstance(value, dict):
            return {name: put(inner) for name, inner in value.items()}
        return [put(inner) for inner in value] if isinstance(value, list) else value

    with pytest.raises(KinemaError, match=message):
        make_plan(shot_of(names["two"], **put(fields)), read_card(names["two"]))


@pytest.mark.parametrize("kind", ["embedded", "sd"])
def test_a_look_needs_a_model_that_reads_it(image_model, pictures, kind):
    card = read_card("embedded" if kind == "embedded" else str(image_model(kind)))
    shot = Shot(model=card.id, prompt="a fox", mode="frame_by_frame", frames=3, look=pictures[0])
    with pytest.raises(ConfigError, match=r"look is read by Kandinsky 2\.2.*as a keyframe"):
        make_plan(shot, card)


def test_a_decoder_needs_its_own_prior(saved, tmp_path, image_model):
    decoder = str(saved["decoder"])
    with pytest.raises(ModelError, match=r"write .*decoder@PRIOR"):
        read_card(decoder)
    with pytest.raises(ModelError, match="its prior, a 'KandinskyV22PriorPipeline'"):
        read_card(f"{decoder}@{image_model('sd')}")
    with pytest.raises(ModelError, match="has its prior in it"):
        read_card(f"{saved['both']}@{saved['prior']}")
    wide = save_kandinsky(tmp_path, width=24)["prior"]
    with pytest.raises(ModelError, match="embeddings of 24 numbers and the decoder reads 16"):
        read_card(f"{decoder}@{wide}")


def test_pickled_weights_of_a_prior_are_not_read(saved, tmp_path):
    copy = tmp_path / "prior"
    shutil.copytree(saved["prior"], copy)
    weights = copy / "image_encoder" / "model.safetensors"
    weights.rename(copy / "image_encoder" / "pytorch_model.bin")
    with pytest.raises(ModelError, match="holds pickled weights"):
        kinema.load(f"{saved['decoder']}@{copy}", device="cpu")


def test_the_cost_counts_the_prior(names, saved):
    def weights(folder: Path) -> int:
        return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))

    card = read_card(names["two"])
    found = estimate(make_plan(shot_of(card.id), card), card).weight_bytes
    assert found == weights(saved["decoder"]) + weights(saved["prior"])
