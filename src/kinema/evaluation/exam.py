"""The whole examination of a model: the fixed questions, two measures of each factor, and what bounds them.

    real >= codec >= model >= floor        per factor, each with a 95 % interval over its clips

Of two measures the one with the lower mean counts, in every column. Real clips, their round trip through the
codec and the nearest training clip need the sprites; without them those columns stay empty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

import torch
from torch import Tensor

from kinema.core.errors import ConfigError, GeometryError
from kinema.evaluation.factors import Clips, Marks, Panel, marks
from kinema.evaluation.marks import LEVEL, interval
from kinema.evaluation.modes import held_frames, seam, travel_order
from kinema.evaluation.motion import amounts, flicker
from kinema.evaluation.prompts import Prompt
from kinema.evaluation.questions import FACTORS, Question, known_factors, questions
from kinema.evaluation.subject import Sampling, Subject
from kinema.evaluation.training_facts import TrainingFacts
from kinema.training.captions import caption
from kinema.training.data import SpriteBank, render
from kinema.training.drawing import draw_scenes
from kinema.training.scenes import Identity, Scene

Cell = dict[str, float | str]
Say = Callable[[str], None]
MODEL, SEEN, UNSEEN = "model", "model, seen", "model, held out"
COLUMNS = ("real", "codec", MODEL, SEEN, UNSEEN, "floor", "retrieval")
ROWS = ("identity top-1", "identity top-5", *FACTORS[1:], "motion amount", "flicker")
MOVING = ("direction", "spin", "camera")  # what a still cannot show
FAILURES = 2  # pictures of each factor


@dataclass(frozen=True, kw_only=True, slots=True)
class ExamSettings:
    """How much is asked.

    Attributes:
        seen: questions of each factor about trained combinations.
        unseen: about held-out ones.
        modes: clips for held frames, travel and extension; 0 leaves them out.
        candidates: training clips among which retrieval looks for the nearest caption.
        seed: names the list.
    """

    seen: int = 16
    unseen: int = 8
    modes: int = 8
    candidates: int = 256
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """A clip that a measure marked wrong."""

    factor: str
    caption: str
    clip_CFHW: Tensor


@dataclass(slots=True)
class Report:
    """What an examination found.

    Attributes:
        table: row, then column, then mean, low, high, clips and the measure that counts.
        measures: row, then column, then measure, then its mean; all of them, for the record.
        modes: numbers of the modes beside text to video.
        asked: row, then the captions.
        failures: some clips that were marked wrong.
    """

    table: dict[str, dict[str, Cell]] = field(default_factory=dict)
    measures: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    modes: dict[str, float] = field(default_factory=dict)
    asked: dict[str, list[str]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)


class Exam:
    """One model under examination.

    Args:
        subject: the model.
        facts: whom it knows and what it has seen.
        panel: who says who is shown.
        sampling: how clips are sampled.
        shape_FHW: of a clip.
        fps: frames per second.
        bank: the sprites, where they are at hand.
        settings: how much is asked.
        say: told what is being done.
    """

    def __init__(
        self,
        subject: Subject,
        facts: TrainingFacts,
        panel: Panel,
        sampling: Sampling,
        *,
        shape_FHW: tuple[int, int, int],
        fps: float,
        bank: SpriteBank | None = None,
        settings: ExamSettings | None = None,
        say: Say = lambda message: None,
    ) -> None:
        self.subject, self.facts, self.panel, self.sampling = subject, facts, panel, sampling
        self.shape, self.fps, self.bank, self.say = shape_FHW, fps, bank, say
        self.settings = settings or ExamSettings()
        check_clips(shape_FHW, bank)
        self.identities = known_identities(facts, bank, panel)
        self.report = Report()

    def run(self) -> Report:
        """Ask everything that the model has seen and its clips can show; other rows stay empty."""
        still = self.shape[0] == 1
        for factor in known_factors(self.facts.grammar):
            if not (still and factor in MOVING):
                self.ask(factor)
        if self.settings.modes and not still:
            self.try_modes()
        return self.report

    def ask(self, factor: str) -> None:
        """One factor: sample, judge, and set beside it what bounds it."""
        s = self.settings
        asked = questions(
            factor, self.identities, self.facts.grammar, seen=s.seen, unseen=s.unseen, seed=s.seed
        )
        self.say(f"{factor}: {len(asked)} clips")
        answers = self._answers(asked)
        columns: dict[str, tuple[Clips, Sequence[Question]]] = {MODEL: (answers, asked)}
        rows = {SEEN: False, UNSEEN: True}
        for name, unseen in rows.items():
            chosen = [i for i, question in enumerate(asked) if question.prompt.unseen == unseen]
            if chosen:
                columns[name] = (_select(answers, chosen), [asked[i] for i in chosen])
        if len(asked) > 1:  # one clip has no other's prompt
            columns["floor"] = (answers, [*asked[1:], asked[0]])
        if self.bank is not None:
            columns |= self._bounds(asked)
        for name, (clips, wanted) in columns.items():
            for row, found in marks(factor, clips, wanted, self.panel).items():
                self._enter(row, name, found)
                if name == MODEL and row != "identity top-5":
                    self._keep_failures(row, found, clips, asked)
        for row in ("identity top-1", "identity top-5") if factor == "identity" else (factor,):
            self.report.asked[row] = [question.prompt.text for question in asked]
        if factor == "identity" and self.bank is not None and self.shape[0] > 1:
            self._judge_motion({name: clips.asked_BCFHW for name, (clips, _) in columns.items()})

    def try_modes(self) -> None:
        """Held frames, travel and extension."""
        count = self.settings.modes
        asked = questions(
            "identity", self.identities, self.facts.grammar, seen=count, unseen=0, seed=self.settings.seed + 1
        )
        prompts = [question.prompt for question in asked]
        self.say(f"modes: {count} clips each")
        self.report.modes |= travel_order(self.subject, prompts, self.shape, self.sampling, self.panel)
        if self.bank is not None:
            real = self._render([prompt.scene for prompt in prompts])
            self.report.modes |= held_frames(self.subject, prompts, real, self.sampling, self.panel)
            self.report.modes |= seam(self.subject, prompts, real, self.sampling)

    def _answers(self, asked: Sequence[Question]) -> Clips:
        made = self._sample([question.prompt for question in asked])
        plain = [question.plain for question in asked if question.plain is not None]
        return Clips(made, self._sample(plain) if plain else None)

    def _sample(self, prompts: Sequence[Prompt]) -> Tensor:
        return self.subject.clips(prompts, self.shape, self.sampling)

    def _render(self, scenes: Sequence[Scene]) -> Tensor:
        assert self.bank is not None
        return render(self.bank, scenes, frames=self.shape[0], fps=self.fps, size=self.shape[1])

    @torch.no_grad()
    def _bounds(self, asked: Sequence[Question]) -> dict[str, tuple[Clips, Sequence[Question]]]:
        """Real clips, the codec's round trip of them, and the nearest training clips."""
        real = self._render([question.prompt.scene for question in asked])
        plain = [question.plain.scene for question in asked if question.plain is not None]
        plain_real = self._render(plain) if plain else None
        codec = self.subject.codec
        coded = torch.cat([codec.decode(codec.encode(clip)) for clip in torch.split(real, 8)])
        nearest = self._render(self._nearest(asked))
        return {
            "real": (Clips(real, plain_real), asked),
            "codec": (Clips(coded, plain_real), asked),
            "retrieval": (Clips(nearest, plain_real), asked),
        }

    def _nearest(self, asked: Sequence[Question]) -> list[Scene]:
        """For every question the training scene, of a random lot, whose caption is nearest in meaning."""
        grammar, rng = self.facts.grammar, Random(f"retrieval/{self.settings.seed}/{asked[0].factor}")
        scenes = draw_scenes(rng, replace(grammar, paired=0.0), self.identities, self.settings.candidates)
        captions = [caption(scene, rng, full=grammar.full) for scene in scenes]
        there, here = (
            self.subject.text(words).pooled_KD for words in (captions, [q.prompt.text for q in asked])
        )
        assert there is not None
        assert here is not None
        return [scenes[i] for i in (here @ there.T).argmax(dim=1).tolist()]

    def _enter(self, row: str, column: str, found: Marks) -> None:
        """The measure with the lower mean counts."""
        means = {name: float(values.mean()) for name, values in found.items()}
        counts = min(means, key=means.__getitem__)
        cell: Cell = {**interval(found[counts].double().numpy()), "measure": counts}
        self.report.table.setdefault(row, {})[column] = cell
        self.report.measures.setdefault(row, {})[column] = means

    def _keep_failures(self, row: str, found: Marks, clips: Clips, asked: Sequence[Question]) -> None:
        counts = min(found, key=lambda name: float(found[name].mean()))
        wrong = (found[counts] == 0).nonzero()[:, 0].tolist()[:FAILURES]
        self.report.failures += [Failure(row, asked[i].prompt.text, clips.asked_BCFHW[i]) for i in wrong]

    def _judge_motion(self, columns: Mapping[str, Tensor]) -> None:
        """Motion amount and flicker inside the band of real clips after the codec."""
        values = {
            "motion amount": {name: amounts(clips) for name, clips in columns.items()},
            "flicker": {name: flicker(clips) for name, clips in columns.items()},
        }
        for row, found in values.items():
            low, high = torch.quantile(found["codec"], torch.tensor([0.05, 0.95])).tolist()
            if row == "flicker":
                low, high = 0.0, max(LEVEL, high)
            for name in columns:
                if name != "floor":
                    inside = ((found[name] >= low) & (found[name] <= high)).float()
                    self._enter(row, name, {"band": inside})


