"""Overflows are survived in float32 and told; weights that are not numbers are named; no black video."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import kinema
from kinema.core.errors import NumericError
from kinema.models.attention import attend, plain_attention
from kinema.models.careful import careful
from kinema.story.shot import Shot

FIELDS = {"prompt": "a red fox", "frames": 5, "width": 32, "height": 32, "steps": 3, "seed": 1}


@pytest.fixture
def half(wan):
    """A checkpoint in float16."""
    return kinema.load(str(wan("t2v")), device="cpu", dtype="float16")


def overflow(model) -> None:
    """Let a sum in the feed-forward of the first block be some 2e6, which float16 cannot hold."""
    first, _, second = model.dit.blocks[0].ffn.net
    first.proj.bias.data.fill_(6e4)
    second.weight.data.add_(0.5)


def shot(model) -> Shot:
    return Shot(model=model.card.id, **FIELDS)


def frames_and_notes(model, **fields):
    notes: list[str] = []
    clip = kinema.render(
        shot(model).with_(**fields),
        model=model,
        on_progress=lambda event: notes.append(event.note) if event.note else None,
    )
    return clip.array(), notes, clip


def test_an_overflow_in_float16_is_survived_in_float32_and_told(half):
    overflow(half)
    found, notes, clip = frames_and_notes(half)
    assert len(notes) == 3
    assert notes[0].startswith("step 1 of 3 (sigma ")
    assert all("computed again in float32" in note for note in notes)
    assert clip.record.run == {"notes": notes}
    assert half.dit.proj_out.weight.dtype == torch.float16
    full = kinema.load(half.card.id, device="cpu", dtype="float32")
    full.dit.load_state_dict(half.dit.state_dict())
    expected, none, _ = frames_and_notes(full)
    assert none == []
    assert found.std() > 1
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 2


def test_a_weight_that_is_not_a_number_is_named_by_its_block(wan, tmp_path):
    model = kinema.load(str(wan("t2v")), device="cpu")
    model.dit.blocks[1].attn1.to_v.weight.data[3, 5] = torch.nan
    out = tmp_path / "a.mp4"
    rule = r"step 1 of 3 .* in float32 either; it began in blocks\.1\.attn1\.to_v, whose weights are not"
    with pytest.raises(NumericError, match=rule):
        kinema.render(shot(model), model=model, out=out)
    assert not out.exists()


def test_of_two_transformers_the_broken_one_is_named(wan):
    model = kinema.load(str(wan("two-experts")), device="cpu")
    model.dit.low.blocks[0].ffn.net[2].weight.data[0, 0] = torch.inf
    with pytest.raises(NumericError, match=r"began in blocks\.0\.ffn.*of the transformer of low noise"):
        kinema.render(shot(model).with_(steps=6), model=model).array()


def test_a_decoder_that_gives_no_numbers_is_named_by_its_layer(wan):
    model = kinema.load(str(wan("t2v")), device="cpu")
    model.vae.decoder.mid_block.resnets[1].conv1.weight.data[0, 0] = torch.nan
    with pytest.raises(NumericError, match=r"latent frame 1 of 2 .* decoder\.mid_block\.resnets\.1\.conv1"):
        kinema.render(shot(model), model=model).array()


class Overflows:
    """A VAE whose stream breaks at one latent frame, unless its weights are float32."""

    def __init__(self, vae, at):
        self.vae, self.at, self.stride, self.memory = vae, at, vae.stride, vae.memory
        self.encode = vae.encode

    def stream(self, latents):
        for index, frames in enumerate(self.vae.stream(latents)):
            careful_now = self.calm
            yield frames if careful_now or index < self.at else frames * torch.inf

    @property
    def calm(self):
        from kinema.models.attention import _plain

        return _plain.get()


def test_frames_that_overflow_are_decoded_again_and_the_earlier_ones_kept(wan):
    model = kinema.load(str(wan("t2v")), device="cpu")
    expected, _, _ = frames_and_notes(model, frames=13)
    model.vae = Overflows(model.vae, at=2)
    found, notes, _ = frames_and_notes(model, frames=13)
    assert np.array_equal(found, expected)
    assert notes == ["latent frame 3 of 4 was not finite and was decoded again in float32."]


BY_FRAMES = {"mode": "frame_by_frame", "frames": 3, "redraw": {"strength": 0.9}}


def test_drawn_frames_tell_once_of_what_overflowed_and_the_record_too(half):
    overflow(half)
    half.vae = Overflows(half.vae, at=0)
    found, notes, clip = frames_and_notes(half, **BY_FRAMES)
    assert notes == [
        "steps of drawn frames were not finite and were computed again in float32.",
        "drawn frames were not finite and were decoded again in float32.",
    ]
    assert clip.record.run == {"notes": notes}
    assert found.std() > 1


def test_a_text_encoder_that_overflows_is_run_again_in_float32(wan, half):
    plain, _, _ = frames_and_notes(half)
    weights = half.text.model.encoder.block[0].layer[1].DenseReluDense.wo.weight
    kept = weights.data.clone()
    hook = half.text.model.register_forward_hook(
        lambda module, _, output: (
            output
            if module.dtype == torch.float32
            else type(output)(last_hidden_state=output.last_hidden_state * torch.inf)
        )
    )
    found, notes, clip = frames_and_notes(half)
    _, by_frames, _ = frames_and_notes(half, **BY_FRAMES)
    hook.remove()
    assert set(notes) == {"the prompt's states were not finite and were computed again in float32."}
    assert set(by_frames) == set(notes)
    assert clip.record.run == {"notes": notes[:1]}
    assert torch.equal(weights.data, kept)
    assert np.abs(found.astype(int) - plain.astype(int)).max() <= 3


def test_the_record_in_the_file_tells_what_happened(half, tmp_path):
    overflow(half)
    out = tmp_path / "a.mp4"
    kinema.render(shot(half), model=half, out=out, sidecar=True)
    notes = kinema.Clip.open(out).record.run["notes"]
    assert len(notes) == 3
    assert json.loads((tmp_path / "a.mp4.json").read_text())["run"]["notes"] == notes


def test_a_render_that_goes_on_tells_what_happened_before(half, tmp_path):
    overflow(half)
    request, whole, cut = shot(half), tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    kinema.render(request, model=half, out=whole)

    def stop(event):
        if event.phase == "denoise" and event.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kinema.render(request, model=half, out=cut, on_progress=stop, checkpoint_every=1)
    kinema.render(request, model=half, out=cut, checkpoint_every=1)
    assert cut.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_careful_leaves_the_very_tensors_that_were_there(dtype):
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4)).to(dtype)
    before = [p.data_ptr() for p in module.parameters()]
    with careful(module):
        assert module(torch.ones(1, 3)).dtype == torch.float32
    assert [p.data_ptr() for p in module.parameters()] == before
    assert not module[0]._forward_hooks


def test_plain_attention_equals_the_kernel():
    q, k, v = torch.randn(3, 2, 2, 300, 16, generator=torch.Generator().manual_seed(0))
    bias = torch.zeros(2, 300).index_fill(1, torch.arange(250, 300), -torch.inf)
    with plain_attention():
        plain = attend(q, k, v, bias)
    torch.testing.assert_close(plain, attend(q, k, v, bias), atol=1e-5, rtol=0)
