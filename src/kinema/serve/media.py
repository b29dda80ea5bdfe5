"""Uploads by their content: `media/<sha256>`, named in requests as `media:<sha256>`.

A request of a server never names a path. What may stand where a path would is read off the settings' own
types, so that no field can be forgotten: every field of type `MediaPath`, wherever in a shot it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from kinema.core.errors import ConfigError, MediaError
from kinema.core.failpoints import reach
from kinema.io.atomic import sync
from kinema.story.media import MediaPath
from kinema.story.redraw import BARS
from kinema.story.shot import PREVIOUS, Shot
from kinema.story.storyboard import Storyboard, from_mapping

REFERENCE = re.compile(r"media:([0-9a-f]{64})")
_SHORT = re.compile(REFERENCE.pattern + r"((?:@\S*)?)")  # a keyframe in one word, media:...@16:0.5
WORDS: Mapping[str, tuple[str, ...]] = {
    "extend.path": (PREVIOUS,),
    "redraw.colour_from": ("first", "keyframes"),
    "redraw.mask": (BARS,),
    "source.mask": (BARS,),
}
"""Words that stand where a path may, by the end of the field's name."""
_MARK = get_args(MediaPath)[-1]
_PIECE = 1 << 20


class MediaStore:
    """A folder of files that are named by what is in them.

    Args:
        folder: it exists.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        """Where that file lies, or would."""
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise MediaError(f"{sha256[:20]!r} is no sha256.")
        return self.folder / sha256

    def has(self, sha256: str) -> bool:
        """Whether it is here."""
        return self.path(sha256).is_file()

    def held(self) -> int:
        """Bytes of all files."""
        return sum(entry.stat().st_size for entry in os.scandir(self.folder))

    def take(self, file: Path, sha256: str) -> Path:
        """Move a file in, on the same disk, durably; it was hashed while it came."""
        target = self.path(sha256)
        try:
            if target.is_file():
                os.utime(target)  # it is used again: not old any more
                file.unlink()
                return target
            sync(file)
            file.replace(target)
            sync(self.folder)
        except OSError as error:
            raise MediaError(f"cannot keep an upload: {error.strerror}.") from None
        return target

    def receive(self, pieces: Iterable[bytes], *, most: int, sha256: str | None = None) -> str:
        """Take a stream in.

        Args:
            pieces: of the file.
            most: bytes.
            sha256: what it has to be.

        Returns:
            Its sha256.

        Raises:
            MediaError: it is longer than `most`, empty, not what it has to be, or the disk does not take it.
        """
        part = self.folder / f".{os.urandom(12).hex()}.part"
        digest, size = hashlib.sha256(), 0
        try:
            with part.open("xb") as file:
                for piece in pieces:
                    size += len(piece)
                    if size > most:
                        raise MediaError(f"the file is larger than {most} bytes, the most here.")
                    digest.update(piece)
                    file.write(piece)
            if not size:
                raise MediaError("the file is empty.")
            found = digest.hexdigest()
            if sha256 is not None and found != sha256:
                raise MediaError(f"the file is not media:{sha256[:12]}…; it was damaged on its way.")
            reach("media.written")
            self.take(part, found)
            return found
        except OSError as error:
            if isinstance(error, MediaError):
                raise
            raise MediaError(f"cannot keep an upload: {error.strerror}.") from None
        finally:
            part.unlink(missing_ok=True)

    def collect(self, used: Iterable[str], older_than: float) -> int:
        """Remove files that no request names and that were uploaded (or again) long ago; how many.

        Args:
            used: sha256 of those that stay.
            older_than: seconds.
        """
        keep, removed, before = set(used), 0, time.time() - older_than
        for entry in os.scandir(self.folder):
            if entry.name not in keep:
                with contextlib.suppress(OSError):
                    if entry.stat().st_mtime < before:
                        Path(entry.path).unlink()
                        removed += 1
        return removed


def references(request: Any) -> Iterator[str]:
    """The sha256 of every file that a request names."""
    if isinstance(request, str):
        if match := REFERENCE.match(request):
            yield match[1]
    elif isinstance(request, Mapping):
        for value in request.values():
            yield from references(value)
    elif isinstance(request, list | tuple):
        for value in request:
            yield from references(value)


def named_paths(story: BaseModel) -> Iterator[tuple[str, str]]:
    """Every path in a shot or storyboard with the name of its field, `shots[0].keyframes[1].image`."""
    for where, field, value in _texts(story, ""):
        if _marked(field.metadata) or _marked_in(field.annotation):
            yield where, value


def named_models(story: BaseModel) -> Iterator[tuple[str, str]]:
    """Every model's name with that of its field, `camera.depth.model`: it could be a folder or a hub id.

    A model that is a file, as that of `upscale`, is among `named_paths`.
    """
    for where, field, value in _texts(story, ""):
        a_file = _marked(field.metadata) or _marked_in(field.annotation)
        if where.rpartition(".")[2] == "model" and not a_file:
            yield where, value


def _texts(value: Any, where: str) -> Iterator[tuple[str, FieldInfo, str]]:
    """Every text field that is set, in settings inside settings too."""
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            place, inner = f"{where}.{name}" if where else name, getattr(value, name)
            if isinstance(inner, str):
                yield place, field, inner
            else:
                yield from _texts(inner, place)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(inner, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _texts(inner, f"{where}[{index}]")


def _marked(metadata: Iterable[Any]) -> bool:
    return any(part is _MARK for part in metadata)


def _marked_in(annotation: Any) -> bool:
    """Whether a type, or one of a union, is a `MediaPath`."""
    return _marked(getattr(annotation, "__metadata__", ())) or any(
        _marked_in(inner) for inner in get_args(annotation)
    )


def is_word(where: str, path: str) -> bool:
    """Whether it is one of the words that the field knows."""
    return any(path in words for end, words in WORDS.items() if where.endswith(end))


def localized(
    request: Mapping[str, Any], place: Callable[[str], Path], loras: Mapping[str, str]
) -> tuple[Shot | Storyboard, dict[str, str]]:
    """A request of the queue with paths of this machine.

    Args:
        request: JSON values with `media:<sha256>`.
        place: where the file with a sha256 is; it raises when there is none.
        loras: paths of this machine's LoRAs, by name.

    Returns:
        What is rendered, and for each path what stands for it in the request.

    Raises:
        ConfigError: a field names a path, or a LoRA that is not here.
        MediaError: a file is missing.
    """
    names: dict[str, str] = {}

    def change(value: Any) -> Any:
        if isinstance(value, str) and (match := _SHORT.fullmatch(value)):  # a prompt may begin so
            path = str(place(match[1]))
            names[path] = f"media:{match[1]}"
            return path + match[2]
        if isinstance(value, Mapping):
            return {name: change(inner) for name, inner in value.items()}
        return [change(inner) for inner in value] if isinstance(value, list | tuple) else value

    story = _with_loras(from_mapping(change(request)), loras, names)
    for where, path in named_paths(story):
        if path not in names and not is_word(where, path):
            raise ConfigError(f"{where}={path[:60]!r} is not media:<sha256>; upload the file and name that.")
    return story, names


def _with_loras(
    story: Shot | Storyboard, loras: Mapping[str, str], names: dict[str, str]
) -> Shot | Storyboard:
    if isinstance(story, Storyboard):
        shots = tuple(_with_loras(shot, loras, names) for shot in story.shots)
        return story.with_(shots=shots)
    if not any(lora.path in loras for lora in story.loras):
        return story
    names.update({loras[lora.path]: lora.path for lora in story.loras if lora.path in loras})
    return story.with_(loras=tuple(lora.with_(path=loras.get(lora.path, lora.path)) for lora in story.loras))


def renamed(values: Any, names: Mapping[str, str]) -> Any:
    """JSON values with what stands for each path in its place, so that no file tells where a server's are."""
    if isinstance(values, str):
        return names.get(values, values)
    if isinstance(values, Mapping):
        return {name: renamed(value, names) for name, value in values.items()}
    return [renamed(value, names) for value in values] if isinstance(values, list | tuple) else values
