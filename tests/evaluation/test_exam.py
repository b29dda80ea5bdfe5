"""The examination: real clips pass every measure, each broken factor fails, and the table says so."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from kinema.core.contracts import Stride
from kinema.core.errors import ConfigError, GeometryError, ModelError
from kinema.evaluation.exam import Exam, ExamSettings, report_table
from kinema.evaluation.factors import Clips, Panel, marks
from kinema.evaluation.identity import IdentityJudge
from kinema.evaluation.modes import held_frames, rank_correlation, seam_ratio, travel_order
from kinema.evaluation.questions import FACTORS, known_factors, questions
from kinema.evaluation.subject import Sampling
from kinema.evaluation.training_facts import TrainingFacts
from kinema.models.text import TextStates
from kinema.training.data import SpriteBank, render
from kinema.training.grammar import Grammar

SIZE, FRAMES = 64, 25
NAMES = ("kite", "boot", "sail", "lamp", "drum", "vase")
INKS = ((120, 120, 250), (250, 120, 120), (120, 250, 120), (240, 240, 120), (240, 120, 240), (120, 240, 240))
FULL = Grammar(
    hued=0.2,
    placed=0.2,
    acting=0.2,
    viewed=0.2,
    company=0.2,
    patterned=0.2,
    held_out=0.1,
    gradient=0.3,
    place_jitter=0.02,
)
SIMPLE = Grammar(held_out=0.1)


@pytest.fixture(scope="module")
def large_bank(tmp_path_factory):
    """Sprites like an L, so that their turns can be seen."""
    folder = tmp_path_factory.mktemp("large")
    frames = np.zeros((len(NAMES), SIZE, SIZE, 4), dtype=np.uint8)
    for index, ink in enumerate(INKS):
        frames[index, 6:58, 8:32] = (*ink, 255)
        frames[index, 36:58, 8:56] = (*ink, 255)
        frames[index, 10:16, 12:18] = (255, 255, 255, 255)
    np.save(folder / "frames.npy", frames)
    sprites = [{"name": name, "tags": [], "offset": i, "frames": 1} for i, name in enumerate(NAMES)]
    (folder / "sprites.json").write_text(json.dumps({"fps": 12, "sha256": "cd", "sprites": sprites}))
    return SpriteBank.open(folder)


def draw(bank, asked):
    scenes = [question.prompt.scene for question in asked]
    clips = render(bank, scenes, frames=FRAMES, fps=12, size=SIZE)
    plain = [question.plain.scene for question in asked if question.plain]
    return Clips(clips, render(bank, plain, frames=FRAMES, fps=12, size=SIZE) if plain else None)


PANEL = Panel(None)


def scores(factor, clips, asked):
    (found,) = marks(factor, clips, asked, PANEL).values()
    return {name: float(values.mean()) for name, values in found.items()}


JUDGED = [factor for factor in FACTORS if factor != "identity"]


@pytest.mark.parametrize("factor", JUDGED)
def test_both_measures_find_what_real_clips_show(large_bank, factor):
    asked = questions(factor, large_bank.identities, FULL, seen=8, unseen=0)
    found = scores(factor, draw(large_bank, asked), asked)
    assert len(found) == 2
    assert min(found.values()) >= 0.85, found


@pytest.mark.parametrize("factor", JUDGED)
def test_clips_of_one_colour_fail(large_bank, factor):
    asked = [
        question
        for question in questions(factor, large_bank.identities, FULL, seen=12, unseen=0)
        if question.prompt.scene.view != "still" or factor != "camera"
    ]
    empty = torch.full((len(asked), 3, FRAMES, SIZE, SIZE), 0.31)
    found = scores(factor, Clips(empty, empty), asked)
    assert max(found.values()) <= 0.4, found


@pytest.mark.parametrize("factor", ["direction", "spin", "camera"])
def test_clips_played_backwards_fail(large_bank, factor):
    asked = [
        question
        for question in questions(factor, large_bank.identities, FULL, seen=12, unseen=0)
        if question.prompt.scene.view != "still" or factor != "camera"
    ]
    found = scores(factor, Clips(draw(large_bank, asked).asked_BCFHW.flip(2)), asked)
    assert max(found.values()) == 0, found


def test_frozen_clips_show_no_motion(large_bank):
    for factor in ("direction", "spin"):
        asked = questions(factor, large_bank.identities, FULL, seen=4, unseen=0)
        clips = draw(large_bank, asked).asked_BCFHW
        found = scores(factor, Clips(clips[:, :, 12:13].expand_as(clips)), asked)
        assert max(found.values()) == 0


def test_a_sprite_that_moves_is_no_camera_and_the_other_way_round(large_bank):
    asked = questions("camera", large_bank.identities, FULL, seen=16, unseen=0)
    kinds = {question.prompt.scene.view == "still" for question in asked}
    assert kinds == {True, False}
    clips = draw(large_bank, asked).asked_BCFHW
    swapped = torch.roll(clips, 1, 0)
    right = [
        a.prompt.scene.view == b.prompt.scene.view
        for a, b in zip(asked, [asked[-1], *asked[:-1]], strict=True)
    ]
    found = marks("camera", Clips(swapped), asked, PANEL)["camera"]
    for values in found.values():
        assert values.bool().tolist() == right


@pytest.mark.parametrize(
    ("factor", "fault"),
    [("place", (3, 4)), ("sprite colour", (1,)), ("background", (1,)), ("count", None), ("size", None)],
)
def test_the_broken_factor_fails(large_bank, factor, fault):
    """Turned upside down, in other colours, somebody else's number, the size of the plain one."""
    asked = questions(factor, large_bank.identities, FULL, seen=12, unseen=0)
    clips = draw(large_bank, asked)
    if factor == "place":
        asked = [q for q in asked if q.prompt.scene.place not in ("left", "right", "top", "bottom")]
        broken = Clips(draw(large_bank, asked).asked_BCFHW.flip(*fault))
    elif factor in ("sprite colour", "background"):
        asked = [
            q
            for q in asked
            if not {"gray", "white", "black"} & {q.prompt.scene.hue, *q.prompt.scene.background.names}
        ]
        broken = Clips(-draw(large_bank, asked).asked_BCFHW)
    elif factor == "count":
        others = [replace(q, prompt=replace(q.prompt, scene=asked[0].prompt.scene)) for q in asked]
        asked = [q for q in asked if len(q.prompt.scene.subjects) != len(asked[0].prompt.scene.subjects)]
        broken = draw(large_bank, others[: len(asked)])
    else:
        broken = Clips(clips.plain_BCFHW, clips.plain_BCFHW)
    assert asked
    found = scores(factor, broken, asked)
    assert max(found.values()) <= 0.2, found


