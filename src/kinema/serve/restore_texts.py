"""Texts that other tools leave in pictures and clips: PNG chunks, EXIF, tags of containers."""

from __future__ import annotations

from pathlib import Path

from PIL import ExifTags, Image, PngImagePlugin

from kinema.io.image import FORMATS
from kinema.io.record import container_tags
from kinema.io.sniff import PICTURES, open_regular

MOST = 8 << 20
KEYS = ("parameters", "prompt", "workflow")
_TAGS = (ExifTags.Base.Make, ExifTags.Base.ImageDescription, ExifTags.Base.Model)


def texts_in(path: Path, kind: str) -> dict[str, str]:
    """The texts `parameters`, `prompt` and `workflow`, those that there are.

    Args:
        path: a picture or clip.
        kind: what its bytes say it is.
    """
    if kind not in PICTURES:
        return _of_tags(container_tags(path, kind))
    try:
        with open_regular(path) as file, Image.open(file, formats=FORMATS) as picture:
            if isinstance(picture, PngImagePlugin.PngImageFile):
                picture.load()  # texts may stand behind the pixels
                return _kept({name: str(text) for name, text in picture.text.items()})
            return _of_exif(picture.getexif())
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return {}


def _of_exif(exif: Image.Exif) -> dict[str, str]:
    """A1111's UserComment, or ComfyUI's `prompt:{...}` in a few tags."""
    comment = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    found = {"parameters": _comment(comment)} if isinstance(comment, bytes) else {}
    for tag in _TAGS:
        name, colon, text = str(exif.get(tag, "")).partition(":")
        if colon and name.strip().lower() in KEYS:
            found[name.strip().lower()] = text
    return _kept(found)


def _comment(data: bytes) -> str:
    """EXIF's user comment by its eight bytes of code."""
    code, text = data[:8], data[8:]
    if code == b"UNICODE\0":
        low, high = text[1::2].count(0), text[0::2].count(0)  # the zeros of the settings' plain letters
        order = "utf-16-le" if low > high else "utf-16-be"
        return text.decode(order, "replace")
    return text.decode("utf-8", "replace") if code in (b"ASCII\0\0\0", b"\0" * 8) else ""


def _of_tags(tags: dict[str, str]) -> dict[str, str]:
    """Tags of a container; some tools put all of them into the comment, as JSON."""
    from kinema.core.errors import ConfigError
    from kinema.story.files import parse_json

    found = dict(tags)
    if "comment" in tags and not any(key in tags for key in KEYS):
        try:
            inner = parse_json(tags["comment"])
        except ConfigError:
            inner = None
        if isinstance(inner, dict):
            for key in ("prompt", "workflow"):
                if isinstance(inner.get(key), str):
                    found[key] = inner[key]
    return _kept(found)


def _kept(texts: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in texts.items() if name in KEYS and 0 < len(text) <= MOST}
