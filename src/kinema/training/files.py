"""Files of a run: whole under their names or not there, and read with a word on what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from kinema.core.errors import KinemaError, MediaError, ModelError
from kinema.io.atomic import cannot_write, sync


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name to write under; the file gets `path`'s when the block ends well, and goes otherwise.

    Its folder is made. What had the name before is replaced in one step, once the new file is on the disk.

    Raises:
        MediaError: it cannot be written, such as on a full disk.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.chmod(0o644)  # safetensors leaves files private to their writer
        sync(part)
        part.replace(path)
    except KinemaError:
        raise
    except OSError as error:
        raise cannot_write(path, error) from None
    except SafetensorError as error:  # what safetensors makes of an OSError while it writes
        raise MediaError(
            f"cannot write {str(path)!r}: {error}; make room, or choose another folder."
        ) from None
    finally:
        part.unlink(missing_ok=True)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors with `facts` as the JSON of the header's `state`; errors are those of `whole`."""
    with whole(path) as part:
        save_file({k: v.contiguous() for k, v in tensors.items()}, part, {"state": json.dumps(dict(facts))})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` wrote.

    Raises:
        ModelError: it is missing, damaged, or no checkpoint of a run.
    """
    with opened(path) as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return tensors, _facts(file, path)


def read_facts(path: Path) -> dict[str, Any]:
    """The facts alone; errors are those of `read_tensors`."""
    with opened(path) as file:
        return _facts(file, path)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file, open to be read; `ModelError` when it is missing or damaged."""
    if not path.is_file():
        raise ModelError(
            f"there is no checkpoint {path}; name a run's .safetensors or a packed model's folder."
        )
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is damaged or no safetensors file ({error}); begin anew, or fetch it again."
        ) from None


def _facts(file: Any, path: Path) -> dict[str, Any]:
    try:
        facts = json.loads((file.metadata() or {}).get("state", "null"))
    except ValueError:
        facts = None
    if not isinstance(facts, dict) or type(facts.get("step")) is not int:
        raise ModelError(f"{path} is no checkpoint of a training run; name one, or a packed model's folder.")
    return facts