def test_questions_are_fixed_and_keep_to_their_combinations(large_bank):
    for factor in FACTORS:
        few = questions(factor, large_bank.identities, FULL, seen=2, unseen=2)
        many = questions(factor, large_bank.identities, FULL, seen=4, unseen=2)
        assert many[:2] == few[:2]
        assert [q.prompt.unseen for q in few[:2]] == [False, False]
        assert all(q.prompt.unseen for q in few[2:])
        assert few != questions(factor, large_bank.identities, FULL, seen=2, unseen=2, seed=1)
    assert all(
        question.plain.seed == question.prompt.seed
        for question in questions("size", large_bank.identities, FULL, seen=3, unseen=0)
    )


def test_a_model_is_asked_about_what_it_has_seen():
    assert known_factors(FULL) == FACTORS
    assert known_factors(SIMPLE) == ("identity", "background", "size", "direction")
    assert known_factors(Grammar(moving=0, resized=0)) == ("identity", "background")


class Painter:
    """A subject that renders what it is asked for, or what `instead` makes of it."""

    def __init__(self, bank, instead=lambda clips: clips):
        self.bank, self.instead, self.codec = bank, instead, self
        self.stride = Stride(4, 8)

    def clips(self, prompts, shape_FHW, sampling, first_BCFHW=None, held=None, towards=None):
        scenes = [prompt.scene for prompt in prompts]
        return self.instead(render(self.bank, scenes, frames=shape_FHW[0], fps=12, size=SIZE))

    def encode(self, frames, first=True):
        return frames

    decode = encode

    def text(self, words):
        states = torch.nn.functional.normalize(
            torch.tensor([[float(len(w)), float(sum(map(ord, w)) % 97)] for w in words])
        )
        return TextStates(states_KLD=states[:, None], mask_KL=states[:, :1] > -9, pooled_KD=states)


