"""The objective: which levels are drawn, what is held clean and left out of the loss, what the model sees."""

from __future__ import annotations

import pytest
import torch

from kinema.models.dit import VideoDiT, VideoDiTConfig
from kinema.models.text import TextStates
from kinema.training.dit import (
    ObjectiveSettings,
    conditioning,
    draw_held,
    draw_levels,
    draw_task,
    matrices,
    objective,
    step_generator,
)
from kinema.training.loop import OptimiserSettings, Trainer
from kinema.training.travel import others, per_latent

TINY = VideoDiTConfig.from_mapping(
    {
        "patch_size": (1, 1, 1),
        "num_attention_heads": 2,
        "attention_head_dim": 24,
        "in_channels": 6,
        "out_channels": 6,
        "text_dim": 8,
        "freq_dim": 16,
        "ffn_dim": 32,
        "num_layers": 1,
    }
)
LATENTS = torch.randn(3, 6, 4, 2, 2, generator=torch.Generator().manual_seed(5))
CAPTIONS = ["a fox", "a wolf", "a hen"]
WEIGHTS = per_latent(torch.linspace(0, 1, 13).expand(3, -1), 4, first=True)
COUNTED = {"none": (0, 1, 2, 3), "first": (1, 2, 3), "ends": (1, 2)}


def rng(step=0):
    return step_generator(0, step)


class Words:
    """A text source that remembers what it was asked; a state of ones for words, of zeros for none."""

    def __init__(self):
        self.asked = []

    def __call__(self, captions):
        self.asked += captions
        states = torch.stack([torch.full((2, 8), float(bool(c))) for c in captions])
        return TextStates(states_KLD=states, mask_KL=torch.ones(len(captions), 2, dtype=torch.bool))


class Spy:
    """Answers with `answer(x, sigma)` and keeps what it was shown."""

    def __init__(self, answer):
        self.answer = answer

    def prepare(self, conditioning):
        return conditioning

    def __call__(self, x_BCTYX, time_BT, conditioning):
        self.x_BCTYX, self.time_BT = x_BCTYX, time_BT
        return self.answer(x_BCTYX, time_BT / 1000)


def silent(x_BCTYX, sigma_BT):
    return torch.zeros_like(x_BCTYX)


def loss(held, model, latents=LATENTS, settings=None):
    settings = settings or ObjectiveSettings()
    return asked_of(model, latents, CAPTIONS, Words(), settings, held=held, rng=rng())


def asked_of(model, *batch, **how):
    return objective(model, draw_task(model, *batch, **how))


@pytest.mark.parametrize("held", COUNTED)
def test_held_frames_are_left_out_of_the_loss(held):
    """With a model that always says 0, each counted frame adds |e - x0|^2 and no other adds anything."""
    changed = LATENTS.clone()
    for frame in range(4):
        changed = LATENTS.clone()
        changed[:, :, frame] += 100
        same = torch.equal(loss(held, Spy(silent)), loss(held, Spy(silent), changed))
        assert same is (frame not in COUNTED[held])


@pytest.mark.parametrize("held", COUNTED)
def test_the_loss_is_a_mean_over_the_frames_that_count(held):
    """An error of 2 everywhere is a loss of 4, however many frames are held."""
    spy = Spy(lambda x, s: true_velocity(x, s) + 2)
    assert float(loss(held, spy)) == pytest.approx(4, rel=1e-4)


def true_velocity(x_BCTYX, sigma_BT):
    """v = e - x0 of the batch `LATENTS`, with e from x = (1 - s) x0 + s e; anything where s is 0."""
    s = sigma_BT[:, None, :, None, None].clamp(min=1e-9)
    return (x_BCTYX - LATENTS) / s


@pytest.mark.parametrize("held", ["none", "independent", "first", "ends", "continue"])
def test_the_true_velocity_has_no_loss(held):
    assert float(loss(held, Spy(true_velocity))) < 1e-6


def test_the_model_sees_held_frames_clean_at_time_zero():
    spy = Spy(silent)
    loss("ends", spy)
    assert torch.equal(spy.x_BCTYX[:, :, [0, 3]], LATENTS[:, :, [0, 3]])
    assert (spy.time_BT[:, [0, 3]] == 0).all()
    assert (spy.time_BT[:, 1:3] > 0).all()
    assert not torch.isclose(spy.x_BCTYX[:, :, 1:3], LATENTS[:, :, 1:3]).any(dim=1).all()


@pytest.mark.parametrize(("shift", "spread"), [(1.0, 1.0), (3.0, 1.0), (2.0, 0.5)])
def test_levels_are_logit_normal_and_shifted(shift, spread):
    settings = ObjectiveSettings(shift=shift, spread=spread)
    sigma = draw_levels("none", 20_000, 1, settings, rng()).sigma_BT[:, 0]
    logits = torch.logit(sigma / (shift - (shift - 1) * sigma))  # the shift undone
    assert logits.mean().abs() < 0.03 * spread
    assert logits.std() == pytest.approx(spread, rel=0.02)
    assert sigma.median() == pytest.approx(shift / (shift + 1), abs=0.01)


def test_frames_share_one_level_unless_independent():
    levels = draw_levels("none", 64, 5, ObjectiveSettings(), rng()).sigma_BT
    assert (levels == levels[:, :1]).all()
    levels = draw_levels("independent", 64, 5, ObjectiveSettings(), rng())
    assert len(levels.sigma_BT.unique()) == 64 * 5
    assert (levels.counted_BT == 1).all()


