"""Still images in and out: uint8 arrays `[H, W, 3]` in sRGB, or `[H, W, 4]` with straight alpha.

What a camera or an editor left in the file is applied once, on reading: EXIF orientation, ICC profile,
palette, 16 bits, CMYK. Pictures are scaled after they are laid on their background; scaling straight
alpha instead would draw the hidden colour of transparent pixels into the edges.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from kinema.core.contracts import Record
from kinema.core.errors import GeometryError, MediaError, unknown_name
from kinema.io import containers
from kinema.io.atomic import check_target, publish, staging
from kinema.io.formats import QUALITIES, Quality
from kinema.io.record import parameters, record_text, title
from kinema.io.sniff import MAX_BYTES_IMAGE, demuxers, known_as, open_regular, sniff

MAX_PIXELS = 100_000_000
MAX_SIDE = 16_384
MAX_SCANNED = 3_000_000_000  # pixels over all scans of a progressive JPEG, which has about ten
# Formats that are pictures and nothing else: EPS and PDF would start an interpreter.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "TGA", "JPEG2000", "ICO")
HOW = ("crop", "pad", "stretch")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

How = Literal["crop", "pad", "stretch"]
_BAND = 1 << 20  # pixels laid on their background at a time
_JPEG_QUALITY: dict[Quality, int] = {"small": 75, "medium": 85, "high": 95}


def read_image(path: str | Path) -> np.ndarray:
    """Read a still image (the first frame of an animated one) as it is meant to be seen.

    Returns:
        uint8 `[H, W, 3]` in sRGB, or `[H, W, 4]` when the file has transparency.

    Raises:
        MediaError: the file is missing, no picture, damaged, truncated, above 100 megapixels or 500 MB.
    """
    path = Path(path)
    with (
        open_regular(path, limit=MAX_BYTES_IMAGE) as file,
        decoding(path),
        Image.open(file, formats=FORMATS) as image,
    ):
        check_pixels(path, image.size)
        check_scans(path, file, image)
        return _pixels(image)


class _NoWhiteError(ValueError):
    """Numbers of which nobody knows which one is white."""


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Whatever Pillow's decoders raise about a damaged file becomes one line; they raise almost anything."""
    with warnings.catch_warnings():
        # Pillow warns of damaged EXIF, and of bombs below our own limit, checked before a pixel is decoded.
        warnings.simplefilter("ignore")
        try:
            yield
        except (MediaError, GeneratorExit):
            raise
        except Image.DecompressionBombError:
            raise MediaError(
                f"cannot read {str(path)!r}: it is above 100 megapixels; scale it down first."
            ) from None
        except UnidentifiedImageError:
            raise MediaError(f"cannot read {str(path)!r}: {_no_picture(path)}") from None
        except _NoWhiteError as error:
            raise MediaError(f"cannot read {str(path)!r}: {error}; save it with 8 or 16 bits.") from None
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            if "MAX_TEXT" in reason:  # Pillow's own limits on the texts and the profile of a PNG
                reason = "its texts or its profile unpack to many megabytes"
            raise MediaError(f"cannot read {str(path)!r}: {reason}; it is damaged, get it again.") from None


def _no_picture(path: Path) -> str:
    with open_regular(path) as file:
        head = file.read(4096)
    if other := known_as(head):
        return f"it is {other}."
    if demuxers(sniff(head) or ""):
        return "it is a video; give a picture, such as one frame of it."
    return "it is no picture; give PNG, JPEG, WebP or the like."


