"""`SHA256SUMS`: what the files of a checkpoint must be, in the format of the program sha256sum.

    cd checkpoint && sha256sum */*.safetensors > SHA256SUMS

A flipped bit in a weight loads without an error and draws other pictures. Where this file lies beside
`model_index.json`, every file that it names is compared before weights are read; the embedded model has one.
"""

from __future__ import annotations

import re
from pathlib import Path

from kinema.core.errors import ModelError
from kinema.models.weights import file_hashes
from kinema.pipelines.hashes import cached_hashes

NAME = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_MOST = 1 << 20


def verify(folder: Path) -> None:
    """Compare a checkpoint with its sums; nothing to do where it has none.

    Raises:
        ModelError: a file differs or is missing, or the sums cannot be read.
    """
    wanted = _read(folder / NAME)
    if not wanted:
        return
    found = cached_hashes(folder)
    for name, digest in wanted.items():
        if name not in found:
            raise ModelError(f"{folder} lacks {name}, which its {NAME} lists; get the checkpoint again.")
        if found[name] != digest:
            raise ModelError(
                f"{folder / name} is not the file that {NAME} lists (its sha256 begins {found[name][:12]}, "
                f"not {digest[:12]}); get it again, or write {NAME} anew if you changed it."
            )


def write(folder: Path) -> Path:
    """Write the sums of a checkpoint's weights as they are now."""
    hashes = file_hashes(folder)
    lines = [f"{hashes[name]}  {name}\n" for name in hashes if name.endswith(".safetensors")]
    path = folder / NAME
    path.write_text("".join(lines), encoding="utf-8")
    return path


def _read(path: Path) -> dict[str, str]:
    """sha256 by name relative to the folder; empty without a file."""
    if not path.is_file():
        return {}
    if path.stat().st_size > _MOST:
        raise ModelError(f"{path} is larger than 1 MB; write it anew with sha256sum.")
    sums = {}
    for line in path.read_text("utf-8", "replace").splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            raise ModelError(
                f"{path} has a line that is no sum, {line[:60]!r}; write it anew with sha256sum."
            )
        sums[match[2].removeprefix("./")] = match[1]
    return sums