def test_continuations_hold_one_frame_or_two():
    levels = draw_levels("continue", 2000, 5, ObjectiveSettings(), rng())
    held = levels.sigma_BT == 0
    assert torch.equal(held, levels.counted_BT == 0)
    assert held[:, 0].all()
    assert not held[:, 2:].any()
    assert held[:, 1].float().mean() == pytest.approx(0.5, abs=0.05)
    short = draw_levels("continue", 50, 2, ObjectiveSettings(), rng()).counted_BT
    assert (short == torch.tensor([0.0, 1.0])).all()


def test_ways_of_holding_follow_their_odds():
    settings = ObjectiveSettings(odds={"none": 2.0, "first": 1.0, "ends": 1.0, "continue": 0.0})
    generator = rng()
    drawn = [draw_held(settings, generator) for _ in range(2000)]
    shares = {way: drawn.count(way) / len(drawn) for way in settings.odds}
    assert shares == pytest.approx({"none": 0.5, "first": 0.25, "ends": 0.25, "continue": 0}, abs=0.04)


@pytest.mark.parametrize(("dropout", "asked"), [(0.0, CAPTIONS), (1.0, ["", "", ""])])
def test_captions_are_dropped_by_their_share(dropout, asked):
    words = Words()
    settings = ObjectiveSettings(text_dropout=dropout)
    asked_of(Spy(silent), LATENTS, CAPTIONS, words, settings, held="none", rng=rng())
    assert words.asked == asked


def test_conditioning_gives_each_sample_its_own_prompt():
    made = conditioning(Words()(["a fox", ""]))
    assert made.states_BKLD.shape == (2, 1, 2, 8)
    assert made.states_BKLD[0].eq(1).all()
    assert made.states_BKLD[1].eq(0).all()


def test_every_sample_reads_its_own_caption_and_the_next_ones():
    words = Words()
    spy = Spy(silent)
    spy.prepare = lambda asked: setattr(spy, "asked", asked) or asked
    settings = ObjectiveSettings(text_dropout=0.0)
    asked_of(
        spy, LATENTS, CAPTIONS, words, settings, held="none", rng=step_generator(0, 0), weights_BTK=WEIGHTS
    )
    assert words.asked == [*CAPTIONS, *others(CAPTIONS)]
    assert spy.asked.states_BKLD.shape[:2] == (3, 2)
    assert torch.equal(spy.asked.weights_BTK, WEIGHTS)


def test_a_dropped_caption_drops_what_follows_it_too():
    words = Words()
    asked_of(
        Spy(silent),
        LATENTS.repeat(20, 1, 1, 1, 1),
        [f"a fox {i}" for i in range(60)],
        words,
        ObjectiveSettings(text_dropout=0.5),
        held="none",
        rng=step_generator(0, 0),
        weights_BTK=WEIGHTS.repeat(20, 1, 1),
    )
    first, second = words.asked[:60], words.asked[60:]
    assert [not one for one in first] == [not other for other in second]
    assert 15 < sum(not one for one in first) < 45


def test_the_prompts_of_a_sample_come_together():
    states = Words()(["a fox", "", "", "a hen"])  # two samples' first prompts, then their second ones
    made = conditioning(states, torch.ones(2, 4, 2))
    assert made.states_BKLD[:, :, 0, 0].tolist() == [[1, 0], [0, 1]]
    assert made.weights_BTK.shape == (2, 4, 2)


def test_muon_gets_the_matrices_of_the_blocks():
    model = VideoDiT(TINY)
    chosen, shapes = matrices(model), dict(model.named_parameters())
    assert "blocks.0.attn1.to_q.weight" in chosen
    assert all(name.startswith("blocks.") and shapes[name].ndim == 2 for name in chosen)
    assert not any("bias" in name or "norm" in name for name in chosen)


def test_a_step_has_its_own_randomness():
    draws = [torch.rand(3, generator=step_generator(*at)) for at in ((0, 0), (0, 1), (1, 0), (0, 0))]
    assert torch.equal(draws[0], draws[3])
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def train(run, until, settings):
    while run.step < until:
        generator = rng(run.step)
        held = draw_held(settings, generator)
        run.update(asked_of(run.model, LATENTS, CAPTIONS, Words(), settings, held=held, rng=generator))
    return run


def fresh(seed, steps=6):
    torch.manual_seed(seed)
    model = VideoDiT(TINY)
    return Trainer(model, matrices(model), OptimiserSettings(warmup=1, rate=3e-3), steps=steps)


def test_a_resumed_run_of_the_transformer_is_the_same_run(tmp_path):
    settings = ObjectiveSettings(odds={"none": 1.0, "first": 1.0, "independent": 1.0})
    whole = train(fresh(1), 6, settings)
    train(fresh(1), 2, settings).save(tmp_path / "run.safetensors")
    resumed = fresh(2)
    resumed.load(tmp_path / "run.safetensors")
    train(resumed, 6, settings)
    for name, p in whole.model.named_parameters():
        assert torch.equal(p, dict(resumed.model.named_parameters())[name]), name
        assert torch.equal(whole.average[name], resumed.average[name]), name


def test_the_transformer_learns_the_batch():
    settings = ObjectiveSettings(text_dropout=0.0, shift=3.0)
    run = fresh(1, steps=40)

    def error():
        with torch.no_grad():
            return float(loss("none", run.model, settings=settings))

    before = error()
    train(run, 40, settings)
    assert error() < 0.8 * before
