import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from patch_clips import names
from PIL import Image, ImageCms

from kinema.core.contracts import Record
from kinema.core.errors import GeometryError, KinemaError, MediaError
from kinema.io.image import fit_image, flatten, read_image, write_image
from kinema.io.record import parameters, read_record

RAMP = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5
RECORD = Record(
    {
        "prompt": "a fox 狐",
        "negative": "blurry",
        "steps": 20,
        "solver": "unipc",
        "guidance": 5,
        "seed": 7,
        "width": 64,
        "height": 32,
    },
    {"id": "kinema/embedded"},
    {"kinema": "0.1.0"},
)


def saved(tmp_path, image, name="a.png", **options):
    image.save(tmp_path / name, **options)
    return read_image(tmp_path / name)


def test_rgb_and_alpha_come_back_to_the_bit(tmp_path):
    assert np.array_equal(saved(tmp_path, Image.fromarray(RAMP)), RAMP)
    rgba = np.dstack([RAMP, np.arange(16, dtype=np.uint8).reshape(4, 4)])
    assert np.array_equal(saved(tmp_path, Image.fromarray(rgba)), rgba)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_shows_the_same_picture(tmp_path, orientation):
    seen = np.zeros((48, 80, 3), np.uint8)
    seen[:24, :40] = (255, 0, 0)
    seen[:24, 40:] = (0, 255, 0)
    # what a camera stores so that this orientation gives back `seen`
    inverse = {
        1: lambda x: x,
        2: np.fliplr,
        3: lambda x: np.rot90(x, 2),
        4: np.flipud,
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x, 1),
        7: lambda x: np.rot90(x, 2).transpose(1, 0, 2),
        8: lambda x: np.rot90(x, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(inverse(seen)))
    assert np.array_equal(saved(tmp_path, stored, exif=exif), seen)


