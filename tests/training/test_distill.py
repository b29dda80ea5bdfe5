"""Distillation: the student's target is where the guided teacher gets to."""

from __future__ import annotations

import pytest
import torch

from kinema.core.errors import ConfigError, ModelError
from kinema.core.runtime import generator
from kinema.models.dit import VideoDiT, VideoDiTConfig
from kinema.models.text import TextStates
from kinema.training.distill import DistillSettings, distillation, guided, teacher_jump
from kinema.training.dit import conditioning, matrices
from kinema.training.low_rank import additions, attach, fold, read_additions, save_additions, without

SHAPE = VideoDiTConfig(
    patch_size=(1, 1, 1),
    num_attention_heads=2,
    attention_head_dim=12,
    in_channels=3,
    out_channels=3,
    text_dim=4,
    freq_dim=8,
    ffn_dim=16,
    num_layers=2,
)


def words(captions):
    states = torch.stack([torch.full((2, 4), float(len(caption))) for caption in captions])
    return TextStates(states_KLD=states, mask_KL=torch.ones(len(captions), 2, dtype=torch.bool))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return VideoDiT(SHAPE).requires_grad_(False)


LATENTS = torch.randn(2, 3, 3, 2, 2, generator=torch.Generator().manual_seed(1))
CAPTIONS = ["fox", "a hen"]


class Constant:
    """Velocity 3 for words, 1 for none."""

    def __call__(self, x, time_BT, context):
        return torch.full_like(x, context)


def test_guided_mixes_as_written():
    v = guided(Constant(), LATENTS, torch.ones(2, 3), 3.0, 1.0, 2.0)
    assert (v == 5).all()


def test_the_teacher_goes_all_the_way_and_held_frames_stay():
    start, end = torch.tensor([[0.8, 0.8, 0.0]] * 2), torch.tensor([[0.5, 0.5, 0.0]] * 2)
    reached = teacher_jump(Constant(), LATENTS, start, end, (3.0, 1.0), DistillSettings(guidance=2.0))
    torch.testing.assert_close(reached[:, :, :2], LATENTS[:, :, :2] - 0.3 * 5)
    assert torch.equal(reached[:, :, 2], LATENTS[:, :, 2])


class Linear:
    """dx/ds = x: from s to e the flow is x exp(e - s)."""

    def __call__(self, x, time_BT, context):
        return x


def test_more_substeps_come_closer_to_the_teachers_flow():
    start, end = torch.full((2, 3), 0.9), torch.full((2, 3), 0.3)
    true = LATENTS * torch.tensor(-0.6).exp()
    errors = []
    for k in (1, 4, 16):
        reached = teacher_jump(Linear(), LATENTS, start, end, (0.0, 0.0), DistillSettings(substeps=k))
        errors.append(float((reached - true).norm()))
    assert errors[0] > 3.5 * errors[1] > 3.5 * 3.5 * errors[2]


@pytest.mark.parametrize("more", [{"substeps": 2}, {"substeps": 1, "midpoint": True}])
def test_only_a_guided_velocity_is_followed_by_any_solver(more):
    assert DistillSettings(substeps=1, solver="unipc").solver == "unipc"
    with pytest.raises(ConfigError, match="cannot follow a student of jumps"):
        DistillSettings(solver="unipc", **more)
    with pytest.raises(ConfigError, match="unipc"):
        DistillSettings(substeps=1, solver="unipcc")


def test_midpoint_steps_are_of_the_second_order():
    start, end = torch.full((2, 3), 0.9), torch.full((2, 3), 0.3)
    true = LATENTS * torch.tensor(-0.6).exp()
    errors = []
    for k in (1, 2, 4):
        settings = DistillSettings(substeps=k, midpoint=True)
        reached = teacher_jump(Linear(), LATENTS, start, end, (0.0, 0.0), settings)
        errors.append(float((reached - true).norm()))
    assert errors[0] > 3.5 * errors[1] > 3.5 * 3.5 * errors[2]


def test_the_teacher_of_held_frames_has_its_own_guidance():
    start, end = torch.full((2, 3), 0.9), torch.full((2, 3), 0.4)
    settings = DistillSettings(substeps=1, guidance=3.0, guidance_held=1.0)
    for held, velocity in (("none", 7.0), ("first", 3.0)):
        reached = teacher_jump(Constant(), LATENTS, start, end, (3.0, 1.0), settings, held)
        torch.testing.assert_close(reached, LATENTS - 0.5 * velocity)
    assert DistillSettings(guidance=3.0).guidance_for("first") == 3


def loss(model, settings, seed=0):
    return distillation(
        model, LATENTS, CAPTIONS, words, settings, held="first", rng=generator(seed, "distillation")
    )


