"""Judge an embedded model: a shipped folder, or the checkpoint of a training run.

    python scripts/evaluate_embedded.py --model src/kinema/assets/embedded --data data/emoji-64 \\
        --out report.json
    python scripts/evaluate_embedded.py --model runs/v0/image.safetensors --codec data/codec-v0 --stills \\
        --data data/emoji-64 --out report.json

Writes --out (JSON: settings, hashes, table), and beside it a contact sheet (.png) and the table (.md).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from kinema.evaluation.contact_sheet import contact_sheet
from kinema.evaluation.examine import Wishes, sampling_of
from kinema.evaluation.identity import IdentityJudge, file_hash
from kinema.evaluation.prompts import Prompt, prompt_set
from kinema.evaluation.silhouette import Gallery
from kinema.evaluation.subject import Sampling, Subject, open_subject
from kinema.evaluation.suite import Judges, Result, evaluate, text_table
from kinema.pipelines.card import STUDENT
from kinema.pipelines.cards import read_card
from kinema.training.data import SpriteBank
from kinema.training.grammar import Grammar
from kinema.training.low_rank import fold
from kinema.training.script import run_script

PACKAGE = Path(__file__).resolve().parents[1] / "src/kinema"
JUDGE = PACKAGE / "evaluation/judges/identity-64.safetensors"
ASSETS = PACKAGE / "assets/embedded"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="a model's folder or a run's checkpoint")
    parser.add_argument(
        "--config", type=Path, default=Path("configs/embedded-v0.yaml"), help="of a checkpoint"
    )
    parser.add_argument("--codec", type=Path, help="folder from train_codec.py; a model's folder has its own")
    parser.add_argument("--text", type=Path, default=ASSETS, help="text encoder of a checkpoint")
    parser.add_argument("--data", type=Path, required=True, help="folder from prepare_emoji.py")
    parser.add_argument("--grammar", type=Path, default=Path("configs/embedded-v0-data.yaml"))
    parser.add_argument("--judge", type=Path, default=JUDGE)
    parser.add_argument("--out", type=Path, required=True, help="the report, a .json file")
    parser.add_argument("--seen", type=int, default=64, help="prompts from trained combinations")
    parser.add_argument("--unseen", type=int, default=32, help="prompts from held-out combinations")
    parser.add_argument(
        "--held", type=int, default=16, help="clips that are also made from a given first frame"
    )
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--stills", action="store_true", help="one frame instead of --frames")
    parser.add_argument("--fps", type=float, default=8.0)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--shift", type=float, default=1.0)
    parser.add_argument(
        "--speed", choices=("exact", "few", "distilled"), default="exact", help="as a model's folder has it"
    )
    parser.add_argument(
        "--level", type=float, default=1.0, help="below 1: begin with real clips, noised up to this level"
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="names the prompts")
    args = parser.parse_args()
    if not 0 < args.level <= 1:
        parser.error(f"--level {args.level} is no noise level; write a number above 0, at most 1.")
    if args.out.suffix != ".json":  # the table and the sheet have its name, and would be written over it
        parser.error(f"--out {args.out} does not end in .json.")
    if args.seen < 1 or min(args.unseen, args.held) < 0:
        parser.error("--seen is a whole number from 1 up, --unseen and --held from 0 up.")
    return args


def report(
    args: argparse.Namespace, subject: Subject, judges: Judges, result: Result, seconds: float
) -> dict[str, Any]:
    """Everything needed to do it again, and what came out."""
    weights = sorted(args.model.rglob("*.safetensors")) if args.model.is_dir() else [args.model]
    return {
        "settings": {name: str(v) if isinstance(v, Path) else v for name, v in vars(args).items()},
        "sampling": asdict(settings(args)),
        "weights_sha256": {
            path.name if path == args.model else str(path.relative_to(args.model)): file_hash(path)
            for path in weights
        },
        "encoder_sha256": subject.codec.encoder_sha256(),
        "judge_sha256": judges.net.facts["sha256"],
        "data_sha256": judges.gallery.bank.data_hash,
        "seconds": round(seconds, 1),
        "bands": result.bands,
        "extra": result.extra,
        "table": result.table,
    }


def settings(args: argparse.Namespace) -> Sampling:
    if args.speed != "exact":
        found = sampling_of(Wishes(speed=args.speed), read_card(str(args.model)))
        return replace(found, batch=args.batch, level=args.level)
    return Sampling(
        steps=args.steps, guidance=args.guidance, shift=args.shift, batch=args.batch, level=args.level
    )


def write(
    args: argparse.Namespace, document: dict[str, Any], prompts: tuple[Prompt, ...], result: Result
) -> None:
    args.out.parent.mkdir(parents=True, exist_ok=True)
    captions = [f"{'held out: ' if prompt.unseen else ''}{prompt.text}" for prompt in prompts]
    args.out.write_text(json.dumps(document | {"prompts": captions}, indent=1) + "\n", encoding="utf-8")
    args.out.with_suffix(".md").write_text(text_table(result.table) + "\n", encoding="utf-8")
    contact_sheet(result.columns, captions).save(args.out.with_suffix(".png"))


def main() -> None:
    args = arguments()
    began = time.monotonic()
    bank, grammar = SpriteBank.open(args.data), Grammar.load(args.grammar)
    judges = Judges(IdentityJudge.load(args.judge), Gallery(bank))
    subject = open_subject(args.model, config=args.config, codec=args.codec, text=args.text)
    if args.speed == "distilled":
        fold(subject.model, args.model / STUDENT)
    prompts = prompt_set(
        bank.identities, grammar, seen=args.seen, unseen=args.unseen, still=args.stills, seed=args.seed
    )
    result = evaluate(
        subject,
        prompts,
        bank,
        judges,
        settings(args),
        frames=1 if args.stills else args.frames,
        fps=args.fps,
        held=args.held,
        say=lambda message: print(f"{time.monotonic() - began:6.0f} s  {message}", flush=True),
    )
    write(args, report(args, subject, judges, result, time.monotonic() - began), prompts, result)
    print(text_table(result.table))
    for name, value in result.extra.items():
        print(f"{name}: {value:.4g}")


if __name__ == "__main__":
    sys.exit(run_script(main))
