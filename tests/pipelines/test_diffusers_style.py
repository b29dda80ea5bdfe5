"""`KinemaPipeline` behaves as callers of diffusers expect, and needs no diffusers for the embedded model."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import kinema
from kinema.core.errors import ConfigError, ModelError
from kinema.core.runtime import frame_noise

CALL = {"prompt": "a rooster", "num_frames": 5, "num_inference_steps": 3, "guidance_scale": 2.0}


@pytest.fixture(scope="module")
def pipe(small):
    pipe = kinema.KinemaPipeline.from_pretrained(small).to("cpu")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_output_types_show_the_same_frames(pipe):
    kinds = {kind: pipe(**CALL, generator=seeded(), output_type=kind).frames for kind in ("np", "pt", "pil")}
    array = kinds["np"]
    assert array.shape == (1, 5, 64, 64, 3)
    assert array.dtype == np.float32
    assert array.min() >= 0
    assert array.max() <= 1
    np.testing.assert_array_equal(kinds["pt"].numpy(), array.transpose(0, 1, 4, 2, 3))
    assert isinstance(kinds["pil"][0][0], Image.Image)
    np.testing.assert_allclose(np.asarray(kinds["pil"][0][4]) / 255, array[0, 4], atol=0.51 / 255)


def test_latents_decode_to_the_frames(pipe):
    latents = pipe(**CALL, generator=seeded(), output_type="latent").frames
    frames = pipe.components["vae"].decode(latents) / 2 + 0.5
    found = pipe(**CALL, generator=seeded(), output_type="pt", return_dict=False)[0]
    torch.testing.assert_close(frames[0].transpose(0, 1), found[0])


def test_given_latents_are_the_noise(pipe):
    noise = torch.randn(1, pipe.model.card.latent_channels, 2, 8, 8, generator=seeded())
    np.testing.assert_array_equal(pipe(**CALL, latents=noise).frames, pipe(**CALL, generator=seeded()).frames)
    with pytest.raises(ConfigError, match=r"latents have the shape \[1, 1, 1, 1, 1\]; this request needs"):
        pipe(**CALL, latents=torch.zeros(1, 1, 1, 1, 1))


def test_each_video_has_its_own_words_and_generator(pipe):
    call = CALL | {"prompt": ["a rooster", "snow"], "negative_prompt": ["", "red"]}
    batch = pipe(**call, generator=[seeded(1), seeded(2)]).frames
    for i, seed in enumerate((1, 2)):
        one = CALL | {"prompt": call["prompt"][i], "negative_prompt": call["negative_prompt"][i]}
        np.testing.assert_array_equal(batch[i], pipe(**one, generator=seeded(seed)).frames[0])
    with pytest.raises(ConfigError, match="3 generators for 2 videos"):
        pipe(**call, generator=[seeded()] * 3)
    with pytest.raises(ConfigError, match="2 prompts and 1 negative"):
        pipe(**call | {"negative_prompt": ["red"]})


def test_a_length_between_is_rounded_up_and_trimmed(pipe):
    long = pipe(**CALL | {"num_frames": 9}, generator=seeded()).frames
    np.testing.assert_array_equal(pipe(**CALL | {"num_frames": 7}, generator=seeded()).frames, long[:, :7])


def test_a_callback_sees_every_step_and_may_change_the_latents(pipe):
    seen = []

    def watch(p, step, timestep, kwargs):
        seen.append((step, float(timestep), p.num_timesteps, kwargs["latents"].shape[2]))
        return {"latents": kwargs["latents"]}

    plain = pipe(**CALL, generator=seeded(), callback_on_step_end=watch).frames
    assert [step for step, *_ in seen] == [0, 1, 2]
    assert [time for _, time, *_ in seen] == sorted((time for _, time, *_ in seen), reverse=True)
    assert {(steps, frames) for *_, steps, frames in seen} == {(3, 2)}
    np.testing.assert_array_equal(plain, pipe(**CALL, generator=seeded()).frames)

    def blank(p, step, timestep, kwargs):
        return {"latents": torch.zeros_like(kwargs["latents"])} if step == 2 else {}

    latents = pipe(**CALL, generator=seeded(), callback_on_step_end=blank, output_type="latent").frames
    assert not latents.any()


def test_changed_latents_are_what_the_next_step_starts_from(pipe):
    states = []

    def double(p, step, timestep, kwargs):
        states.append(kwargs["latents"])
        return {"latents": 2 * kwargs["latents"]} if step == 0 else None

    changed = pipe(**CALL, generator=seeded(), callback_on_step_end=double, output_type="latent").frames
    plain = pipe(**CALL, generator=seeded(), output_type="latent").frames
    assert len(states) == 3
    assert (changed - plain).std() > 0.2 * plain.std()


def test_interrupt_stops_and_shows_what_there_is(pipe):
    steps = []

    def stop(p, step, timestep, kwargs):
        steps.append(kwargs["latents"])
        p._interrupt = step == 1

    latents = pipe(**CALL, generator=seeded(), callback_on_step_end=stop, output_type="latent").frames
    assert len(steps) == 2
    assert torch.equal(latents, steps[1])
    assert pipe.interrupt
    whole = pipe(**CALL, generator=seeded(), output_type="latent").frames
    assert not pipe.interrupt
    assert not torch.equal(latents, whole)


@pytest.mark.parametrize("scale", [0, 0.5])
def test_a_scale_below_1_turns_guidance_off_as_1_does(pipe, scale):
    off, low = (pipe(**CALL | {"guidance_scale": s}, generator=seeded()).frames for s in (1, scale))
    np.testing.assert_array_equal(low, off)


def test_properties_follow_the_call(pipe):
    pipe(**CALL | {"guidance_scale": 1.0})
    assert (pipe.guidance_scale, pipe.do_classifier_free_guidance) == (1.0, False)
    pipe(**CALL | {"guidance_scale": 4.0, "num_inference_steps": 2})
    assert (pipe.guidance_scale, pipe.do_classifier_free_guidance, pipe.num_timesteps) == (4.0, True, 2)
    assert pipe.current_timestep is None


def test_pictures_may_be_images_arrays_or_paths(pipe, tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    kinds = (Image.fromarray(array), array, tmp_path / "a.png", str(tmp_path / "a.png"))
    found = [pipe(**CALL, generator=seeded(), image=kind).frames for kind in kinds]
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
    with pytest.raises(ConfigError, match=r"float64 \[64, 64, 3\]; give a uint8 array"):
        pipe(**CALL, image=array / 255)


def test_unknown_names_are_refused_before_work(pipe):
    with pytest.raises(ConfigError, match="unknown callback tensor 'prompt_embeds'"):
        pipe(**CALL, callback_on_step_end_tensor_inputs=["prompt_embeds"])
    with pytest.raises(ConfigError, match="unknown output_type 'gif'"):
        pipe(**CALL, output_type="gif")
    with pytest.raises(ConfigError, match="unknown dtype 'int8'"):
        kinema.KinemaPipeline.from_pretrained(dtype=torch.int8)


def test_fewer_text_tokens_read_fewer_words(pipe):
    long = CALL | {"prompt": "a rooster in the snow beside a red house"}
    cut, same = (
        pipe(**call, generator=seeded(), max_sequence_length=length, output_type="latent").frames
        for call, length in ((long, 4), (CALL | {"prompt": "a rooster"}, 4))
    )
    torch.testing.assert_close(cut, same, atol=1e-5, rtol=0)


def test_half_precision_keeps_time_and_tables_in_full(small):
    pipe = kinema.KinemaPipeline.from_pretrained(small, torch_dtype=torch.bfloat16)
    assert pipe.dtype == torch.bfloat16
    dit = pipe.components["transformer"]
    assert dit.proj_out.weight.dtype == torch.bfloat16
    assert dit.scale_shift_table.dtype == torch.float32
    assert pipe.to(torch.float32).components["transformer"].proj_out.weight.dtype == torch.float32


def test_diffusers_is_not_imported_for_the_packages_model(small):
    code = (
        "import sys, kinema; "
        f"pipe = kinema.KinemaPipeline.from_pretrained({str(small)!r}); "
        "pipe.set_progress_bar_config(disable=True); "
        "pipe('a', num_frames=1, num_inference_steps=1); "
        "print(sorted({'diffusers', 'transformers'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def lora_file(path, size):
    from safetensors.torch import save_file

    g = torch.Generator().manual_seed(0)
    tensors = {}
    for name in ("attn1.to_q", "attn2.to_k", "attn2.to_v"):  # the last two are asked while texts are read
        down, up = torch.randn(2, size, generator=g), torch.randn(size, 2, generator=g)
        key = f"transformer.blocks.0.{name}"
        tensors |= {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}
    save_file(tensors, path)
    return path


def test_loras_by_name_and_scale(small, tmp_path):
    pipe = kinema.KinemaPipeline.from_pretrained(small)
    pipe.set_progress_bar_config(disable=True)

    def frames():
        return pipe(**CALL, generator=seeded()).frames

    plain, width = frames(), pipe.model.dit.config.width
    pipe.load_lora_weights(lora_file(tmp_path / "a.safetensors", width), adapter_name="a")
    worn = frames()
    assert pipe.get_active_adapters() == ["a"]
    assert not np.array_equal(worn, plain)
    pipe.set_adapters("a", 0.5)
    assert not np.array_equal(frames(), worn)
    pipe.set_adapters(["a"], [1.0])
    pipe.fuse_lora()
    np.testing.assert_allclose(frames(), worn, atol=1e-3)
    with pytest.raises(ConfigError, match="unfuse_lora"):
        pipe.enable_model_cpu_offload(device="cpu")
    pipe.unfuse_lora()
    pipe.disable_lora()
    np.testing.assert_array_equal(frames(), plain)
    pipe.enable_lora()
    np.testing.assert_array_equal(frames(), worn)
    with pytest.raises(ConfigError, match="unknown adapter 'b'"):
        pipe.set_adapters("b")
    with pytest.raises(ConfigError, match="loaded already"):
        pipe.load_lora_weights(tmp_path / "a.safetensors", adapter_name="a")
    with pytest.raises(ModelError, match="does not fit this model"):
        pipe.load_lora_weights(lora_file(tmp_path / "wrong.safetensors", width + 2))
    pipe.delete_adapters("a")
    np.testing.assert_array_equal(frames(), plain)


def test_a_lora_without_a_name_takes_the_first_that_is_free(small, tmp_path):
    pipe = kinema.KinemaPipeline.from_pretrained(small)
    path = lora_file(tmp_path / "a.safetensors", pipe.model.dit.config.width)
    pipe.load_lora_weights(path)
    pipe.load_lora_weights(path)
    pipe.delete_adapters("default_0")
    pipe.load_lora_weights(path)
    pipe.load_lora_weights(path, adapter_name="default_2")
    pipe.load_lora_weights(path)
    assert pipe.get_active_adapters() == ["default_1", "default_0", "default_2", "default_3"]


def test_a_lora_acts_on_texts_as_in_render(small, tmp_path):
    pipe = kinema.KinemaPipeline.from_pretrained(small)
    pipe.set_progress_bar_config(disable=True)
    path = lora_file(tmp_path / "a.safetensors", pipe.model.dit.config.width)
    pipe.load_lora_weights(path)
    shot = kinema.Shot(
        model=pipe.model.card.id,
        prompt="a rooster",
        frames=5,
        steps=3,
        guidance=2.0,
        seed=1,
        loras=[str(path)],
    )
    noise = frame_noise(1, (pipe.model.card.latent_channels, 8, 8), 2)
    found = pipe(**CALL, latents=noise, generator=seeded(1)).frames[0]
    rendered = kinema.render(shot, model=pipe.model).array()
    assert np.abs(255 * found - rendered).max() <= 0.51


def test_offloading_changes_no_frame(small, tmp_path):
    pipe = kinema.KinemaPipeline.from_pretrained(small)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(lora_file(tmp_path / "a.safetensors", pipe.model.dit.config.width))
    whole = pipe(**CALL, generator=seeded()).frames
    for arrange in (pipe.enable_model_cpu_offload, pipe.enable_sequential_cpu_offload):
        arrange(device="cpu")
        np.testing.assert_array_equal(pipe(**CALL, generator=seeded()).frames, whole)
    with pytest.raises(ConfigError, match="fuse_lora needs the whole model"):
        pipe.fuse_lora()
    pipe.remove_all_hooks()
    np.testing.assert_array_equal(pipe(**CALL, generator=seeded()).frames, whole)


@pytest.mark.parametrize("kind", ["small", "t2v"])
def test_a_saved_pipeline_is_loaded_again(small, wan, tmp_path, kind):
    folder = small if kind == "small" else wan(kind)
    call = CALL if kind == "small" else CALL | {"height": 32, "width": 32}
    pipes = [kinema.KinemaPipeline.from_pretrained(folder)]
    pipes[0].save_pretrained(tmp_path / "copy")
    pipes.append(kinema.KinemaPipeline.from_pretrained(tmp_path / "copy"))
    found = [pipe(**call, generator=seeded()).frames for pipe in pipes]
    np.testing.assert_array_equal(found[0], found[1])
