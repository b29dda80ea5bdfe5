"""How much memory is free: of the machine, of the container that limits this process, of an accelerator.

    free host = min(MemAvailable, limit - (used - reclaimable) of every control group above this process)

A container's limit is not what /proc/meminfo says: a process that believes the latter is killed by the
former. Pages that only cache files do not count as used; the kernel takes them back.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch

PROC, GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60


def free_host(proc: Path = PROC, groups: Path = GROUPS) -> int:
    """Bytes that this process can still take, about.

    Args:
        proc, groups: where the kernel tells; tests have their own.
    """
    found = [*_available(proc), *_limits(proc, groups)]
    return max(0, min(found)) if found else _physical()


def free_on(device: torch.device) -> int:
    """Bytes free where a device computes; what torch has cached there and does not use counts as free."""
    if device.type != "cuda":
        return free_host()
    free, _ = torch.cuda.mem_get_info(device)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free + cached)


def _available(proc: Path) -> Iterator[int]:
    for line in _text(proc / "meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            yield 1024 * int(line.split()[1])


def _limits(proc: Path, groups: Path) -> Iterator[int]:
    """What each control group with a limit leaves, of both versions of the interface."""
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from _group(groups, path, ("memory.max", "memory.current", "inactive_file"))
        elif "memory" in controllers.split(","):
            v1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _group(groups / "memory", path, v1)


def _group(root: Path, path: str, names: tuple[str, str, str]) -> Iterator[int]:
    """A group and those above it; inside a container its own group is often mounted as the root."""
    limit_name, used_name, cache_name = names
    inside = root / path.lstrip("/")
    for place in (inside, *inside.parents):
        limit = _number(place / limit_name)
        used = _number(place / used_name)
        if limit is not None and used is not None and limit < UNLIMITED:
            yield limit - max(0, used - _stat(place, cache_name))
        if place == root:
            return


def _stat(place: Path, name: str) -> int:
    lines = (line.split() for line in _text(place / "memory.stat").splitlines())
    return next((int(words[1]) for words in lines if words[0] == name), 0)


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _physical() -> int:
    """Where no file tells, half of what is built in."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return 4 << 30