class Oracle(IdentityJudge):
    """Knows the sprites by the ink of their middle."""

    def __init__(self, names):
        self.names = tuple(names)
        self._classes = {name: index for index, name in enumerate(self.names)}
        self.net = type("Net", (), {"config": type("C", (), {"size": SIZE})})()

    def log_probabilities(self, frames_BCFHW, *, batch=256):
        inks = torch.tensor(INKS) / 127.5 - 1
        body = frames_BCFHW[:, :, :, 30:50, 14:26].mean(dim=(2, 3, 4))
        return -torch.cdist(body, inks)


@pytest.fixture
def exam(large_bank):
    def make(instead=lambda clips: clips, bank=large_bank, grammar=SIMPLE):
        return Exam(
            Painter(large_bank, instead),
            TrainingFacts.of(large_bank, grammar),
            Panel(Oracle(NAMES)),
            Sampling(),
            shape_FHW=(FRAMES, SIZE, SIZE),
            fps=12,
            bank=bank,
            settings=ExamSettings(seen=4, unseen=2, modes=0, candidates=8),
        )

    return make


def test_a_perfect_model_scores_as_its_ceiling_and_shuffled_prompts_do_not(exam):
    report = exam().run()
    for row in ("identity top-1", "background", "size", "direction"):
        cells = report.table[row]
        assert cells["model"]["mean"] == cells["real"]["mean"] >= 0.8, row
        assert cells["floor"]["mean"] < 0.7, row
    lines = report_table(report).splitlines()
    assert lines[0].startswith("| factor | real | codec | model | model, seen |")
    assert any(line.startswith("| spin | - | - |") for line in lines)
    assert len(report.asked["direction"]) == 6


def test_an_empty_model_scores_nothing_and_its_failures_are_kept(exam):
    report = exam(lambda clips: torch.full_like(clips, 0.31), bank=None).run()
    assert "real" not in report.table["direction"]
    for row in ("background", "direction"):
        assert report.table[row]["model"]["mean"] == 0
    assert {f.factor for f in report.failures} >= {"background", "direction"}
    assert report.failures[0].clip_CFHW.shape == (3, FRAMES, SIZE, SIZE)


def test_the_lower_measure_counts(exam):
    examination = exam()
    examination._enter("row", "model", {"kind": torch.ones(4), "strict": torch.tensor([1.0, 0, 0, 0])})
    cell = examination.report.table["row"]["model"]
    assert (cell["mean"], cell["measure"]) == (0.25, "strict")
    assert examination.report.measures["row"]["model"] == {"kind": 1.0, "strict": 0.25}


def test_what_a_model_knows_is_written_and_read(large_bank, tmp_path):
    facts = TrainingFacts.of(large_bank, FULL)
    facts.write(tmp_path)
    assert TrainingFacts.read(tmp_path) == facts
    (tmp_path / "training.json").write_text("{}")
    with pytest.raises(ModelError, match="say what they know"):
        TrainingFacts.read(tmp_path)


def test_a_picture_that_falls_apart_is_no_animation(large_bank):
    """The given frame alone is not enough: who is shown after it counts."""

    def fall_apart(clips):
        return torch.cat([clips[:, :, :1], torch.full_like(clips[:, :, 1:], 0.31)], dim=2)

    asked = questions("identity", large_bank.identities, SIMPLE, seen=6, unseen=0, seed=3)
    prompts = [question.prompt for question in asked]
    real = render(large_bank, [p.scene for p in prompts], frames=FRAMES, fps=12, size=SIZE)
    row = "first frame held: who goes on, top-1"
    kept, lost = (
        held_frames(Painter(large_bank, instead), prompts, real, Sampling(), Panel(Oracle(NAMES)))
        for instead in (lambda clips: clips, fall_apart)
    )
    assert kept[row] == kept["codec: the same"] >= 0.8
    assert lost[row] < 0.5
    assert lost["first frame held: psnr of it"] == kept["first frame held: psnr of it"]


def test_seams_and_orders():
    smooth = torch.linspace(-1, 1, 13).view(1, 1, 13, 1, 1).expand(1, 3, 13, 2, 2)
    assert seam_ratio(smooth, 5) == pytest.approx(1.0, abs=1e-3)
    jump = smooth.clone()
    jump[:, :, 5:] += 0.5
    assert seam_ratio(jump, 5) == pytest.approx(1 + 0.5 * 6, rel=1e-3)
    assert rank_correlation(torch.tensor([0.0, 1.0, 5.0, 9.0])) == pytest.approx(1.0)
    assert rank_correlation(torch.tensor([9.0, 5.0, 1.0, 0.0])) == pytest.approx(-1.0)
    assert abs(rank_correlation(torch.tensor([0.0, 3.0, 3.5, 1.0]))) < 0.5


