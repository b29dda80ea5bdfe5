"""Examining a model on disk, and writing down what was found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from kinema.evaluation.contact_sheet import contact_sheet
from kinema.evaluation.exam import Exam, ExamSettings, Report, report_table
from kinema.evaluation.factors import Panel
from kinema.evaluation.identity import IdentityJudge
from kinema.evaluation.silhouette import Gallery
from kinema.evaluation.subject import Sampling, open_subject
from kinema.evaluation.training_facts import TrainingFacts
from kinema.models.weights import file_hashes
from kinema.pipelines.card import STUDENT, ModelCard, Student
from kinema.pipelines.cards import local_folder, read_card
from kinema.pipelines.speed.students import taught
from kinema.story.shot import Shot
from kinema.training.data import SpriteBank
from kinema.training.low_rank import fold

JUDGE = Path(__file__).parent / "judges/identity-64.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wishes:
    """What a person may choose.

    Attributes:
        seen, unseen: questions of each factor about trained and held-out combinations.
        modes: clips of the modes beside text to video.
        steps, guidance: instead of the model's own.
        distilled: judge the model's few-step student, with the sampler it was taught for.
    """

    seen: int = 16
    unseen: int = 8
    modes: int = 8
    steps: int | None = None
    guidance: float | None = None
    distilled: bool = False


def examine(
    model: str,
    data: Path | None = None,
    wishes: Wishes | None = None,
    *,
    judge: Path = JUDGE,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Report, dict[str, Any]]:
    """Judge an embedded model; the report, and what is needed to do it again.

    Args:
        model: "embedded", or a folder with `training.json`.
        data: folder of sprites, for real clips beside the model's.
        wishes: how much is asked, and how it is sampled.
        judge: the frozen identity net.
        say: told what is being done.

    Raises:
        ModelError: it is no embedded model, or does not say what it knows.
    """
    wishes = wishes or Wishes()
    card = read_card(model, local_files_only=True)
    folder = local_folder(card, local_files_only=True)
    training = TrainingFacts.read(folder)
    subject = open_subject(folder, config=folder, codec=None, text=folder)
    if wishes.distilled:
        # A student's sampler is checked as any shot's is.
        taught(Shot.make(steps=wishes.steps, guidance=wishes.guidance), card)
        fold(subject.model, folder / STUDENT)
    defaults, sampling = card.defaults, _sampling(card, wishes)
    bank = None if data is None else SpriteBank.open(data)
    panel = Panel(IdentityJudge.load(judge), None if bank is None else Gallery(bank))
    settings = ExamSettings(seen=wishes.seen, unseen=wishes.unseen, modes=wishes.modes)
    shape = (defaults.frames, defaults.height, defaults.width)
    exam = Exam(
        subject,
        training,
        panel,
        sampling,
        shape_FHW=shape,
        fps=float(Fraction(defaults.fps)),
        bank=bank,
        settings=settings,
        say=say,
    )
    facts = {
        "model": model,
        "files": file_hashes(folder),
        "distilled": wishes.distilled,
        "data_sha256": training.data_sha256,
        "judge_sha256": panel.net.facts.get("sha256"),
        "identities": len(exam.identities),
        "clip": {"frames": shape[0], "height": shape[1], "width": shape[2], "fps": str(defaults.fps)},
        "sampling": asdict(sampling),
        "settings": asdict(settings),
    }
    return exam.run(), facts


def of_student(student: Student) -> Sampling:
    """How a student is sampled, whose additions are folded into its model."""
    return Sampling(
        steps=student.steps,
        guidance=student.guidance,
        held_guidance=1.0,
        shift=student.shift,
        solver=student.solver,
        interval=student.guidance_interval,
    )


def _sampling(card: ModelCard, wishes: Wishes) -> Sampling:
    defaults, student = card.defaults, card.student
    if wishes.distilled and student is not None:
        return replace(of_student(student), batch=4)
    return Sampling(
        steps=wishes.steps or defaults.steps,
        guidance=defaults.guidance if wishes.guidance is None else wishes.guidance,
        held_guidance=wishes.guidance or defaults.guidance_held or defaults.guidance,
        shift=defaults.shift,
        solver=defaults.solver,
        batch=4,
    )


def save_report(report: Report, facts: dict[str, Any], out: Path) -> None:
    """Write `out` (.json), the table beside it (.md), and clips that were marked wrong (.png)."""
    out.parent.mkdir(parents=True, exist_ok=True)
    document = {
        **facts,
        "table": report.table,
        "measures": report.measures,
        "modes": report.modes,
        "asked": report.asked,
        "failures": [[failure.factor, failure.caption] for failure in report.failures],
    }
    out.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    out.with_suffix(".md").write_text(report_table(report) + "\n", encoding="utf-8")
    if report.failures:
        clips = torch.stack([failure.clip_CFHW for failure in report.failures])
        captions = [f"{failure.factor}: {failure.caption}" for failure in report.failures]
        contact_sheet({"marked wrong": clips}, captions).save(out.with_suffix(".png"))
