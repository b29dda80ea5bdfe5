"""The record that a file carries: what was asked, with which weights and versions; enough to make it again.

MP4, MOV, WebM and MKV hold its JSON under the key `kinema` and again as `comment`, which survives
re-muxing and which file managers show; PNG in iTXt; JPEG and WebP in XMP; GIF as a comment; `clip.mp4.json`
beside the file when a sidecar was asked for. PNG, JPEG and WebP stills also carry the one-paragraph
`parameters` that image galleries read. A record read from a file is untrusted input: JSON only, at most 4
MiB.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kinema.core.contracts import Record
from kinema.core.errors import MediaError
from kinema.io import containers, ffmpeg
from kinema.io.atomic import check_target
from kinema.io.formats import CONTAINERS, STILLS
from kinema.io.names import frames_of, is_numbered, sidecar_path
from kinema.io.sniff import demuxers, is_folder, open_regular, sniff

_BESIDE_TEXTS = ("head", "tail", "ease", "mode", "weight")


def read_record(path: str | Path) -> Record | None:
    """The record inside a media file, or beside it in `clip.mp4.json`; None when neither holds one.

    Raises:
        MediaError: `path` is missing or no regular file (a folder of frames, and `frames/%04d.png`, are read
            from their first frame).
    """
    path = Path(path)
    if frames := frames_of(path):
        return read_record(frames[0])
    if is_folder(path):
        return None
    with open_regular(path) as file:
        head = file.read(4096)
    texts = _json(path) or _embedded(path, sniff(head))
    for text in [*texts, *_sidecar(path)]:
        if (record := parse_record(text)) is not None:
            return record
    return None


def parse_record(text: str) -> Record | None:
    """The record in a JSON text; None when the text is too long, is not JSON or is something else's JSON."""
    if len(text) > containers.LIMIT:
        return None
    try:
        return Record.from_json(text)
    except (ValueError, TypeError, RecursionError):
        return None


def record_text(record: Record, *, ascii_only: bool = False) -> str:
    """The record's JSON, encodable as UTF-8; `MediaError` above the 4 MiB that readers accept."""
    text = record.to_json()
    if ascii_only or not _is_utf8(text):  # a lone surrogate in a prompt: escaped, it survives
        text = json.dumps(json.loads(text), separators=(",", ":"))
    if len(text.encode()) > containers.LIMIT:
        raise MediaError(
            f"the record has {len(text.encode())} bytes; files carry at most {containers.LIMIT}."
        )
    return text


def title(record: Record) -> str:
    """The first 120 characters of the prompt (of the first shot's), on one line."""
    return " ".join(_printable(_prompt(_first_shot(record.shot))).split())[:120]


def parameters(record: Record) -> str:
    """The paragraph that image galleries read: prompt, negative prompt, `Steps: 20, Sampler: euler, ...`."""
    shot = _first_shot(record.shot)
    width, height = shot.get("width"), shot.get("height")
    fields = {
        "Steps": shot.get("steps"),
        "Sampler": shot.get("solver"),
        "CFG scale": shot.get("guidance"),
        "Seed": shot.get("seed"),
        "Size": f"{width}x{height}" if width and height else None,
        "Model": record.model.get("id"),
        "Version": f"kinema {record.versions['kinema']}" if "kinema" in record.versions else "kinema",
    }
    negative = _first_text(shot.get("negative"))
    lines = [_prompt(shot), f"Negative prompt: {negative}" if negative else ""]
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in fields.items() if value is not None))
    return _printable("\n".join(line for line in lines if line))


