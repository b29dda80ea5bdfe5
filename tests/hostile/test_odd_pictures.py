"""Pictures as they come: the right pixels by a written rule, or one line before anything is unpacked."""

import resource
import zlib

import numpy as np
import pytest
from odd_pictures import apng_with_stand_in, chunk, gif, jpeg, many_scans, pixel, png, sixteen_bit_rgb, webp
from patch_clips import patch_error, patches, position
from PIL import Image, ImageCms

from kinema.core.errors import MediaError
from kinema.io.image import read_image
from kinema.io.video_read import open_video

PICTURE = Image.fromarray(next(patches(1)))
LAB = ImageCms.profileToProfile(
    PICTURE, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
)
MODES = {
    "cmyk.jpg": (PICTURE.convert("CMYK"), {"quality": 95}, 3),
    "cmyk.tif": (PICTURE.convert("CMYK"), {}, 0),
    "ycbcr.tif": (PICTURE.convert("YCbCr"), {}, 3),
    "lab.tif": (LAB, {}, 32),  # 8-bit LAB itself is that coarse for saturated colours
    "palette.png": (PICTURE.convert("P"), {}, 0),
    "palette.gif": (PICTURE, {}, 0),
    "a.bmp": (PICTURE, {}, 0),
    "a.ppm": (PICTURE, {}, 0),
    "a.tga": (PICTURE, {}, 0),
    "a.jp2": (PICTURE, {}, 0),
    "a.avif": (PICTURE, {"quality": 100, "subsampling": "4:4:4"}, 4),
    "pages.tif": (PICTURE, {"save_all": True, "append_images": [Image.new("RGB", (9, 9))]}, 0),
    "mpo.jpg": (PICTURE, {"format": "MPO", "save_all": True, "append_images": [PICTURE], "quality": 95}, 3),
    "broken-exif.jpg": (PICTURE, {"exif": b"Exif\0\0II*\0\xff\xff\xff\xff", "subsampling": 0}, 3),
}  # fmt: skip


@pytest.mark.parametrize("name", MODES)
def test_every_mode_shows_the_same_picture(tmp_path, name, recwarn):
    image, options, error = MODES[name]
    image.save(tmp_path / name, **options)
    pixels = read_image(tmp_path / name)
    assert pixels.shape == (64, 192, 3)
    assert patch_error(pixels) <= error
    if not name.endswith(".tga"):  # which has no magic bytes
        assert open_video(tmp_path / name).read([0]).shape == (1, 64, 192, 3)
    assert not recwarn.list


def test_gray_of_lab_is_gray(tmp_path):
    gray = Image.new("RGB", (2, 2), (30, 60, 90))
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    ImageCms.profileToProfile(gray, srgb, lab, outputMode="LAB").save(tmp_path / "a.tif")
    assert abs(read_image(tmp_path / "a.tif")[0, 0].astype(int) - (30, 60, 90)).max() <= 2


def test_one_bit_and_sixteen(tmp_path):
    Image.new("1", (5, 3), 1).save(tmp_path / "a.tif", compression="group4")
    assert (read_image(tmp_path / "a.tif") == 255).all()
    (tmp_path / "a.png").write_bytes(sixteen_bit_rgb([65535, 32768, 0, 4096, 257, 128]))
    assert abs(read_image(tmp_path / "a.png")[0].astype(int) - [[255, 128, 0], [16, 1, 0]]).max() <= 1


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "avif"])
def test_animations_are_clips(tmp_path, suffix):
    first, *rest = map(Image.fromarray, patches(4))
    options = {"lossless": True} if suffix == "webp" else {"quality": 95} if suffix == "avif" else {}
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=rest, duration=100, **options)
    reader = open_video(tmp_path / f"a.{suffix}")
    assert (reader.frames, reader.fps) == (4, 10)
    assert [position(frame) for frame in reader] == [0, 1, 2, 3]


