"""Caches and reused guidance in whole runs: windows, experts, prompts, held frames, cut-off renders."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import kinema
from kinema.core.errors import ConfigError
from kinema.models.dit import VideoDiT
from kinema.pipelines.card import EMBEDDED_FOLDER
from kinema.pipelines.cards import read_card
from kinema.pipelines.conditioning import condition
from kinema.pipelines.estimate import estimate
from kinema.pipelines.planning import make_plan
from kinema.pipelines.render import denoise
from kinema.story.shot import Shot

STEPS = 12
BASE = {"prompt": "a fox", "negative": "a dog", "steps": STEPS, "seed": 1, "device": "cpu"}
SMALL = BASE | {"frames": 9, "width": 64, "height": 64}
WAN = BASE | {"frames": 5, "width": 32, "height": 32}
SCHEDULE = {"cache": "schedule", "skip": [4, 5, 8]}


def latents(model, **fields) -> tuple[torch.Tensor, str]:
    """Sampled latents, and what was told of the run."""
    notes = []
    plan = make_plan(Shot(model=model.card.id, **fields), model.card)
    found = denoise(plan, model, condition(plan, model), lambda e: notes.append(e.note) if e.note else None)
    return found, " ".join(notes)


def distance(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).abs().mean() / exact.abs().mean())


def counts(text: str) -> tuple[int, int, int, int]:
    """Forwards run, of how many, carried on, reused."""
    rule = r"(\d+) of (\d+) forwards were run: (\d+) were carried on .* (\d+) times"
    return tuple(map(int, re.search(rule, text).groups()))


@pytest.fixture(scope="module")
def model(small):
    return kinema.load(str(small), device="cpu")


@pytest.mark.parametrize("kind", ["t2v", "ti2v", "two-experts"])
def test_a_forward_in_stages_is_the_forward(wan, kind):
    model = kinema.load(str(wan(kind)), device="cpu")
    fields = WAN | ({"width": 64, "height": 64} if kind == "ti2v" else {})
    exact, silence = latents(model, **fields)
    assert silence == ""
    watched, _ = latents(model, **fields, shortcuts={"cache": "first-block", "threshold": 1e-9})
    torch.testing.assert_close(watched, exact, atol=1e-4, rtol=0)
    found, _ = latents(model, **fields, shortcuts=SCHEDULE)
    assert not torch.allclose(found, exact, atol=1e-4)


def test_each_skipped_step_leaves_out_both_sides(model):
    _, text = latents(model, **SMALL, shortcuts=SCHEDULE)
    assert counts(text) == (2 * (STEPS - 3), 2 * STEPS, 6, 0)
    _, text = latents(model, **SMALL, shortcuts={**SCHEDULE, "reuse": [4, 5, 6, 8, 9]})
    assert counts(text) == (2 * (STEPS - 3) - 2, 2 * STEPS, 3, 5)


def test_blocks_of_a_skipped_step_are_not_run(wan, monkeypatch):
    model = kinema.load(str(wan("t2v")), device="cpu")
    # a hook on a norm makes the transformer be asked as it is, block by block
    calls = []
    model.dit.blocks[1].norm2.register_forward_hook(lambda *_: calls.append(1))
    latents(model, **WAN, shortcuts=SCHEDULE)
    assert len(calls) == 2 * (STEPS - 3)


def test_a_transformer_that_is_streamed_gives_the_same_bits(wan):
    shot = Shot(model=str(wan("two-experts")), **WAN, shortcuts=SCHEDULE)
    whole, streamed = (kinema.render(shot, memory=memory) for memory in ("whole", "block"))
    assert np.array_equal(whole.array(), streamed.array())
    assert torch.equal(whole.latents, streamed.latents)
    assert "carried on" in streamed.record.run["notes"][0]


def test_several_prompts_have_memories_of_their_own(model):
    fields = SMALL | {"prompt": {0: "a fox", 8: "an owl"}, "blend": "velocity", "solver": "euler"}
    exact, _ = latents(model, **fields)
    found, text = latents(model, **fields, shortcuts=SCHEDULE | {"order": 1})
    assert counts(text) == (2 * (STEPS - 3), 2 * STEPS, 6, 0)
    plain, _ = latents(model, **SMALL | {"solver": "euler"})
    alone, _ = latents(model, **SMALL | {"solver": "euler"}, shortcuts=SCHEDULE)
    assert distance(found, exact) < 2 * distance(alone, plain)  # one prompt's, where nothing can be mixed up


def test_that_shifting_windows_leave_out_fewer_forwards_is_told(model):
    carried = {}
    for places in ("uniform", "static"):
        windows = {"kind": "fuse", "length": 9, "overlap": 4, "places": places}
        fields = SMALL | {"frames": 17, "windows": windows, "shortcuts": SCHEDULE}
        notes = make_plan(Shot(model=model.card.id, **fields), model.card).notes
        told = any("places: static} leaves out more" in note for note in notes)
        assert told == (places == "uniform")
        run, possible, _, _ = counts(latents(model, **fields)[1])
        carried[places] = 1 - run / possible
        exact = make_plan(Shot(model=model.card.id, **fields | {"shortcuts": None}), model.card)
        assert not any("places: static}" in note for note in exact.notes)
    assert carried["uniform"] < carried["static"]


def test_windows_have_memories_of_their_own(model):
    fields = SMALL | {"frames": 17, "windows": {"kind": "fuse", "length": 9, "overlap": 4}}
    exact, _ = latents(model, **fields)
    found, text = latents(model, **fields, shortcuts=SCHEDULE)
    ran, possible, cached, _ = counts(text)
    assert cached > 0
    assert ran == possible - cached
    plain, _ = latents(model, **SMALL)
    short, _ = latents(model, **SMALL, shortcuts=SCHEDULE)
    assert distance(found, exact) < 2 * distance(short, plain)


def test_the_switch_of_experts_is_computed_and_the_memory_of_the_other_not_used(wan):
    model = kinema.load(str(wan("two-experts")), device="cpu")
    used = []
    for name in ("high", "low"):
        dit = getattr(model.dit, name)
        dit.blocks[0].norm2.register_forward_hook(lambda *_, name=name: used.append(name))
    plan = make_plan(Shot(model=model.card.id, **WAN, shortcuts={"cache": "off"}), model.card)
    denoise(plan, model, condition(plan, model), lambda _: None)
    switch = used.index("low") // 2
    assert 2 < switch < STEPS - 2
    used.clear()
    skips = [switch - 1, switch, switch + 1]
    _, text = latents(model, **WAN, shortcuts={"cache": "schedule", "skip": skips})
    assert counts(text)[2] == 4  # of the three, the first step of the second transformer was computed
    assert used.index("low") // 2 == switch - 1


def test_the_plan_knows_which_of_two_transformers_is_computed_anew(wan):
    model = kinema.load(str(wan("two-experts")), device="cpu")
    cuts = {"cache": "schedule", "skip": list(range(2, STEPS - 1)), "reuse": list(range(1, STEPS))}
    _, text = latents(model, **WAN, shortcuts=cuts)
    plan = make_plan(Shot(model=model.card.id, **WAN, shortcuts=cuts), model.card)
    assert estimate(plan, model.card).forwards == counts(text)[0]


def test_what_is_remembered_does_not_grow_with_the_clip(model):
    def most(frames: int) -> int:
        windows = {"kind": "continue", "length": 9, "overlap": 4}
        fields = SMALL | {"frames": frames, "windows": windows, "shortcuts": {**SCHEDULE, "reuse": [6, 7]}}
        plan = make_plan(Shot(model=model.card.id, **fields), model.card)
        sizes = []

        def count(state):
            sizes.append(sum(t.numel() for t in state.carried.values()))

        denoise(plan, model, condition(plan, model), lambda _: None, on_state=count)
        return max(sizes)

    assert most(25) == most(17)


def test_held_frames_stay_held(model, tmp_path):
    kinema.generate(**SMALL | {"frames": 1}, model=model).save(tmp_path / "a.png")
    fields = SMALL | {"keyframes": [f"{tmp_path / 'a.png'}@0"]}
    exact, _ = latents(model, **fields)
    found, _ = latents(model, **fields, shortcuts=SCHEDULE)
    assert torch.equal(found[:, :, 0], exact[:, :, 0])


@pytest.mark.parametrize(
    "shortcuts",
    [{**SCHEDULE, "reuse": [6, 7]}, {"cache": "first-block", "threshold": 0.3}],
    ids=["schedule", "first block"],
)
@pytest.mark.parametrize("cut", [5, 8])
def test_a_render_that_was_cut_off_ends_with_the_same_bytes(model, tmp_path, shortcuts, cut):
    shot = Shot(model=model.card.id, **SMALL, shortcuts=shortcuts)
    whole, again = tmp_path / "whole.mp4", tmp_path / "again.mp4"
    kinema.render(shot, model=model, out=whole)

    def stop(event):
        if event.phase == "denoise" and event.step == cut:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kinema.render(shot, model=model, out=again, on_progress=stop, checkpoint_every=1)
    kinema.render(shot, model=model, out=again, checkpoint_every=1)
    assert again.read_bytes() == whole.read_bytes()
    assert kinema.Clip.open(again).record.run["notes"]


def test_a_changed_callback_keeps_the_memory(wan):
    """diffusers' callbacks may leave the loop and enter it again."""
    ours = kinema.KinemaPipeline.from_pretrained(wan("t2v"))
    ours.set_progress_bar_config(disable=True)
    call = {"prompt": "a fox", "num_inference_steps": 4, "num_frames": 5, "height": 32, "width": 32}
    plain = ours(**call, generator=torch.Generator().manual_seed(1)).frames
    copied = ours(
        **call,
        generator=torch.Generator().manual_seed(1),
        callback_on_step_end=lambda pipe, i, t, given: {"latents": given["latents"].clone()},
    ).frames
    assert np.array_equal(plain, copied)


