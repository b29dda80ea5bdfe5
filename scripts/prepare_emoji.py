"""Animated emoji as training sprites: decoded, merged, resampled in time and space, packed into one folder.

Input: unpacked npm packages `@lobehub/fluent-emoji-anim-1` to `-4` (MIT; Microsoft's Fluent emoji, MIT) and
`en/data.json` of `emojibase-data` (MIT). Output: `frames.npy`, uint8 premultiplied RGBA `[N, H, W, 4]`, and
`sprites.json` with each sprite's words and place in that table; or, with --pack, one file of WebP strips
that travels to another machine (`kinema.training.pack`).

    python scripts/prepare_emoji.py --packages p1 p2 p3 p4 --names en/data.json --out data/emoji-64
    python scripts/prepare_emoji.py --packages p1 p2 p3 p4 --names en/data.json --pack data/emoji-128.zip \\
        --select all --size 128 --fps 12 --frames 36
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinema.training.pack import PackSettings, encode_strip, write_pack
from kinema.training.recipe import read_cast
from kinema.training.script import run_script
from kinema.training.sprite_files import decode, is_animated, write_bank

SKIN_TONES = {"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"}
MAN, WOMAN, PERSON, JOINER = "1f468", "1f469", "1f9d1", "200d"
GENDER_SIGNS = {"2640", "2642"}
KISS, HEART, HANDSHAKE, FAMILY = "1f48f", "1f491", "1f9d1-200d-1f91d-200d-1f9d1", "1f46a"
GROUPS = {0: "smileys", 1: "people", 3: "animals", 4: "food", 5: "travel", 6: "activities", 7: "objects"}
GROUPS |= {8: "symbols", 9: "flags"}
NOUN_GROUPS = {"animals", "food", "travel", "activities", "objects"}
NOUN = re.compile(r"[a-z]{3,}([^s]|ss|us)")  # one word in the singular, as far as its letters can tell
SELECTED_GROUPS = ("animals", "smileys", "travel", "food", "objects")
FIRST_CHOICES = ("rooster", "penguin", "snowman", "cat", "cat face", "rocket", "fox", "dog", "dog face")


@dataclass(frozen=True)
class Source:
    """One emoji before decoding."""

    path: Path
    code: str
    name: str
    tags: list[str]
    group: str


def main() -> None:
    args = parse_args()
    names = json.loads(args.names.read_text(encoding="utf-8"))
    sources = find_sources(args.packages, names)
    if args.select != "all":
        sources = (
            named(sources, args.select) if Path(args.select).is_file() else select(sources, int(args.select))
        )
    packages = package_versions([*args.packages, package_root(args.names)])
    if args.pack:
        pack(args, sources, packages)
    if args.out:
        clips = {source.code: decode(source.path, args.size, args.fps, args.frames) for source in sources}
        sources = without_twins(sources, clips)
        write(args.out, sources, clips, args, packages)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packages", type=Path, nargs="+", required=True, metavar="DIR")
    parser.add_argument("--names", type=Path, required=True, help="en/data.json of emojibase-data")
    parser.add_argument("--out", type=Path, help="folder to write")
    parser.add_argument("--pack", type=Path, help="one .zip file to write")
    parser.add_argument("--quality", type=int, default=40, help="of the pack's colours, 0 to 100")
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--fps", type=float, default=8.0)
    parser.add_argument("--frames", type=int, default=24, help="most frames of one loop")
    parser.add_argument("--select", default="200", help="number of animated emoji, 'all', or a file of names")
    return parser.parse_args()


def find_sources(packages: Sequence[Path], names: Sequence[dict[str, Any]]) -> list[Source]:
    """Every distinct emoji, in the order of its code: no skin tones, people merged across gender and hair."""
    by_code = {plain(str(entry["hexcode"])): entry for entry in names}
    shared = Counter(tag for entry in names for tag in entry.get("tags", []))
    found: dict[str, Source] = {}
    for path in sorted((p for root in packages for p in root.glob("assets/*.webp")), key=lambda p: p.stem):
        code, entry = path.stem, by_code.get(plain(path.stem))
        if entry is None or SKIN_TONES & set(code.split("-")) or "group" not in entry:
            continue
        key = merged_code(code)
        if key not in found or plain(code) == key:
            tags = synonyms(entry, shared)
            group = GROUPS.get(entry["group"], "other")
            found[key] = Source(path, code, clean_name(entry["label"]), tags, group)
    distinct: dict[str, Source] = {}
    for source in sorted(found.values(), key=lambda source: source.code):
        distinct.setdefault(source.name, source)
    return list(distinct.values())


def plain(code: str) -> str:
    """The code points in lower case without variation selectors and leading zeros."""
    return "-".join(part.lstrip("0") for part in code.lower().split("-") if part != "fe0f")


def merged_code(code: str) -> str:
    """One code for all variants of a person that differ in gender or hair only."""
    parts = plain(code).split("-")
    people = sum(part in {MAN, WOMAN, PERSON, "1f466", "1f467", "1f9d2"} for part in parts)
    if people > 1:
        signs = {"1f48b": KISS, "2764": HEART, "1f91d": HANDSHAKE}
        return next((couple for sign, couple in signs.items() if sign in parts), FAMILY)
    if JOINER in parts and parts[0] in {MAN, WOMAN}:
        parts[0] = PERSON
    if parts[-1] in GENDER_SIGNS and len(parts) > 1:
        parts = parts[:-2]
    return "-".join(parts)


def clean_name(label: str) -> str:
    """The label in lower case, its qualifier turned into words: "flag: Italy" is "flag of italy"."""
    name = label.lower().translate(str.maketrans("’", "'", '“”"'))
    head, colon, rest = name.partition(": ")
    if not colon:
        return name
    if head == "flag":
        return f"flag of {rest}"
    return f"{head} {rest}" if head == "keycap" else f"{head} with {rest.replace(', ', ' and ')}"


def synonyms(entry: dict[str, Any], shared: Counter[str]) -> list[str]:
    """Tags that no other emoji has and that can stand for a thing; those of a face are moods."""
    if GROUPS.get(entry["group"]) not in NOUN_GROUPS:
        return []
    name_words = set(clean_name(entry["label"]).split())
    tags = [tag.lower() for tag in entry.get("tags", []) if shared[tag] == 1]
    return [tag for tag in tags if tag not in name_words and NOUN.fullmatch(tag)]


def select(sources: Iterable[Source], count: int) -> list[Source]:
    """`count` animated emoji: the first choices, then one of each group in turn, by the hash of their names.

    A larger count keeps all that a smaller one chose. Clock faces stay out: they differ in two hands only.
    """
    pool = [s for s in sources if s.group in SELECTED_GROUPS and not is_clock(s) and is_animated(s.path)]
    first = sorted((s for s in pool if s.name in FIRST_CHOICES), key=lambda s: FIRST_CHOICES.index(s.name))
    queues = [
        sorted((s for s in pool if s.group == group and s not in first), key=name_hash)
        for group in SELECTED_GROUPS
    ]
    turns = [source for turn in zip_longest(*queues) for source in turn if source is not None]
    chosen = (first + turns)[:count]
    if len(chosen) < count:
        raise SystemExit(f"--select {count} asks for more than the {len(chosen)} animated emoji there are")
    return sorted(chosen, key=lambda source: source.code)


def named(sources: Iterable[Source], path: str) -> list[Source]:
    """The emoji that a file names, one a line."""
    by_name = {source.name: source for source in sources}
    names = read_cast(path)
    if strangers := [name for name in names if name not in by_name]:
        raise SystemExit(f"{path}: there is no emoji {strangers[0]!r}")
    return sorted((by_name[name] for name in names), key=lambda source: source.code)


def is_clock(source: Source) -> bool:
    return "o'clock" in source.name or source.name.endswith("-thirty")


def name_hash(source: Source) -> bytes:
    return hashlib.sha256(source.name.encode()).digest()


def without_twins(sources: Iterable[Source], clips: dict[str, NDArray[np.uint8]]) -> list[Source]:
    """Only the first of the emoji whose pictures are equal, such as some flags."""
    seen: dict[bytes, Source] = {}
    for source in sources:
        seen.setdefault(hashlib.sha256(clips[source.code].tobytes()).digest(), source)
    return list(seen.values())


def package_root(path: Path) -> Path:
    return next(parent for parent in path.resolve().parents if (parent / "package.json").is_file())


def package_versions(roots: Iterable[Path]) -> list[dict[str, str]]:
    manifests = [json.loads((root / "package.json").read_text(encoding="utf-8")) for root in roots]
    return [{key: manifest[key] for key in ("name", "version", "license")} for manifest in manifests]


def write(
    out: Path,
    sources: Sequence[Source],
    clips: dict[str, NDArray[np.uint8]],
    args: argparse.Namespace,
    packages: list[dict[str, str]],
) -> None:
    index = describe(sources, [len(clips[source.code]) for source in sources], args, packages)
    report(out, index, write_bank(out, [clips[source.code] for source in sources], index))


def pack(args: argparse.Namespace, sources: Sequence[Source], packages: list[dict[str, str]]) -> None:
    """The pack, one sprite in memory at a time."""
    settings, seen = PackSettings(quality=args.quality), set[bytes]()
    kept, counts, strips = list[Source](), list[int](), list[bytes]()
    for source in sources:
        clip = decode(source.path, args.size, args.fps, args.frames)
        picture = hashlib.sha256(clip.tobytes()).digest()
        if picture not in seen:
            seen.add(picture)
            kept.append(source)
            counts.append(len(clip))
            strips.append(encode_strip(clip, settings))
    index = describe(kept, counts, args, packages)
    report(args.pack, index, write_pack(args.pack, strips, index))
    print(f"{args.pack}: {args.pack.stat().st_size / 1e6:.1f} MB")


def describe(
    sources: Sequence[Source],
    counts: Sequence[int],
    args: argparse.Namespace,
    packages: list[dict[str, str]],
) -> dict[str, Any]:
    """The index: each sprite's words and its rows in the table of frames."""
    offset, sprites = 0, []
    for source, count in zip(sources, counts, strict=True):
        words = {"name": source.name, "tags": source.tags, "group": source.group, "code_points": source.code}
        sprites.append({**words, "animated": count > 1, "offset": offset, "frames": count})
        offset += count
    return {"size": args.size, "fps": args.fps, "packages": packages, "sprites": sprites}


def report(out: Path, index: dict[str, Any], digest: str) -> None:
    sprites = index["sprites"]
    animated, frames = sum(s["animated"] for s in sprites), sum(s["frames"] for s in sprites)
    print(f"{out}: {len(sprites)} sprites, {animated} animated, {frames} frames, sha256 {digest[:12]}")


if __name__ == "__main__":
    sys.exit(run_script(main))