def check_clips(shape_FHW: tuple[int, int, int], bank: SpriteBank | None) -> None:
    """Refuse clips that the judges cannot look at, before the first is sampled.

    Raises:
        GeometryError: they are not square, or real ones cannot be made of the bank's sprites.
    """
    _, height, width = shape_FHW
    if height != width:
        raise GeometryError(f"the model's clips are {width}x{height}, and the judges look at square ones.")
    if bank is not None and bank.size % height:
        raise GeometryError(
            f"the model's clips are {width}x{height}, which does not divide the sprites' {bank.size}; "
            f"prepare them with --size {height}, or leave out --data."
        )


def known_identities(facts: TrainingFacts, bank: SpriteBank | None, panel: Panel) -> tuple[Identity, ...]:
    """Whom to ask about: whom the model knows, the judge too, and the bank where there is one.

    Raises:
        ConfigError: there is nobody.
    """
    known, judged = {identity.name for identity in facts.identities}, set(panel.net.names)
    everybody = facts.identities if bank is None else bank.identities
    found = tuple(identity for identity in everybody if identity.name in judged & known)
    if not found:
        few = ", ".join(sorted(known)[:3])
        there = "is in --data and known to the judge" if bank is not None else "is known to the judge"
        raise ConfigError(
            f"none of the {len(known)} identities of the model ({few}) {there}; a judge of its own is made "
            "by scripts/train_judge.py, for scripts/evaluate_embedded.py --judge."
        )
    return found


def report_table(report: Report) -> str:
    """The table in Markdown: factors down, columns across, percent with intervals; "-" where not judged."""
    columns = [c for c in COLUMNS if any(c in cells for cells in report.table.values())] or [MODEL]
    lines = ["| factor | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in ROWS:
        cells = report.table.get(row, {})
        lines.append(f"| {row} | " + " | ".join(shown(cells.get(column)) for column in columns) + " |")
    return "\n".join(lines)


def shown(cell: Mapping[str, float | str] | None) -> str:
    """A cell as text, in percent."""
    if cell is None:
        return "-"
    mean, low, high = (f"{100 * float(cell[name]):.0f}" for name in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def _select(clips: Clips, rows: Sequence[int]) -> Clips:
    chosen = list(rows)
    return Clips(clips.asked_BCFHW[chosen], None if clips.plain_BCFHW is None else clips.plain_BCFHW[chosen])