def test_the_plan_counts_what_will_be_run(model):
    card = read_card(model.card.id)
    for cuts, run in ((None, 24), (SCHEDULE, 18), ({**SCHEDULE, "reuse": [4, 5, 6, 8, 9]}, 16)):
        plan = make_plan(Shot(model=card.id, **SMALL, shortcuts=cuts), card)
        assert estimate(plan, card).forwards == run


# By hand


def note_of(**fields) -> tuple[str, object]:
    plan = make_plan(Shot(**{"prompt": "a fox", "steps": 20, **fields}), read_card("embedded"))
    return " ".join(plan.notes), plan.sampling.shortcuts


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"solver": "dpm++2m-sde"}, "draws fresh noise at every step"),
        ({"solver": "euler-ancestral"}, "draws fresh noise at every step"),
        ({"steps": 11}, "11 steps are too few"),
    ],
)
def test_what_is_unsafe_turns_shortcuts_off_and_is_said(fields, why):
    note, cuts = note_of(**fields, shortcuts=SCHEDULE)
    assert "shortcuts are off: " in note
    assert why in note
    assert not cuts.acts
    assert note_of(shortcuts=SCHEDULE)[1].acts


@pytest.mark.parametrize(
    ("shortcuts", "said"),
    [
        ({"cache": "schedule", "skip": [20]}, "name step 20 and there are 20"),
        ({"skip": [3]}, "skip belongs to cache: schedule"),
        ({"cache": "sometimes"}, "shortcuts.cache"),
        ({"threshold": 0}, "threshold"),
        ({"reuse": [-1]}, "reuse"),
    ],
)
def test_shortcuts_that_cannot_be_are_refused(shortcuts, said):
    with pytest.raises(ConfigError, match=said):
        note_of(shortcuts=shortcuts)


