"""Your own drawings as training sprites: a folder of cut-out pictures, named by what they show.

    python scripts/prepare_drawings.py drawings --licence "CC0-1.0" --out data/drawings

`drawings/paper boat.webp` becomes "a paper boat": PNG, WebP, GIF or APNG, still or animated.
A file `drawings/words.yaml` may add synonyms that mean this drawing only: `paper boat: [folded ship]`.
What to do with the folder that this writes: docs/training.md.
"""

from __future__ import annotations

import argparse
import math
import sys
import unicodedata
from pathlib import Path
from typing import Any

from kinema.core.errors import ConfigError
from kinema.training.recipe import read_recipe
from kinema.training.script import run_script
from kinema.training.sprite_files import check_outline, decode, write_bank

PICTURES = (".png", ".webp", ".gif", ".apng")
WORDS = "words.yaml"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("drawings", type=Path, help="folder of pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--licence", required=True, help="of the drawings; what is trained on them says it")
    parser.add_argument("--size", type=int, default=64, help="pixels, as the model's clips")
    parser.add_argument("--fps", type=float, default=8.0, help="as the model's clips")
    parser.add_argument("--frames", type=int, default=24, help="most frames of one loop")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    if args.size < 1 or args.frames < 1 or not 0 < args.fps < math.inf:
        raise ConfigError(
            f"--size {args.size}, --fps {args.fps:g} and --frames {args.frames}: all are above 0."
        )
    found = sorted(path for path in args.drawings.glob("*") if not path.name.startswith("."))
    paths = [path for path in found if path.suffix.lower() in PICTURES]
    if not paths:
        raise ConfigError(f"{args.drawings} holds no {', '.join(PICTURES)}; put cut-out drawings there.")
    for path in found:
        if path not in paths and path.name != WORDS:
            print(f"note: {path.name} is left out; a drawing ends in {', '.join(PICTURES)}", file=sys.stderr)
    words = synonyms(args.drawings / WORDS, [name_of(path) for path in paths])
    clips = []
    for path in paths:
        clips.append(decode(path, args.size, args.fps, args.frames))
        check_outline(path, clips[-1])
    sprites: list[dict[str, Any]] = []
    offset = 0
    for path, clip in zip(paths, clips, strict=True):
        name = name_of(path)
        sprites.append({"name": name, "tags": words.get(name, []), "offset": offset, "frames": len(clip)})
        offset += len(clip)
    index = {"size": args.size, "fps": args.fps, "licence": args.licence, "sprites": sprites}
    digest = write_bank(args.out, clips, index)
    moving = sum(len(clip) > 1 for clip in clips)
    print(f"{args.out}: {len(clips)} drawings, {moving} animated, {offset} frames, sha256 {digest[:12]}")


def name_of(path: Path) -> str:
    """What the file shows: its name in lower case, with spaces; `ConfigError` when no word is left."""
    if not (name := plain(path.stem)):
        raise ConfigError(f"{path} is named by no word; name it by what it shows.")
    return name


def plain(text: str) -> str:
    """Words in lower case with single spaces; accents as one character, however the disk keeps them."""
    text = unicodedata.normalize("NFC", text).lower()
    return " ".join(text.replace("_", " ").replace("-", " ").split())


def synonyms(path: Path, names: list[str]) -> dict[str, list[str]]:
    """The words file's synonyms of each drawing; none without it."""
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"two drawings are named {twice!r}; rename one.")
    if not path.is_file():
        return {}
    found: dict[str, list[str]] = {}
    owner = {name: name for name in names}
    for key, words in read_recipe(path).items():
        name = plain(str(key))
        if name not in names:
            raise ConfigError(f"{path}: no drawing is named {name!r}; the names are {', '.join(names)}.")
        if not isinstance(words, list) or not all(isinstance(word, str) and word.split() for word in words):
            raise ConfigError(f"{path}: {name}: {words!r} is no list of words; write [one, another].")
        found[name] = [" ".join(unicodedata.normalize("NFC", word).lower().split()) for word in words]
        for word in found[name]:
            if word in owner:  # it would name neither
                raise ConfigError(
                    f"{path}: {word!r} already means {owner[word]!r}; give it to one drawing, once."
                )
            owner[word] = name
    return found


if __name__ == "__main__":
    sys.exit(run_script(main))
