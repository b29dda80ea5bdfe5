"""Compiled kernels: plain C++ beside the Python code, built once for this machine and called by ctypes.

    cache/native/<hash of source, compiler, flags and processor>.so

Nothing here is needed to compute anything: without a compiler, or where a build or a check fails, `library`
says why and its callers take torch's own operations. `KINEMA_NATIVE=0` in the environment does the same.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kinema.core.places import cache_folder

COMPILERS = ("g++", "clang++", "c++")
COMMON = ("-O3", "-std=c++17", "-shared", "-fPIC", "-pthread")
FLAVOURS = (("-march=native",), ("-mcpu=native",), ())  # the first that the compiler takes
SECONDS = 120.0
OFF = "KINEMA_NATIVE"


@dataclass(frozen=True, slots=True)
class Native:
    """What became of a library.

    Attributes:
        loaded: its functions, or None.
        note: one line for people: where it lies, or why there is none.
    """

    loaded: ctypes.CDLL | None
    note: str


def library(source: Path, check: Callable[[ctypes.CDLL], str | None]) -> Native:
    """The library of a C++ file, built if this machine has not built it yet; never an error.

    Args:
        source: the file.
        check: gives the types of the library's functions and tries them; what is wrong with them, or None.
    """
    if os.environ.get(OFF, "").strip().lower() in ("0", "off", "no", "false"):
        return Native(None, f"switched off by {OFF}")
    if sys.platform == "win32":
        return Native(None, "not built on Windows")
    try:
        path = _built(source)
        loaded = _opened(path, source)
        wrong = check(loaded)
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        return Native(None, _line(error))
    return Native(None, f"{path}: {wrong}") if wrong else Native(loaded, str(path))


def _opened(path: Path, source: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError:  # damaged since it was written: built again, once
        path.unlink()
        return ctypes.CDLL(str(_built(source)))


def _built(source: Path) -> Path:
    compiler = next((found for name in COMPILERS if (found := shutil.which(name))), None)
    if compiler is None:
        raise OSError(f"no C++ compiler ({', '.join(COMPILERS)}) on the PATH")
    folder = _own_folder()
    path = folder / f"{source.stem}-{_key(source, Path(compiler))}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as place:
            part = Path(place) / path.name
            _compile(compiler, source, part)
            with part.open("rb") as file:
                os.fsync(file.fileno())  # after a power cut there is a whole file or none
            part.replace(path)
    return path


def _own_folder() -> Path:
    """Only what this user alone can write is ever loaded."""
    folder = cache_folder() / "native"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OSError(f"{folder} can be written by others; chmod 700 it")
    return folder


def _key(source: Path, compiler: Path) -> str:
    program = compiler.resolve().stat()
    facts = (COMMON, FLAVOURS, str(compiler.resolve()), program.st_size, program.st_mtime_ns, processor())
    return hashlib.sha256(repr(facts).encode() + source.read_bytes()).hexdigest()[:32]


def processor() -> str:
    """What this processor can do, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    told = [next((x for x in lines if x.startswith(f)), "") for f in ("model name", "flags", "Features")]
    return "; ".join([platform.machine(), platform.processor(), *told])


def _compile(compiler: str, source: Path, out: Path) -> None:
    for flavour in FLAVOURS:
        command = [compiler, *COMMON, *flavour, str(source), "-o", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        if done.returncode == 0:
            return
    raise OSError(f"{compiler} failed: {_line(done.stderr)}")


def _line(text: object) -> str:
    lines = str(text).strip().splitlines()
    return lines[0][:200] if lines else "no reason given"