def test_the_embedded_models_transformer_has_stages():
    from kinema.models.inference import for_inference
    from kinema.models.stages import FastStages, PlainStages, staged

    dit = kinema.load("embedded", device="cpu").dit
    assert isinstance(dit, VideoDiT)
    assert EMBEDDED_FOLDER.is_dir()
    model = kinema.load("embedded", device="cpu")
    plan = make_plan(Shot(prompt="a fox", frames=5, steps=2, seed=1), model.card)
    given = condition(plan, model)
    contexts = (given.positive.contexts[0], given.negative.contexts[0])
    x, time = given.start_BCTYX, torch.full((1, 2), 500.0)
    fast = for_inference(dit)
    stages = staged(fast, x, time, contexts)
    assert isinstance(stages, FastStages)
    expected = fast.several(x, time, contexts)
    with torch.no_grad():
        plain = PlainStages(dit, x, time, contexts, 0)
        for kind in (stages, plain):
            middle = kind.blocks(dict(enumerate(kind.embed())), 0, 1)
            ends = kind.blocks(middle, 1, None)
            one = kind.blocks({1: middle[1]}, 1, None)
            for k in (0, 1):
                torch.testing.assert_close(kind.finish(k, ends[k]), expected[k], atol=5e-5, rtol=0)
            torch.testing.assert_close(one[1], ends[1], atol=1e-5, rtol=0)