def fit_image(
    image: np.ndarray,
    width: int,
    height: int,
    how: How = "crop",
    background: tuple[int, int, int] | None = None,
) -> np.ndarray:
    """Bring an image to exactly `width` x `height`, without transparency.

    Args:
        image: uint8 `[H, W, 3 or 4]`.
        width: pixels.
        height: pixels.
        how: `crop` fills and cuts what sticks out, `pad` shows all of it between bars, `stretch` distorts.
        background: colour of the bars and behind transparency, 0..255; None is black.

    Returns:
        uint8 `[height, width, 3]`, resampled with an antialiasing Lanczos filter.
    """
    if how not in HOW:
        raise unknown_name("fit", how, HOW)
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise GeometryError(f"size {width}x{height} is out of range; each side is 1 to {MAX_SIDE}.")
    behind = background or (0, 0, 0)
    picture = Image.fromarray(flatten(image, behind))
    if how == "stretch":
        return np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))
    if how == "crop":
        return np.asarray(ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS))
    inner = fitted_inside(picture.size, (width, height))
    canvas = Image.new("RGB", (width, height), behind)
    small = picture.resize(inner, Image.Resampling.LANCZOS)
    canvas.paste(small, ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return np.asarray(canvas)


def fitted_inside(size: tuple[int, int], whole: tuple[int, int]) -> tuple[int, int]:
    """How large (width, height) a picture of this size is when `pad` shows all of it."""
    scale = min(whole[0] / size[0], whole[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def flatten(image: np.ndarray, background: tuple[int, int, int] = (0, 0, 0)) -> np.ndarray:
    """Lay `[H, W, 4]` on a colour: `a rgb + (1 - a) background`; `[H, W, 3]` comes back unchanged."""
    if image.shape[2] == 3:
        return image
    out = np.empty((*image.shape[:2], 3), np.uint8)
    rows = max(1, _BAND // image.shape[1])
    for top in range(0, len(image), rows):  # in bands: a picture of 100 megapixels must not take 4 GB
        band = image[top : top + rows]
        alpha = band[..., 3:].astype(np.uint32)
        mixed = alpha * band[..., :3] + (255 - alpha) * np.array(background, np.uint32)
        out[top : top + rows] = (mixed + 127) // 255
    return out


def write_image(
    path: str | Path,
    frame: np.ndarray,
    record: Record | None = None,
    *,
    overwrite: bool = False,
    quality: Quality = "high",
) -> Path:
    """Write one frame as PNG, JPEG or WebP, by suffix, whole or not at all, with its record inside.

    Args:
        path: the file to make.
        frame: uint8 `[H, W, 3 or 4]`; JPEG lays transparency on black.
        record: what the file remembers.
        overwrite: whether an existing file may be replaced.
        quality: of JPEG and WebP; PNG is always lossless.

    Returns:
        The path.

    Raises:
        MediaError: unknown suffix, existing file, unwritable folder, or a frame that is no picture.
    """
    path = Path(path)
    check_image_target(path, overwrite=overwrite, quality=quality)
    check_frame(frame, 0)
    data = encode_image(frame, path.suffix.lower(), record, quality)
    with staging(path.parent) as work:
        (work / "image").write_bytes(data)
        publish(work / "image", path, overwrite=overwrite)
    return path


def check_image_target(path: Path, *, overwrite: bool, quality: Quality) -> None:
    """What can be refused before there is a picture."""
    if path.suffix.lower() not in SUFFIXES:
        raise MediaError(
            f"unknown file suffix {path.suffix!r} for an image; use one of {', '.join(SUFFIXES)}."
        )
    if quality not in QUALITIES:
        raise unknown_name("quality", quality, QUALITIES)
    if quality == "lossless" and path.suffix.lower() in (".jpg", ".jpeg"):
        raise MediaError("quality='lossless' is not possible with JPEG; use .png or .webp.")
    check_target(path, overwrite=overwrite)


def check_frame(frame: Any, index: int) -> None:
    """Refuse what is not a uint8 array `[H, W, 3 or 4]`."""
    if (
        not isinstance(frame, np.ndarray)
        or frame.dtype != np.uint8
        or frame.ndim != 3
        or frame.shape[2] not in (3, 4)
    ):
        found = (
            f"{frame.dtype} {list(frame.shape)}" if isinstance(frame, np.ndarray) else type(frame).__name__
        )
        raise MediaError(f"frame {index} is {found}; a frame is a uint8 array [H, W, 3] or [H, W, 4].")
    if not 1 <= min(frame.shape[:2]) <= max(frame.shape[:2]) <= MAX_SIDE:
        raise MediaError(f"frame {index} is {frame.shape[1]}x{frame.shape[0]}; each side is 1 to {MAX_SIDE}.")


def encode_image(frame: np.ndarray, suffix: str, record: Record | None, quality: Quality = "high") -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    if suffix == ".png":
        Image.fromarray(frame).save(buffer, "PNG", pnginfo=_png_info(record) if record else None)
    elif suffix == ".webp":
        extra = {"xmp": containers.xmp_packet(record_text(record)), "exif": _exif(record)} if record else {}
        lossless = quality == "lossless"
        percent = 100 if lossless else _JPEG_QUALITY[quality]
        Image.fromarray(frame).save(
            buffer, "WEBP", quality=percent, lossless=lossless, exact=lossless, **extra
        )
    else:
        picture = Image.fromarray(flatten(frame))
        extra = {"exif": _exif(record)} if record else {}
        picture.save(buffer, "JPEG", quality=_JPEG_QUALITY[quality], subsampling=0, **extra)
        if record:
            return containers.add_jpeg_xmp(buffer.getvalue(), record_text(record))
    return buffer.getvalue()


def _png_info(record: Record) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for key, text in (
        ("parameters", parameters(record)),
        ("Title", title(record)),
        ("kinema", record_text(record)),
    ):
        if text:
            info.add_itxt(key, text)
    return info


def _exif(record: Record) -> bytes:
    """EXIF with the `parameters` paragraph as UserComment, where galleries look for it."""
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = "kinema"
    text = parameters(record)[:16_000]  # a JPEG's EXIF holds 64 kB in all
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + text.encode(
        "utf-16-be", "replace"
    )
    return exif.tobytes()


def check_pixels(path: Path, size: tuple[int, int]) -> None:
    """`MediaError` above 100 megapixels."""
    if size[0] * size[1] > MAX_PIXELS:
        raise MediaError(
            f"cannot read {str(path)!r}: {size[0]}x{size[1]} is above 100 megapixels; scale it down first."
        )


def check_scans(path: Path, file: BinaryIO, image: Image.Image) -> None:
    """Refuse a JPEG whose scans, each of which may touch every pixel, would be hours of work."""
    if image.format not in ("JPEG", "MPO"):
        return
    place = file.tell()
    file.seek(0)
    scans = sum(part.count(b"\xff\xda") for part in iter(lambda: file.read(1 << 20), b""))
    file.seek(place)
    if scans * image.width * image.height > MAX_SCANNED:
        raise MediaError(f"cannot read {str(path)!r}: it has {scans} scans; save it as a plain JPEG.")


def _pixels(image: Image.Image) -> np.ndarray:
    image.load()
    profile = image.info.get("icc_profile")
    upright = ImageOps.exif_transpose(image)
    picture = _eight_bits(upright)
    converted = _to_srgb(picture, profile) if profile else None
    return np.asarray(converted if converted is not None else _to_rgb(picture))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Gray of 16 or 32 bits scaled to 8; Pillow's own conversion would clip it to white."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    if image.mode == "F":
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise _NoWhiteError("float pixels outside 0..1 have no known white")
        return Image.fromarray((values * 255).round().astype(np.uint8))
    if values.min() < 0 or values.max() > 65535:
        raise _NoWhiteError("32-bit pixels have no known white")
    return Image.fromarray((values.astype(np.float64) / 257).round().astype(np.uint8))


def _to_rgb(image: Image.Image) -> Image.Image:
    transparent = "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info
    return image.convert("RGBA" if transparent else "RGB")


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """The picture in sRGB through its ICC profile; None when the profile does not fit the picture."""
    alpha = None
    if image.mode not in ("RGB", "CMYK", "L", "LAB"):
        image = _to_rgb(image)
    elif "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode == "RGBA":
        alpha, image = image.getchannel("A"), image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            picture: Image.Image | None = image.convert("RGB")
        else:
            picture = ImageCms.profileToProfile(
                image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
    except (ImageCms.PyCMSError, OSError):
        return None if alpha is None else _with_alpha(image, alpha)
    assert picture is not None
    return picture if alpha is None else _with_alpha(picture, alpha)


def _with_alpha(picture: Image.Image, alpha: Image.Image) -> Image.Image:
    picture.putalpha(alpha)
    return picture
