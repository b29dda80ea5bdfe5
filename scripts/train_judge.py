"""Train the identity judge on real composites, measure it on fresh ones, freeze it.

    python scripts/train_judge.py --data data/emoji-64-all --codec data/codec-linear --run runs/judge \\
        --out src/kinema/evaluation/judges/identity-64.safetensors

Resumes from RUN/identity.safetensors when that exists. The judge is written once all steps are done.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional

from kinema.evaluation.composites import Composites, CompositeSettings
from kinema.evaluation.identity import IdentityJudge, IdentityNet, IdentityNetConfig, ranks, settle
from kinema.models.codec import PatchCodec
from kinema.training.data import SpriteBank
from kinema.training.loop import Log, OptimiserSettings, Trainer
from kinema.training.script import run_script

FRESH, SETTLING = 10**6, 2 * 10**6  # batch numbers that training never reaches
SMOOTHING = 0.05
OPTIMISER = OptimiserSettings(rate=3e-3, warmup=60, decay=0.8, average=0.995, clip=5.0)
ARTWORK = "Microsoft fluentui-emoji, MIT; animations from @lobehub/fluent-emoji-anim-1 to -4, MIT"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder from prepare_emoji.py: the classes")
    parser.add_argument("--codec", type=Path, required=True, help="folder from train_codec.py")
    parser.add_argument("--run", type=Path, default=Path("runs/judge"), help="checkpoint and curves")
    parser.add_argument("--out", type=Path, required=True, help="the frozen judge, a .safetensors file")
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop (resumably) after this long")
    parser.add_argument("--every", type=int, default=200, help="steps between checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def train(args: argparse.Namespace, composites: Composites, trainer: Trainer) -> float:
    """Train until the steps or the minutes are over; returns the minutes of this sitting."""
    log, checkpoint, began = Log(args.run), args.run / "identity.safetensors", time.monotonic()
    losses, right = list[float](), 0
    while trainer.step < args.steps and time.monotonic() - began < 60 * args.minutes:
        frames_NCHW, labels_N = composites.draw(trainer.step, args.batch)
        with torch.autocast("cpu", torch.bfloat16):
            logits_NK = trainer.model(frames_NCHW)
        loss = functional.cross_entropy(logits_NK.float(), labels_N, label_smoothing=SMOOTHING)
        losses.append(float(loss.detach()))
        right += int((logits_NK.argmax(dim=1) == labels_N).sum())
        trainer.update(loss)
        if trainer.step % 20 == 0:
            seconds = time.monotonic() - began
            top1 = right / (len(losses) * args.batch)
            log.write(step=trainer.step, loss=sum(losses) / len(losses), top1=top1, seconds=seconds)
            print(f"{trainer.step}/{args.steps} loss {sum(losses) / len(losses):.3f} {top1:.1%}", flush=True)
            losses, right = [], 0
        if trainer.step % args.every == 0:
            trainer.save(checkpoint)
    trainer.save(checkpoint)
    return (time.monotonic() - began) / 60


def accuracy(judge: IdentityJudge, composites: Composites, *, batches: int = 16) -> dict[str, float]:
    """Shares recognised at first and among five, on fresh composites."""
    found = []
    for index in range(batches):
        frames_NCHW, labels_N = composites.draw(FRESH + index, 128)
        found.append(ranks(judge.log_probabilities(frames_NCHW.unsqueeze(2)), labels_N.tolist()))
    ranks_N = torch.cat(found)
    return {"top1": float((ranks_N < 1).float().mean()), "top5": float((ranks_N < 5).float().mean())}


def freeze(args: argparse.Namespace, composites: Composites, net: IdentityNet, minutes: float) -> None:
    """Settle the averaged net, measure it on damaged and on clean fresh composites, write it."""
    settle(net, (composites.draw(SETTLING + i, args.batch)[0] for i in range(40)))
    names = [identity.name for identity in composites.bank.identities]
    judge = IdentityJudge(net, names)
    clean = CompositeSettings(textured=0.0, blurred=0.0, coded=0.0, toned=0.0, grainy=0.0, far_share=0.0)
    undamaged = Composites(composites.bank, composites.codec, clean, seed=args.seed)
    facts = {
        "made_by": "scripts/train_judge.py",
        "data_sha256": composites.bank.data_hash,
        "codec_encoder_sha256": composites.codec.encoder_sha256(),
        "seed": args.seed,
        "steps": args.steps,
        "batch": args.batch,
        "minutes": round(minutes, 1),
        "fresh_composites": accuracy(judge, composites),
        "fresh_undamaged": accuracy(judge, undamaged),
        "licence": "MIT",
        "artwork": ARTWORK,
    }
    judge.save(args.out, **facts)
    print(json.dumps(facts, indent=1))


def main() -> None:
    args = arguments()
    torch.manual_seed(args.seed)
    bank = SpriteBank.open(args.data)
    composites = Composites(bank, PatchCodec.from_folder(args.codec), CompositeSettings(), seed=args.seed)
    net = IdentityNet(IdentityNetConfig(classes=len(bank.identities), size=bank.size))
    net = net.to(memory_format=torch.channels_last)
    trainer = Trainer(net, (), OPTIMISER, steps=args.steps)
    spent, checkpoint = args.run / "minutes.json", args.run / "identity.safetensors"
    if checkpoint.exists():
        trainer.load(checkpoint)
    before = json.loads(spent.read_text()) if spent.exists() else 0.0
    minutes = before + train(args, composites, trainer)
    spent.write_text(json.dumps(minutes))
    if trainer.step >= args.steps:
        net.load_state_dict(trainer.average, strict=False)
        freeze(args, composites, net, minutes)


if __name__ == "__main__":
    sys.exit(run_script(main))