def test_what_does_not_change_has_no_order():
    """A clip that never leaves its first prompt must not count as a perfect way to the second."""
    assert rank_correlation(torch.zeros(9)) == 0
    assert rank_correlation(torch.tensor([0.0, 0, 0, 0, 1])) == pytest.approx(0.7071, abs=1e-4)
    assert rank_correlation(torch.tensor([float("nan")] * 4)) == 0


def test_ways_from_somebody_to_the_same_are_left_out(large_bank):
    alone = questions("identity", large_bank.identities[:1], SIMPLE, seen=3, unseen=0, seed=3)
    prompts = [question.prompt for question in alone]
    painter, panel = Painter(large_bank), Panel(Oracle(NAMES))
    assert travel_order(painter, prompts, (FRAMES, SIZE, SIZE), Sampling(), panel) == {}


def test_clips_that_no_judge_can_look_at_are_refused_before_any_is_sampled(large_bank):
    def examine(shape, bank=large_bank, names=NAMES):
        facts, panel = TrainingFacts.of(large_bank, SIMPLE), Panel(Oracle(names))
        return Exam(None, facts, panel, Sampling(), shape_FHW=shape, fps=12, bank=bank)

    with pytest.raises(GeometryError, match=f"{SIZE}x32, and the judges look at square"):
        examine((FRAMES, 32, SIZE))
    with pytest.raises(GeometryError, match=rf"128x128, .* the sprites' {SIZE}; .*--size 128"):
        examine((FRAMES, 128, 128))
    for bank in (None, large_bank):
        with pytest.raises(ConfigError, match=r"none of the .* identities of the model"):
            examine((FRAMES, SIZE, SIZE), bank, ["nobody"])


def test_a_model_of_stills_is_asked_what_stills_show(exam):
    examination = exam()
    examination.shape = (1, SIZE, SIZE)
    examination.settings = ExamSettings(seen=1, unseen=0, modes=2, candidates=4)
    report = examination.run()
    assert {"identity top-1", "background", "size"} <= report.table.keys()
    assert not {"direction", "motion amount", "flicker"} & report.table.keys()
    assert not report.modes
    assert "floor" not in report.table["background"]  # one clip has nobody else's prompt


def test_the_card_is_written_from_the_report(exam, large_bank, tmp_path, monkeypatch):
    import importlib.util
    import sys
    from dataclasses import asdict
    from pathlib import Path

    from kinema.evaluation.examine import save_report

    report = exam(lambda clips: torch.full_like(clips, 0.31), bank=None).run()
    facts = {
        "files": {"vae/model.safetensors": "ab" * 32},
        "data_sha256": "cd" * 32,
        "judge_sha256": None,
        "clip": {"frames": FRAMES, "height": SIZE, "width": SIZE, "fps": "12"},
        "sampling": asdict(Sampling()),
        "settings": {"seed": 0},
    }
    save_report(report, facts, tmp_path / "report.json")
    TrainingFacts.of(large_bank, SIMPLE).write(tmp_path)
    path = Path(__file__).parents[2] / "scripts/model_card.py"
    spec = importlib.util.spec_from_file_location("scripts_model_card", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    words = [
        "card",
        "--report",
        tmp_path / "report.json",
        "--model",
        tmp_path,
        "--out",
        tmp_path / "c/card.md",
    ]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    module.main()
    text = (tmp_path / "c/card.md").read_text()
    assert "on 6 of Microsoft's Fluent emoji, 0 of them\nanimated" in text
    assert "| direction | 0 (0 to 39) |" in text
    assert f"- direction: {report.failures[-1].caption}" in text
    assert "`vae/model.safetensors` `abababababab`" in text
    assert (tmp_path / "c/card-failures.png").exists()
    found = json.loads((tmp_path / "report.json").read_text())
    found["table"]["direction"]["model"] |= {"mean": 0.25, "low": 0.1, "high": 0.5}
    (tmp_path / "student.json").write_text(json.dumps({**found, "speed": "distilled"}))
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--quick", str(tmp_path / "student.json")])
    module.main()
    assert "| direction | 0 (0 to 39) | 25 (10 to 50) |" in (tmp_path / "c/card.md").read_text()
