"""What the quick settings cost in obedience: the same questions, seeds and judges at every `--speed`.

    python scripts/evaluate_tiers.py --data data/emoji-64-300 --out runs/evaluation/tiers.json

Clips come from the pipeline that users run, not from the examination's own sampler. Writes --out: for
every tier and factor the share of right clips by the measure that counts (the lower one of exact), and its
change from exact.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

import kinema
from kinema.evaluation.exam import known_identities
from kinema.evaluation.examine import JUDGE
from kinema.evaluation.factors import Clips, Panel, marks
from kinema.evaluation.identity import IdentityJudge
from kinema.evaluation.marks import interval
from kinema.evaluation.questions import Question, questions
from kinema.evaluation.silhouette import Gallery
from kinema.evaluation.training_facts import TrainingFacts
from kinema.pipelines.cards import local_folder, read_card
from kinema.pipelines.model import Model
from kinema.training.data import SpriteBank

TIERS = ("exact", "near", "fast")
FACTORS = ("identity", "background", "direction")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--data", type=Path, required=True, help="folder from prepare_emoji.py")
    parser.add_argument("--clips", type=int, default=32, help="of each factor")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def rendered(model: Model, asked: list[Question], speed: str) -> Tensor:
    """The clips `[B, 3, F, H, W]` in -1..1 that a user gets."""
    clips = []
    for question in asked:
        shot = kinema.Shot(prompt=question.prompt.text, seed=question.prompt.seed, speed=speed)
        frames_FHWC = np.asarray(kinema.render(shot, model=model).frames)
        clips.append(torch.from_numpy(frames_FHWC).permute(3, 0, 1, 2).float() / 127.5 - 1)
    return torch.stack(clips)


def main() -> None:
    args = arguments()
    card = read_card(args.model, local_files_only=True)
    folder = local_folder(card, local_files_only=True)
    facts, bank = TrainingFacts.read(folder), SpriteBank.open(args.data)
    panel = Panel(IdentityJudge.load(JUDGE), Gallery(bank))
    identities = known_identities(facts, bank, panel)
    model = cast("Model", kinema.load(args.model))
    tiers = [*TIERS, *["few"] * bool(card.few), *["distilled"] * bool(card.student)]
    table: dict[str, dict[str, dict[str, object]]] = {}
    for factor in FACTORS:
        asked = list(questions(factor, identities, facts.grammar, seen=args.clips, unseen=0, seed=2))
        counts: dict[str, str] = {}
        exact: dict[str, Tensor] = {}
        for tier in tiers:
            for row, found in marks(factor, Clips(rendered(model, asked, tier)), asked, panel).items():
                counts.setdefault(row, min(found, key=lambda name: float(found[name].mean())))
                right = found[counts[row]].double()
                change = interval((right - exact.setdefault(row, right)).numpy())
                cell = {**interval(right.numpy()), "measure": counts[row], "change": change}
                table.setdefault(row, {})[tier] = cell
                print(f"{row}, {tier}: {right.mean():.1%}, {change['mean']:+.1%}", flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"clips": args.clips, "table": table}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
