"""Empty the tracked files that training does not read, so that the working tree travels in few bytes.

    python scripts/gpu/lighten.py             empty them
    python scripts/gpu/lighten.py --restore   put them back (git checkout)

Files that differ from the last commit are left alone, as they could not be put back.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LEAST = 300_000  # bytes; smaller files are not worth it
NEEDED = ("src/kinema/assets/embedded/text_encoder/", "src/kinema/assets/embedded/tokenizer/")


def git(*words: str) -> list[str]:
    """Lines that git prints."""
    done = subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--restore", action="store_true")
    changed = set(git("diff", "--name-only", "HEAD"))
    if parser.parse_args().restore:
        empty = [name for name in changed if (ROOT / name).is_file() and not (ROOT / name).stat().st_size]
        if empty:
            git("checkout", "--", *empty)
        print(f"{len(empty)} files are back")
        return
    sizes = {name: (ROOT / name).stat().st_size for name in git("ls-files") if (ROOT / name).is_file()}
    idle = [n for n, s in sizes.items() if s > LEAST and not n.startswith(NEEDED) and n not in changed]
    for name in idle:
        (ROOT / name).write_bytes(b"")
    left = sum(sizes.values()) - sum(sizes[name] for name in idle)
    print(f"emptied {len(idle)} files; {left / 1e6:.1f} MB of tracked files are left")


if __name__ == "__main__":
    main()
