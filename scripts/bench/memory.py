"""Peak memory of each arrangement, beside what the plan asks for, on a made-up Wan checkpoint.

    python scripts/bench/memory.py                          # prints a table; --json FILE keeps it
    python scripts/bench/memory.py --docs docs/memory.md    # and writes it into the page

Each arrangement renders in a process of its own; its peak is the kernel's VmHWM less what it had when the
shot was planned, which is what a plan's estimate is compared with free memory for.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

BEGIN, END = "<!-- measured: scripts/bench/memory.py -->", "<!-- end of what was measured -->"
SHOT = {"prompt": "a red fox in the snow", "width": 64, "height": 64, "frames": 9, "steps": 2, "seed": 1}
CASES = (("whole", "full"), ("component", "full"), ("block", "full"), ("whole", "int8"))
RENDER = """
import json, sys, hashlib
import kinema
from kinema.pipelines.cards import read_card
from kinema.pipelines.planning import make_plan
from kinema.pipelines.residency.fit import offers
def peak():
    return 1024 * int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])
folder, tier, weights = sys.argv[1:4]
shot = kinema.Shot(model=folder, weights=weights, **json.loads(sys.argv[4]))
card = read_card(folder)
asked = offers(make_plan(shot, card), card=card).needs[tier]
before = peak()
frames = kinema.render(shot, memory=tier).array()
digest = hashlib.sha256(frames.tobytes()).hexdigest()[:12]
found = {"memory": tier, "weights": weights, "peak": peak() - before, "asked": asked, "sha256": digest}
print(json.dumps(found))
"""


def make_checkpoint(folder: Path) -> None:
    """A text encoder of about 300 MB, a transformer of 200 MB, a VAE of 30 MB, in float32."""
    import diffusers
    import torch
    from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    pieces = ["▁", "▁a", "▁red", "▁fox", "▁in", "▁the", "▁snow", *"abcdefghijklmnopqrstuvwxyz"]
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), *((piece, -3.0) for piece in pieces)]
    text = UMT5Config(vocab_size=32_000, d_model=768, d_kv=64, d_ff=2048, num_layers=7, num_heads=12)
    transformer = diffusers.WanTransformer3DModel(
        num_attention_heads=5,
        attention_head_dim=128,
        in_channels=16,
        out_channels=16,
        text_dim=768,
        ffn_dim=1792,
        num_layers=9,
    )
    vae = diffusers.AutoencoderKLWan(base_dim=24, z_dim=16)
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    diffusers.WanPipeline(
        tokenizer=T5Tokenizer(vocab=words, extra_ids=0),
        text_encoder=UMT5EncoderModel(text),
        transformer=transformer,
        vae=vae,
        scheduler=scheduler,
    ).save_pretrained(folder)


def measure(folder: Path, tier: str, weights: str) -> dict[str, object]:
    """One arrangement in a process of its own."""
    command = [sys.executable, "-c", RENDER, str(folder), tier, weights, json.dumps(SHOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def in_words(rows: list[dict[str, object]]) -> str:
    """The numbers as the table of the documentation."""
    lines = ["| `--memory` | `--weights` | peak | the plan asks for |", "|---|---|---|---|"]
    for row in rows:
        peak, asked = (float(str(row[name])) for name in ("peak", "asked"))
        more = f"{asked / 1e6:.0f} MB ({asked / peak - 1:+.0%})"
        lines.append(f"| `{row['memory']}` | `{row['weights']}` | {peak / 1e6:.0f} MB | {more} |")
    return "\n".join(lines)


def write_into(page: Path, words: str) -> None:
    """Replace what stands between the page's two marks."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{words}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--docs", type=Path, help="a page whose table of numbers is replaced")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        make_checkpoint(Path(place))
        for tier, weights in CASES:
            rows.append(measure(Path(place), tier, weights))
            print(rows[-1], flush=True)
    if options.docs is not None:
        write_into(options.docs, in_words(rows))
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
