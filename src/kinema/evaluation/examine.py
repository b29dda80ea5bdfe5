"""Examining a model on disk, and writing down what was found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from kinema.core.errors import ConfigError, MediaError
from kinema.evaluation.contact_sheet import contact_sheet
from kinema.evaluation.exam import Exam, ExamSettings, Report, report_table
from kinema.evaluation.factors import Panel
from kinema.evaluation.identity import IdentityJudge
from kinema.evaluation.silhouette import Gallery
from kinema.evaluation.subject import Sampling, open_subject
from kinema.evaluation.training_facts import TrainingFacts
from kinema.io.atomic import TakenError, check_target, publish_all, set_aside, staging, taken
from kinema.models.weights import file_hashes
from kinema.pipelines.card import STUDENT, ModelCard
from kinema.pipelines.cards import local_folder, read_card
from kinema.pipelines.speed.tiers import tiered
from kinema.story.shot import Shot
from kinema.training.data import SpriteBank
from kinema.training.low_rank import fold

SPEEDS = ("exact", "few", "distilled")
JUDGE = Path(__file__).parent / "judges/identity-64.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wishes:
    """What a person may choose.

    Attributes:
        seen, unseen: questions of each factor about trained and held-out combinations.
        modes: clips of the modes beside text to video.
        steps, guidance: instead of the model's own.
        speed: judge the model in few steps, or its student, each with the sampler it has for that.
    """

    seen: int = 16
    unseen: int = 8
    modes: int = 8
    steps: int | None = None
    guidance: float | None = None
    speed: str = "exact"

    def __post_init__(self) -> None:
        if self.speed not in SPEEDS:
            raise ConfigError(
                f"speed {self.speed} cannot be judged, since near and fast are measured against exact; "
                f"choose one of {', '.join(SPEEDS)}."
            )


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
    defaults, sampling = card.defaults, sampling_of(wishes, card)
    subject = open_subject(folder, config=folder, codec=None, text=folder)
    if wishes.speed == "distilled":
        fold(subject.model, folder / STUDENT)
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
        "speed": wishes.speed,
        "data_sha256": training.data_sha256,
        "judge_sha256": panel.net.facts.get("sha256"),
        "identities": len(exam.identities),
        "clip": {"frames": shape[0], "height": shape[1], "width": shape[2], "fps": str(defaults.fps)},
        "sampling": asdict(sampling),
        "settings": asdict(settings),
    }
    return exam.run(), facts


def sampling_of(wishes: Wishes, card: ModelCard) -> Sampling:
    """How clips are sampled: as a shot that wishes the same and says no more would be.

    Raises:
        ConfigError: the model has no such speed, or not with these steps or this guidance.
    """
    d = card.defaults
    shot = tiered(Shot.make(speed=wishes.speed, steps=wishes.steps, guidance=wishes.guidance), card).shot
    guidance = None if shot.guidance is None else shot.guidance.constant
    held = 1.0 if wishes.speed == "distilled" else guidance or d.guidance_held or d.guidance
    return Sampling(
        steps=shot.steps or d.steps,
        guidance=d.guidance if guidance is None else float(guidance),
        held_guidance=float(held),
        shift=d.shift if shot.shift is None else shot.shift,
        grid=shot.grid or d.grid,
        solver=shot.solver or d.solver,
        interval=(shot.guidance_interval[0], shot.guidance_interval[1]),
        batch=4,
    )


def check_report(out: Path, *, overwrite: bool) -> None:
    """Refuse a name under which a report could not be saved; its folder is made.

    Raises:
        ConfigError: it does not end in .json.
        MediaError: one of the three files is there already, or nothing can be written there.
    """
    if out.suffix != ".json":
        raise ConfigError(f"{str(out)!r} does not end in .json; a report is JSON, with a .md beside it.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(f"cannot make the folder {str(out.parent)!r}: {error.strerror}.") from None
    for path in (out, out.with_suffix(".md"), out.with_suffix(".png")):
        check_target(path, overwrite=overwrite)
    with staging(out.parent):  # a folder that takes no files is found out by trying
        pass


def save_report(report: Report, facts: dict[str, Any], out: Path, *, overwrite: bool = False) -> None:
    """Write `out` (.json), the table beside it (.md), and clips that were marked wrong (.png).

    Errors are those of `check_report`, and `TakenError` where one of the files has appeared since; all have
    other names then, which it tells.
    """
    check_report(out, overwrite=overwrite)
    document: dict[str, Any] = {
        **facts,
        "table": report.table,
        "measures": report.measures,
        "modes": report.modes,
        "asked": report.asked,
        "failures": [[failure.factor, failure.caption] for failure in report.failures],
    }
    pictures = out.with_suffix(".png")
    with staging(out.parent) as work:
        ready = {work / name: out.with_suffix(name) for name in (".md", ".json")}
        (work / ".json").write_text(
            json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
        )
        (work / ".md").write_text(report_table(report) + "\n", encoding="utf-8")
        if report.failures:
            clips = torch.stack([failure.clip_CFHW for failure in report.failures])
            captions = [f"{failure.factor}: {failure.caption}" for failure in report.failures]
            contact_sheet({"marked wrong": clips}, captions).save(work / "failures.png")
            ready = {work / "failures.png": pictures, **ready}
        try:
            publish_all(ready, overwrite=overwrite)
        except TakenError:
            kept = [set_aside(staged, target) for staged, target in ready.items()]
            raise TakenError(taken(out, kept[-1])) from None
    if not report.failures:  # those of the report that was replaced
        pictures.unlink(missing_ok=True)