def test_sixteen_bit_gray_is_scaled_and_not_clipped(tmp_path):
    gray = np.array([[0, 257, 32768, 65535]], np.uint16)
    assert saved(tmp_path, Image.fromarray(gray))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_palette_with_a_transparent_entry_keeps_its_alpha(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    pixels = saved(tmp_path, image, transparency=0)
    assert pixels.tolist() == [[[255, 0, 0, 0], [0, 0, 255, 255]]]


@pytest.mark.parametrize("mode", ["1", "L"])
def test_gray_becomes_rgb(tmp_path, mode):
    assert saved(tmp_path, Image.new(mode, (3, 2), 255)).tolist() == np.full((2, 3, 3), 255).tolist()


def test_gray_with_alpha(tmp_path):
    assert saved(tmp_path, Image.new("LA", (1, 1), (90, 30))).tolist() == [[[90, 90, 90, 30]]]


def test_cmyk_becomes_rgb(tmp_path):
    pixels = saved(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "a.tif")
    assert pixels.shape == (8, 8, 3)
    assert pixels[0, 0].tolist() == [255, 0, 0]


def swapped_profile():
    """An sRGB profile in which red and blue have changed places."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    table = {}
    for at in range(132, 132 + 12 * struct.unpack(">I", data[128:132])[0], 12):
        table[bytes(data[at : at + 4])] = at
    red, blue = table[b"rXYZ"], table[b"bXYZ"]
    data[red + 4 : red + 12], data[blue + 4 : blue + 12] = (
        data[blue + 4 : blue + 12],
        data[red + 4 : red + 12],
    )
    at = struct.unpack(">I", data[table[b"desc"] + 4 : table[b"desc"] + 8])[0]
    size = struct.unpack(">I", data[table[b"desc"] + 8 : table[b"desc"] + 12])[0]
    data[at : at + size] = bytes(data[at : at + size]).replace(
        "sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")
    )
    return bytes(data)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_icc_profile_is_applied(tmp_path, mode):
    red = (255, 0, 0, 77)[: len(mode)]
    pixels = saved(tmp_path, Image.new(mode, (2, 2), red), icc_profile=swapped_profile())
    assert abs(pixels[0, 0, :3].astype(int) - (0, 0, 255)).max() <= 1
    assert mode == "RGB" or pixels[0, 0, 3] == 77


def test_a_broken_profile_is_passed_over(tmp_path):
    assert np.array_equal(saved(tmp_path, Image.fromarray(RAMP), icc_profile=b"no profile"), RAMP)


def bomb(width, height):
    """A PNG of a few kilobytes that claims width x height black pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(height * (1 + (width + 7) // 8)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_unreadable_pictures_are_one_line(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
        buffer, "PNG"
    )
    files = {
        "bomb.png": (bomb(10_100, 10_000), "100 megapixels"),
        "bigger.png": (bomb(14_000, 14_000), "damaged|megapixels"),
        "cut.png": (buffer.getvalue()[: len(buffer.getvalue()) // 2], "truncated|damaged"),
        "text.png": (b"hello", "no picture"),
        "vector.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        "empty.png": (b"", "empty"),
    }
    for name, (data, match) in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(MediaError, match=match) as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "sparse.png").touch()
    os.truncate(tmp_path / "sparse.png", 600_000_000)
    for path, match in {
        tmp_path / "fifo.png": "regular",
        tmp_path: "regular",
        tmp_path / "none.png": "No such",
        tmp_path / "sparse.png": "limit",
        "/dev/zero": "regular",
    }.items():
        with pytest.raises(MediaError, match=match):
            read_image(path)


@given(
    st.binary(min_size=1, max_size=300),
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff", b"RIFF0000WEBP"]),
)
def test_random_bytes_never_raise_anything_else(tmp_path_factory, data, magic):
    path = tmp_path_factory.getbasetemp() / "random"
    path.write_bytes(magic + data)
    try:
        image = read_image(path)
    except KinemaError:
        image = np.zeros((1, 1, 3), np.uint8)
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert read_record(path) is None


def test_scaling_draws_no_hidden_colour_into_the_edges():
    image = np.zeros((64, 64, 4), np.uint8)
    image[..., 1] = 255  # green everywhere, but only the left half is there to be seen
    image[:, :32] = (255, 0, 0, 255)
    fitted = fit_image(image, 16, 16, background=(0, 0, 255))
    assert fitted[..., 1].max() == 0
    assert fitted[8, 0].tolist() == [255, 0, 0]
    assert fitted[8, 15].tolist() == [0, 0, 255]


def test_half_alpha_mixes_half_and_half():
    image = np.array([[[200, 100, 0, 128]]], np.uint8)
    assert flatten(image, (0, 0, 255))[0, 0].tolist() == [100, 50, 127]


def test_crop_keeps_the_middle_pad_shows_all_and_stretch_distorts():
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, :10], image[:, 10:20], image[:, 20:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    assert (fit_image(image, 10, 10, "crop") == (0, 255, 0)).all()
    padded = fit_image(image, 30, 30, "pad", (9, 8, 7))
    assert np.array_equal(padded[10:20], image)
    assert (padded[:10] == (9, 8, 7)).all()
    assert (padded[20:] == (9, 8, 7)).all()
    stretched = fit_image(image, 30, 20, "stretch")
    assert np.array_equal(stretched[5:15], image)


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["crop", "pad", "stretch"]),
)
def test_every_fit_gives_the_exact_size_and_keeps_flat_colour(height, width, to_height, to_width, how):
    image = np.full((height, width, 3), (10, 20, 30), np.uint8)
    fitted = fit_image(image, to_width, to_height, how, (10, 20, 30))
    assert fitted.shape == (to_height, to_width, 3)
    assert (fitted == (10, 20, 30)).all()


def test_shrinking_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = fit_image(stripes, 16, 16)[4:-4, 4:-4].astype(int)
    assert abs(small - 127.5).max() < 8


def test_bad_settings_are_named():
    with pytest.raises(KinemaError, match="Did you mean 'crop'"):
        fit_image(RAMP, 8, 8, "corp")
    with pytest.raises(GeometryError, match="0x8"):
        fit_image(RAMP, 0, 8)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_written_pictures_carry_record_and_parameters(tmp_path, name):
    frame = np.full((32, 64, 3), (200, 40, 90), np.uint8)
    path = write_image(tmp_path / name, frame, RECORD)
    assert read_record(path) == RECORD
    assert abs(read_image(path).astype(int) - frame).max() <= 3
    with Image.open(path) as image:
        if name == "a.png":
            text = image.text["parameters"]
        else:
            comment = image.getexif().get_ifd(0x8769)[0x9286]
            assert comment[:8] == b"UNICODE\0"
            text = comment[8:].decode("utf-16-be")
    assert text == parameters(RECORD)


def test_parameters_read_as_galleries_expect_them():
    assert parameters(RECORD) == (
        "a fox 狐\nNegative prompt: blurry\n"
        "Steps: 20, Sampler: unipc, CFG scale: 5, Seed: 7, Size: 64x32, "
        "Model: kinema/embedded, Version: kinema 0.1.0"
    )


def test_a_schedule_does_not_split_the_parameters():
    record = Record({"prompt": "a fox", "guidance": "0:(1), 30:(2)", "width": None, "height": None})
    assert parameters(record) == 'a fox\nCFG scale: "0:(1), 30:(2)", Version: kinema'


def test_png_is_lossless_and_nothing_is_overwritten_unasked(tmp_path):
    path = write_image(tmp_path / "a.png", RAMP)
    assert np.array_equal(read_image(path), RAMP)
    assert read_record(path) is None
    with pytest.raises(MediaError, match="exists"):
        write_image(path, RAMP)
    write_image(path, RAMP[:2], overwrite=True)
    assert read_image(path).shape == (2, 4, 3)
    assert names(tmp_path) == ["a.png"]