def test_a_student_with_one_substep_and_no_guidance_is_its_teacher(model):
    attach(model, matrices(model), rank=2, generator=generator(0, "a"))
    settings = DistillSettings(steps=3, substeps=1, guidance=1.0)
    assert float(loss(model, settings).detach()) < 1e-10
    assert float(loss(model, DistillSettings(steps=3, substeps=1, guidance=4.0)).detach()) > 1e-6


def test_a_student_keeps_the_velocity_of_the_empty_prompt(model):
    """With every caption dropped, guidance leads nowhere: the untaught student has nothing to learn."""
    attach(model, matrices(model), rank=2, generator=generator(0, "a"))
    told = DistillSettings(steps=3, substeps=1, guidance=4.0, text_dropout=1.0)
    assert float(loss(model, told).detach()) < 1e-10


def test_only_the_additions_learn_and_they_learn_guidance(model):
    before = {name: p.clone() for name, p in model.state_dict().items()}
    attach(model, matrices(model), rank=4, generator=generator(0, "a"))
    settings = DistillSettings(steps=3, substeps=2, guidance=4.0)
    learned = [p for p in model.parameters() if p.requires_grad]
    assert len(learned) == 2 * len(list(additions(model)))
    optimiser = torch.optim.AdamW(learned, lr=1e-2)
    first = sum(float(loss(model, settings, seed).detach()) for seed in range(4))
    for step in range(25):
        optimiser.zero_grad()
        loss(model, settings, step % 4).backward()
        optimiser.step()
    assert sum(float(loss(model, settings, seed).detach()) for seed in range(4)) < 0.7 * first
    own = model.state_dict()
    for name, value in before.items():
        kept = own.get(name, own.get(name.replace(".weight", ".parametrizations.weight.original")))
        assert torch.equal(kept, value), name


def test_saved_additions_folded_into_the_teacher_are_the_student(model, tmp_path):
    torch.manual_seed(0)
    teacher = VideoDiT(SHAPE).requires_grad_(False)
    attach(model, matrices(model), rank=2, generator=generator(0, "a"))
    for _, addition in additions(model):
        addition.b_OR.data.normal_(generator=generator(1, "b"), std=0.3)
    asked = conditioning(words(CAPTIONS))
    level = torch.full((2, 3), 500.0)
    student = model(LATENTS, level, model.prepare(asked))
    plain = teacher(LATENTS, level, teacher.prepare(asked))
    with without(model):
        torch.testing.assert_close(model(LATENTS, level, model.prepare(asked)), plain)
    assert (student - plain).abs().max() > 1e-2
    save_additions(model, tmp_path / "fast.safetensors")
    assert fold(teacher, tmp_path / "fast.safetensors") == len(matrices(teacher))
    torch.testing.assert_close(teacher(LATENTS, level, teacher.prepare(asked)), student, atol=2e-3, rtol=2e-2)


def test_training_begins_with_earlier_additions(model, tmp_path):
    torch.manual_seed(1)
    grown = VideoDiT(SHAPE)
    file = tmp_path / "fast.safetensors"
    attach(model, matrices(model), rank=2, generator=generator(0, "a"))
    for _, addition in additions(model):
        addition.b_OR.data.normal_(generator=generator(1, "b"), std=0.3)
    save_additions(model, file)
    attach(grown, matrices(grown), rank=2, generator=generator(3, "a"))
    weights = {
        name: p.clone() for name, p in grown.named_parameters() if "parametrizations.weight.0" not in name
    }
    read_additions(grown, file)
    for (name, earlier), (_, own) in zip(additions(model), additions(grown), strict=True):
        assert torch.equal(own.a_RI, earlier.a_RI.half().float()), name
        assert torch.equal(own.b_OR, earlier.b_OR.half().float()), name
    assert all(torch.equal(p, dict(grown.named_parameters())[name]) for name, p in weights.items())

    other = VideoDiT(SHAPE)
    attach(other, matrices(other), rank=3, generator=generator(3, "a"))
    with pytest.raises(ModelError, match="does not fit these additions"):
        read_additions(other, file)
    with pytest.raises(ModelError, match="not a file of low-rank additions"):
        read_additions(other, tmp_path / "none.safetensors")


def test_additions_of_another_model_are_refused(model, tmp_path):
    attach(model, matrices(model), rank=2, generator=generator(0, "a"))
    save_additions(model, tmp_path / "fast.safetensors")
    other = VideoDiT(
        VideoDiTConfig(
            **{f: getattr(SHAPE, f) for f in ("patch_size",)},
            num_layers=1,
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=3,
            out_channels=3,
            text_dim=4,
            freq_dim=8,
            ffn_dim=16,
        )
    )
    with pytest.raises(ModelError, match="does not fit this model"):
        fold(other, tmp_path / "fast.safetensors")
    with pytest.raises(ModelError, match="not a file of low-rank additions"):
        fold(other, tmp_path / "none.safetensors")
    with pytest.raises(ConfigError, match="from 1 up"):
        DistillSettings(steps=0)