def test_a_stand_in_picture_is_no_frame(tmp_path):
    (tmp_path / "a.png").write_bytes(apng_with_stand_in())
    reader = open_video(tmp_path / "a.png")
    assert (reader.frames, reader.fps) == (2, 5)
    assert [frame[0, 0].tolist() for frame in reader] == [[255, 0, 0], [0, 255, 0]]


BOMBS = {
    "zeros.png": (lambda: png(10_100, 10_000, 1, 0, bytes(10_000 * 1264)), "100 megapixels"),
    "claim.png": (lambda: png(2**31 - 1, 2**31 - 1, 1, 0, b""), "100 megapixels"),
    "claim.webp": (lambda: webp(16383, 16383), "100 megapixels"),
    "claim.gif": (lambda: gif(1, 9, 9).replace(b"\x09\0\x09\0", b"\xff\xff\xff\xff", 1), "100 megapixels"),
    "text.png": (
        lambda: pixel(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(60_000_000)))),
        "unpack to many",
    ),
    "texts.png": (
        lambda: pixel(*[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(900_000)))] * 100),
        "unpack to many",
    ),
    "icc.png": (lambda: pixel(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(60_000_000)))), "unpack to many"),
    "scans.jpg": (lambda: many_scans(250_000), "scans"),
    "nothing.png": (lambda: png(0, 0, 1, 0, b""), "no picture"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_do_not_go_off(tmp_path, name):
    make, match = BOMBS[name]
    (tmp_path / name).write_bytes(make())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (read_image, lambda path: list(open_video(path))):
        with pytest.raises(MediaError, match=match) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_animations_are_bounded_in_frames_and_in_pixels(tmp_path, monkeypatch):
    (tmp_path / "a.gif").write_bytes(gif(30, 10, 10))
    assert open_video(tmp_path / "a.gif").frames == 30
    monkeypatch.setattr("kinema.io.picture_read._MAX_PIXELS_ALL", 2999)
    with pytest.raises(MediaError, match="30 frames of 10x10, above 2,999 pixels in all; convert it to MP4"):
        open_video(tmp_path / "a.gif")
    monkeypatch.setattr("kinema.io.picture_read._MAX_FRAMES", 29)
    with pytest.raises(MediaError, match="30 frames; the limit is 29"):
        open_video(tmp_path / "a.gif")


NOT_PICTURES = {
    "a.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>', "SVG"),
    "b.png": (b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><svg/>', "SVG"),
    "c.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n/x (a) run\n", "PostScript"),
    "d.jpg": (b"%PDF-1.4\n", "PDF"),
    "e.png": (b"8BPS" + bytes(99), "Photoshop"),
    "f.png": (b"\x76\x2f\x31\x01" + bytes(99), "OpenEXR"),
    "g.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "HEIC"),
    "h.png": (b"PK\3\4" + bytes(99), "zip"),
    "i.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "j.mp4": (b"ffconcat version 1.0\nfile /etc/passwd\n", "list of files"),
    "k.mp4": (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "playlist"),
    "l.mp4": (b"<MPD xmlns='urn:mpeg:dash:schema:mpd:2011'/>", "manifest"),
    "m.mp4": (b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n", "session description"),
    "n.mp4": (b"<html></html>", "give"),
}


@pytest.mark.parametrize("name", NOT_PICTURES)
def test_what_is_no_picture_and_no_clip_is_named(tmp_path, name):
    content, match = NOT_PICTURES[name]
    (tmp_path / name).write_bytes(content)
    for read in (read_image, open_video):
        with pytest.raises(MediaError, match=match):
            read(tmp_path / name)


def test_a_video_is_no_picture(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\0\0\0\x18ftypisom" + bytes(99))
    with pytest.raises(MediaError, match="it is a video; give a picture"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "bmp", "avif", "gif"])
def test_cut_off_pictures(tmp_path, suffix, cut):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * cut)])
    with pytest.raises(MediaError, match="cannot read"):
        read_image(path)


def test_an_unknown_orientation_and_an_unfit_profile_are_passed_over(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 9
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    (tmp_path / "a.jpg").write_bytes(jpeg(exif=exif, icc_profile=lab))
    assert patch_error(read_image(tmp_path / "a.jpg")) <= 3
