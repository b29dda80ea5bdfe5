"""Write an embedded model's card from what an evaluation found, so that the two never disagree.

    kinema evaluate --data data/emoji-64 --out runs/evaluation/report.json
    python scripts/model_card.py --report runs/evaluation/report.json --model src/kinema/assets/embedded \\
        --run "4,200 steps of stills and clips in turn, 3 hours on one core" --out docs/model-card.md

Copies the picture of what went wrong beside the card, and the card without it into the model's folder.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

from kinema.evaluation.exam import ROWS, Report, report_table, shown
from kinema.evaluation.questions import known_factors
from kinema.evaluation.training_facts import TrainingFacts

ORIGIN = """Trained from scratch by this project on {count} of Microsoft's Fluent emoji, {moving} of them
animated (`@lobehub/fluent-emoji-anim-1` to `-4`, MIT; artwork: microsoft/fluentui-emoji, MIT; names and
synonyms: `emojibase-data`, MIT). Clips were composited on the fly by `kinema.training`. The text
encoder is MiniLM-L6 (Apache-2.0), unchanged but for int8 rows. Weights: Apache-2.0, as the package."""
LIMITS = """It knows these emoji and the factors below, and nothing of the photographic world. Factors marked
"-" were not taught. Other names give the nearest thing that its text encoder can think of."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--report", type=Path, required=True, help=".json of kinema evaluate --out")
    parser.add_argument("--quick", type=Path, help="the same with --speed few or --speed distilled")
    parser.add_argument("--model", type=Path, required=True, help="the folder that was judged")
    parser.add_argument("--run", default="", help="how it was trained, in a sentence")
    parser.add_argument("--out", type=Path, required=True, help="a .md file")
    return parser.parse_args()


def card(
    report: dict[str, Any],
    facts: TrainingFacts,
    run: str,
    picture: str | None,
    quick: dict[str, Any] | None = None,
) -> str:
    """The card in Markdown."""
    clip, sampling = report["clip"], report["sampling"]
    moving = sum(identity.animated for identity in facts.identities)
    clips = f"{clip['frames']} frames of {clip['width']}x{clip['height']} at {clip['fps']} a second"
    weights = {name: digest for name, digest in report["files"].items() if name.endswith(".safetensors")}
    parts = [
        "# Model card: the embedded model",
        ORIGIN.format(count=len(facts.identities), moving=moving),
        f"Clips: {clips}. Taught: {', '.join(known_factors(facts.grammar))}. {run}".strip(),
        LIMITS,
        "## What it shows of what it is asked for",
        f"{sampling['steps']} steps of {sampling['solver']}, guidance {sampling['guidance']:g}; percent with "
        "95 % intervals; [how this is measured](evaluating.md).",
        report_table(Report(table=report["table"])),
        *(beside(report, quick) if quick else ()),
        "## Other modes",
        "\n".join(["| measured | value |", "|---|---|", *modes(report["modes"])]),
        "## Where it fails",
        f"![clips that were marked wrong]({picture})" if picture else "No clip was marked wrong.",
        "\n".join(f"- {factor}: {caption}" for factor, caption in report["failures"]),
        "## Which files",
        f"Data `{report['data_sha256'][:12]}`, identity judge `{(report['judge_sha256'] or '')[:12]}`.",
        "\n".join(f"- `{name}` `{digest[:12]}`" for name, digest in sorted(weights.items())),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def beside(report: dict[str, Any], quick: dict[str, Any]) -> list[str]:
    """What a quick way shows of the same prompts, beside its model."""
    speed = quick["speed"]
    if speed == "exact" or quick["settings"] != report["settings"]:
        raise SystemExit("--quick wants a report of kinema evaluate --speed few with the same questions.")
    sampling, own = quick["sampling"], quick["table"]
    rows = [
        f"| {row} | {shown(cells['model'])} | {shown(own[row]['model'])} |"
        for row in ROWS
        if (cells := report["table"].get(row))
    ]
    return [
        "## In few steps" if speed == "few" else "## The student",
        f"The same prompts and seeds with `--speed {speed}`: {sampling['steps']} steps of "
        f"{sampling['solver']} {own_guidance(sampling)}.",
        "\n".join([f"| factor | model | {speed} |", "|---|---|---|", *rows]),
    ]


def own_guidance(sampling: dict[str, Any]) -> str:
    """What guidance clips were sampled with."""
    if sampling["guidance"] == 1:
        return "without guidance"
    low, high = sampling["interval"]
    return f"with guidance {sampling['guidance']:g} at noise levels {low:g} to {high:g}"


def modes(found: dict[str, float]) -> list[str]:
    """Rows of the table of modes."""
    return [f"| {name} | {value:.3g}{' dB' if 'psnr' in name else ''} |" for name, value in found.items()]


def beside_weights(text: str) -> str:
    """The card without pictures and links, which do not travel with the weights."""
    text = re.sub(r"!\[[^]]*\]\([^)]*\)", "Pictures of them: docs/model-card.md of the repository.", text)
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)


def main() -> None:
    args = arguments()
    report = json.loads(args.report.read_text(encoding="utf-8"))
    source, picture = args.report.with_suffix(".png"), None
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if source.exists():
        picture = f"{args.out.stem}-failures.png"
        shutil.copy(source, args.out.parent / picture)
    quick = json.loads(args.quick.read_text(encoding="utf-8")) if args.quick else None
    text = card(report, TrainingFacts.read(args.model), args.run, picture, quick)
    args.out.write_text(text, encoding="utf-8")
    (args.model / "README.md").write_text(beside_weights(text), encoding="utf-8")
    print(f"{args.out}: {len(text)} characters")


if __name__ == "__main__":
    main()