def _quoted(value: object) -> str:
    """The value as text, in JSON quotes where a comma or colon of its own would split the line."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r'[,:"\n]', text) else text


def ffmetadata(record: Record) -> bytes:
    """The record as the text file that ffmpeg takes metadata from; free of the length limit of arguments."""
    text = record_text(record)
    tags = {"kinema": text, "comment": text, "title": title(record)}
    lines = [f"{key}={_escape(value)}\n" for key, value in tags.items() if value]
    return (";FFMETADATA1\n" + "".join(lines)).encode()


def check_sidecar(path: Path, *, overwrite: bool) -> None:
    """Refuse a file whose record cannot lie beside it; only another record is replaced."""
    target = sidecar_path(path)
    if is_numbered(path) and not path.parent.exists():
        return  # the folder is made with the record in it
    check_target(target, overwrite=overwrite)
    if target.is_file() and not any(parse_record(text) for text in _json(target)):
        raise MediaError(f"{str(target)!r} is no record of kinema's; move it away, or leave out the sidecar.")


def _embedded(path: Path, kind: str | None) -> list[str]:
    if kind is None:
        return []
    if kind in ("png", "gif", "webp", "jpeg"):
        with open_regular(path) as file:
            return _still_texts(file, kind)
    if demuxers(kind) is None:
        return []
    return _container_texts(path, kind)


def _still_texts(file: Any, kind: str) -> list[str]:
    if kind == "png":
        found = [containers.png_text(file, "kinema")]
    elif kind == "gif":
        return list(containers.gif_comments(file))
    elif kind == "webp":
        found = [containers.xmp_text(containers.webp_xmp(file) or b"")]
    else:
        found = [containers.xmp_text(packet) for packet in containers.jpeg_xmp(file)]
    return [text for text in found if text is not None]


def _container_texts(path: Path, kind: str) -> list[str]:
    """The `kinema` and `comment` tags of a video container."""
    tags = container_tags(path, kind)
    return [tags[key] for key in ("kinema", "comment") if key in tags]


def container_tags(path: Path, kind: str) -> dict[str, str]:
    """All tags of a video container by their names in lower case, through ffmpeg's own metadata text.

    Args:
        path: the file.
        kind: what its bytes say it is, as `sniff` has it.
    """
    source = [
        "-protocol_whitelist",
        "file,pipe",
        "-format_whitelist",
        str(demuxers(kind)),
        "-i",
        ffmpeg.url(path),
    ]
    result = ffmpeg.run(
        [*source, "-f", "ffmetadata", "pipe:1"], limit=4 * containers.LIMIT, seconds=60, stranger=True
    )
    return parse_ffmetadata(result.output.decode("utf-8", "replace"))


def parse_ffmetadata(text: str) -> dict[str, str]:
    """Global tags of an FFMETADATA text, keys in lower case (Matroska writes them in upper case).

    Lines end at a newline, and keys at a `=`, that no backslash protects.
    """
    tags: dict[str, str] = {}
    for line in _unprotected_lines(text):
        if line.startswith("["):  # a chapter or a stream begins; the file's own tags are over
            break
        if pair := re.match(r"((?:[^\\=]|\\.)*+)=", line, re.DOTALL):
            tags.setdefault(_unescape(pair[1]).lower(), _unescape(line[pair.end() :]))
    return tags


def _unprotected_lines(text: str) -> Iterator[str]:
    parts: list[str] = []
    for piece in text.split("\n"):
        parts.append(piece)
        if (len(piece) - len(piece.rstrip("\\"))) % 2 == 0:
            yield "\n".join(parts)
            parts.clear()


def _escape(value: str) -> str:
    for sign in "\\=;#\n":  # the backslash first, or it would escape the escapes
        value = value.replace(sign, "\\" + sign)
    return value


def _unescape(value: str) -> str:
    return "\\".join(part.replace("\\", "") for part in value.split("\\\\"))


def _sidecar(path: Path) -> list[str]:
    """The text beside a file; also under the name of earlier versions, where no other clip has that name."""
    earlier = path.with_suffix(".json")
    others = [path.with_suffix(s) for s in (*CONTAINERS, *STILLS) if s != path.suffix.lower()]
    ours = earlier != path and not any(map(os.path.lexists, others))
    return [*_json(sidecar_path(path)), *(_json(earlier) if ours else ())]


def _json(path: Path) -> list[str]:
    return [path.read_text("utf-8", "replace")] if _is_small_json(path) else []


def _is_small_json(path: Path) -> bool:
    try:
        small = path.is_file() and path.stat().st_size <= 4 * containers.LIMIT
    except OSError:  # a name that the system cannot have
        return False
    return small and path.suffix.lower() == ".json"


def _first_shot(shot: Mapping[str, Any]) -> Mapping[str, Any]:
    """The shot itself; of a storyboard the first, with what is said of all."""
    shots = shot.get("shots")
    first = shots[0] if isinstance(shots, list | tuple) and shots else {}
    own = {"prompt": first} if isinstance(first, str) else first
    return {**shot, **own} if isinstance(own, Mapping) else shot


def _prompt(shot: Mapping[str, Any]) -> str:
    return _first_text(shot.get("prompt") or shot.get("prompts"))


def _first_text(value: object) -> str:
    """A prompt's own text, or the first text of a prompt track, of its keys or of its mix."""
    while isinstance(value, Mapping | list | tuple):
        if isinstance(value, Mapping):
            mix = value.get("mix")
            kept = [part for name, part in value.items() if name not in _BESIDE_TEXTS]
            value = list(mix) if isinstance(mix, Mapping | list | tuple) else kept
        value = value[0] if value else ""
    return value if isinstance(value, str) else ""


def _printable(text: str) -> str:
    """`text` with what UTF-8 cannot hold replaced and NUL dropped."""
    return text.encode("utf-8", "replace").decode().replace("\0", "")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
