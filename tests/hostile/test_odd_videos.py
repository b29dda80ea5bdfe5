"""Videos as they come: the right frames by a written rule, or one line. See docs/input-media.md."""

import os
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from odd_videos import SIZE, UNTAGGED, X264, combed, encode, flat, half_transparent, tagged, tool, y4m
from patch_clips import patch_error, position

from kinema.core.errors import MediaError
from kinema.io import ffmpeg
from kinema.io.probe import Stream
from kinema.io.tone import pq_encode, srgb_encode
from kinema.io.video_read import open_video


def frames_of(path):
    reader = open_video(path)
    frames = list(reader)
    assert len(frames) == reader.frames
    return reader, frames


def refused(path, *parts):
    with pytest.raises(MediaError) as caught:
        frames_of(path)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


PIXELS = {
    "601": tagged("yuv420p", "bt601"),
    "601 full": tagged("yuv420p", "bt601", full=True),
    "709 full": tagged("yuv420p", "bt709", full=True),
    "2020 matrix": tagged("yuv420p", "bt2020"),
    "422": tagged("yuv422p", "bt709"),
    "444": tagged("yuv444p", "bt709"),
    "420 10 bit": tagged("yuv420p10le", "bt709"),
    "422 10 bit full": tagged("yuv422p10le", "bt709", full=True),
    "untagged small": f"scale=out_color_matrix=bt601:out_range=tv,format=yuv420p,{UNTAGGED}",
    "rgb": "format=gbrp",
}


@pytest.mark.parametrize("chain", PIXELS.values(), ids=PIXELS)
def test_range_matrix_depth_and_chroma(tmp_path, chain):
    codec = ("-c:v", "ffv1") if "gbrp" in chain else X264
    path = encode(tmp_path / ("a.mkv" if "gbrp" in chain else "a.mp4"), "-vf", chain, *codec)
    reader, frames = frames_of(path)
    assert reader.size == SIZE
    assert [position(frame) for frame in frames] == list(range(8))
    assert max(patch_error(frame) for frame in frames) <= 3


def test_an_untagged_large_clip_is_taken_for_bt709(tmp_path):
    chain = (
        f"scale=1920:640:flags=neighbor,scale=out_color_matrix=bt709:out_range=tv,format=yuv420p,{UNTAGGED}"
    )
    _, frames = frames_of(encode(tmp_path / "a.mp4", "-vf", chain, *X264, count=1))
    assert patch_error(frames[0][5::10, 5::10]) <= 3


@pytest.mark.parametrize(
    ("pixels", "suffix"), [("nv12", "avi"), ("uyvy422", "mov"), ("yuyv422", "avi"), ("uyvy422", "avi")]
)
def test_so_is_an_untagged_large_clip_of_packed_pixels(tmp_path, pixels, suffix):
    chain = f"scale=1920:640:flags=neighbor,scale=out_color_matrix=bt709:out_range=tv,format={pixels}"
    path = encode(tmp_path / f"a.{suffix}", "-vf", f"{chain},{UNTAGGED}", "-c:v", "rawvideo", count=1)
    _, frames = frames_of(path)
    assert patch_error(frames[0][5::10, 5::10]) <= 3


OTHERS = {
    "prores422.mov": ("-pix_fmt", "yuv422p10le", "-c:v", "prores_ks"),
    "a.avi": ("-c:v", "mjpeg", "-q:v", "1", "-pix_fmt", "yuvj444p"),
    "hevc.mp4": (*("-vf", tagged("yuv420p10le", "bt709")), *("-c:v", "libx265", "-crf", "4"),
                 *("-preset", "ultrafast", "-x265-params", "log-level=error:pools=1")),
    "a.ogv": ("-c:v", "libtheora", "-q:v", "10"),
    "a.wmv": ("-c:v", "wmv2", "-q:v", "1"),
    "vp8.webm": ("-c:v", "libvpx", "-crf", "4", "-b:v", "5M"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_codecs(tmp_path, name):
    _, frames = frames_of(encode(tmp_path / name, *OTHERS[name]))
    assert [position(frame) for frame in frames] == list(range(8))
    assert max(patch_error(frame) for frame in frames) <= 4


ALPHA = {
    "vp9.webm": (
        "-pix_fmt",
        "yuva420p",
        "-c:v",
        "libvpx-vp9",
        "-crf",
        "5",
        "-b:v",
        "0",
        "-auto-alt-ref",
        "0",
    ),
    "prores.mov": (
        "-pix_fmt",
        "yuva444p10le",
        "-c:v",
        "prores_ks",
        "-profile:v",
        "4444",
        "-alpha_bits",
        "16",
    ),
    "qtrle.mov": ("-c:v", "qtrle", "-pix_fmt", "argb"),
    "png.mov": ("-c:v", "png", "-pix_fmt", "rgba"),
    "ffv1.mkv": ("-c:v", "ffv1", "-pix_fmt", "bgra"),
}


@pytest.mark.parametrize("name", ALPHA)
def test_transparency_is_laid_on_black(tmp_path, name):
    path = encode(tmp_path / name, *ALPHA[name], data=half_transparent(), pixels="rgba")
    _, frames = frames_of(path)
    assert [position(frame) for frame in frames] == [0, 1, 2, 3]
    assert max(int(frame[36:].max()) for frame in frames) <= 2  # the hidden colour does not show
    assert abs(frames[0][20, 16].astype(int) - (255, 0, 0)).max() <= 4


def test_interlaced_clips_are_deinterlaced(tmp_path):
    woven = combed()
    chain = "setfield=tff,format=yuv420p"
    path = encode(tmp_path / "a.mp4", "-vf", chain, *X264, "-flags", "+ildct+ilme", "-x264-params", "tff=1",
                  data=woven, size=(64, 32))  # fmt: skip
    _, frames = frames_of(path)
    plain = np.frombuffer(woven, np.uint8).reshape(-1, 32, 64, 3)
    combs = [
        abs(np.diff(np.asarray(clip)[2, 4:-4, :, 1].astype(int), axis=0)).mean() for clip in (plain, frames)
    ]
    assert len(frames) == 6
    assert combs[1] < combs[0] / 4


def test_one_pixel_and_very_wide(tmp_path):
    red = bytes([255, 0, 0])
    _, frames = frames_of(
        encode(tmp_path / "a.mkv", "-c:v", "ffv1", "-slices", "1", size=(1, 1), data=red * 3)
    )
    assert [frame.tolist() for frame in frames] == [[[[255, 0, 0]]]] * 3
    wide = encode(tmp_path / "b.mkv", "-c:v", "ffv1", size=(16384, 2), data=red * 16384 * 2)
    assert (frames_of(wide)[1][0] == (255, 0, 0)).all()
    refused(
        encode(tmp_path / "c.mkv", "-c:v", "ffv1", size=(16386, 2), data=red * 16386 * 2), "16386x2", "16384"
    )


def test_a_clip_that_changes_its_size_keeps_the_first(tmp_path):
    for name, chain in (("1.ts", ""), ("2.ts", "scale=96:32:flags=neighbor,")):
        encode(tmp_path / name, "-vf", chain + tagged("yuv420p", "bt709"), *X264)
    (tmp_path / "a.ts").write_bytes((tmp_path / "1.ts").read_bytes() + (tmp_path / "2.ts").read_bytes())
    reader, frames = frames_of(tmp_path / "a.ts")
    assert reader.size == SIZE
    assert [position(frame) for frame in frames] == 2 * list(range(8))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return encode(tmp_path_factory.mktemp("clip") / "a.mp4", "-vf", tagged("yuv420p", "bt709"), *X264)


def test_covers_are_not_clips(clip, tmp_path):
    tool("-f", "lavfi", "-i", "color=red:s=64x64:d=0.04", "-frames:v", "1", tmp_path / "c.jpg")
    covered = ("-map", "0", "-map", "1", "-c", "copy")
    tool(
        "-i", tmp_path / "c.jpg", "-i", clip, *covered, "-disposition:v:0", "attached_pic", tmp_path / "a.mp4"
    )
    reader, frames = frames_of(tmp_path / "a.mp4")
    assert (reader.size, [position(frame) for frame in frames]) == (SIZE, list(range(8)))
    tool("-i", clip, "-attach", tmp_path / "c.jpg", "-metadata:s:t", "mimetype=image/jpeg", "-c", "copy",
         tmp_path / "a.mkv")  # fmt: skip
    assert len(frames_of(tmp_path / "a.mkv")[1]) == 8
    tool("-f", "lavfi", "-i", "sine=d=0.2", tmp_path / "s.m4a")
    tool("-i", tmp_path / "s.m4a", "-i", tmp_path / "c.jpg", *covered, "-disposition:v:0", "attached_pic",
         tmp_path / "song.m4a")  # fmt: skip
    refused(tmp_path / "song.m4a", "only picture is a cover")
    refused(tmp_path / "s.m4a", "no picture stream")


def test_late_and_early_starts(clip, tmp_path):
    tool("-itsoffset", "100000", "-i", clip, "-c", "copy", tmp_path / "late.mkv")
    reader, frames = frames_of(tmp_path / "late.mkv")
    assert (reader.times[0], len(frames)) == (0, 8)
    assert reader.duration == pytest.approx(1 / 3, abs=1e-3)
    tool(
        "-itsoffset", "-5", "-i", clip, "-c", "copy", "-avoid_negative_ts", "disabled", tmp_path / "early.mp4"
    )
    refused(tmp_path / "early.mp4", "shows 0 frames")


def test_rates(tmp_path):
    for header in (b"W16 H16 F0:1 Ip C444", b"W16 H16 F1:0 Ip C444", b"W16 H16 F0:0 C444", b"W16 H16 C444"):
        reader, frames = frames_of(y4m(tmp_path / "a.y4m", header))
        assert (reader.fps, len(frames)) == (25, 2)  # no rate: 25, as ffmpeg has it
    for rate in (b"2147483647:1", b"1:2147483647", b"1:3600", b"90000:1"):
        refused(y4m(tmp_path / "a.y4m", b"W16 H16 F%s Ip C444" % rate), "frames a second is not 0.1 to 1000")
    for size in (b"W100000 H100000", b"W-16 H16", b"W16 H0"):
        refused(y4m(tmp_path / "a.y4m", size + b" F24:1 C444"), "cannot read")
    refused(y4m(tmp_path / "a.y4m", b"W16 H16 F24:1 C444 " + b"X" * 100_000), "cannot read")
    path = encode(tmp_path / "a.mp4", "-vf", "format=yuv420p", *X264, rate="60000/1001")
    assert open_video(path).fps == Fraction(60000, 1001)


GRAYS = np.array([[1.0] * 3, [0.5] * 3, [0.25] * 3])


def hdr(path, codes, transfer, primaries="bt2020", codec=("-c:v", "ffv1"), pixels="yuv444p12le"):
    data, size = flat(codes)
    chain = (
        f"scale=out_color_matrix=bt2020:out_range=tv:flags=accurate_rnd,format={pixels},"
        f"setparams=colorspace=bt2020nc:color_primaries={primaries}:color_trc={transfer}:range=tv"
    )
    return encode(path, "-vf", chain, *codec, data=data, size=size, pixels="rgb48le")


@pytest.mark.parametrize("kind", ["mkv", "mp4"])
def test_pq_is_shown_on_a_screen_of_203_nits(tmp_path, kind):
    light = np.array([[20.3] * 3, [1000] * 3, [0] * 3, [60, 30, 15]])
    x265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error:pools=1:lossless=1")
    codec, pixels = (("-c:v", "ffv1"), "yuv444p12le") if kind == "mkv" else (x265, "yuv420p10le")
    path = hdr(tmp_path / f"a.{kind}", pq_encode(light), "smpte2084", "bt709", codec, pixels)
    _, frames = frames_of(path)
    shown = frames[1][8, 8::16].astype(int)
    assert abs(shown - 255 * srgb_encode(np.minimum(light / 203, 1))).max() <= 3


def test_hlg_and_wide_sdr(tmp_path):
    _, frames = frames_of(hdr(tmp_path / "a.mkv", [[0.75] * 3, [0] * 3, [1] * 3], "arib-std-b67"))
    assert abs(frames[0][8, 8::16].astype(int) - [[228] * 3, [0] * 3, [255] * 3]).max() <= 1
    # BT.709's green in BT.2020's primaries, as BT.2087 has it
    green = srgb_encode(np.array([[0.3293, 0.9195, 0.0880]]))
    _, frames = frames_of(hdr(tmp_path / "b.mkv", green, "bt709"))
    assert abs(frames[0][8, 8].astype(int) - (0, 255, 0)).max() <= 3


def test_colours_without_a_conversion_are_named(tmp_path):
    path = hdr(tmp_path / "a.mkv", GRAYS, "log100")
    refused(path, "colour transfer 'log100'", "convert it to BT.709")
    path = hdr(tmp_path / "a.mkv", GRAYS, "smpte2084", "film")
    refused(path, "colour primaries 'film'")


def test_the_log_of_ffmpeg_is_read_as_it_is_written():
    line = (
        "  Stream #0:1[0x2](und): Video: hevc (Main 10) (hvc1 / 0x31637668), "
        "yuv420p10le(tv, bt2020nc/bt2020/arib-std-b67, top first), 1920x1080, 30 fps, 30 tbr (default)"
    )
    found = Stream.find(f"  Stream #0:0: Video: mjpeg, yuvj420p(pc), 9x9 (attached pic)\n{line}\n")
    assert (found.codec, found.pixels, found.interlaced, found.alpha) == ("hevc", "yuv420p10le", True, False)
    assert (found.colour.primaries, found.colour.transfer) == ("bt2020", "arib-std-b67")
    assert found.mean_rate == 30
    assert Stream.find("    title: \n          : Stream #0:0: Video: fake, rgb24, 1x1\n") is None


def test_a_million_samples_in_four_kilobytes(clip, tmp_path):
    """An MP4 whose table says that there are 2^31 frames of one byte each."""
    data = bytearray(clip.read_bytes())
    at = data.index(b"stsz")
    data[at + 8 : at + 16] = struct.pack(">II", 1, 2**31 - 1)
    at = data.index(b"stts")
    data[at + 12 : at + 16] = struct.pack(">I", 2**31 - 1)
    (tmp_path / "a.mp4").write_bytes(data)
    refused(tmp_path / "a.mp4", "a.mp4")


def test_a_file_that_grows_while_it_is_read(clip, tmp_path):
    for name in ("a.mp4", "a.ts"):
        tool("-i", clip, "-c", "copy", tmp_path / name)
        reader = iter(open_video(tmp_path / name))
        next(reader)
        with (tmp_path / name).open("ab") as file:
            file.write(bytes(188))
        os.utime(tmp_path / name, ns=(1, 1))
        with pytest.raises(MediaError, match="changed while it was read"):
            list(reader)


def test_a_decoder_that_hangs_is_stopped(clip, monkeypatch, tmp_path):
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\nexec sleep 60\n")
    fake.chmod(0o755)
    monkeypatch.setattr(ffmpeg, "executable", lambda: str(fake))
    with pytest.raises(MediaError, match="no answer within 0 s"):
        ffmpeg.run(["-i", "x"], seconds=0.2)
    monkeypatch.setattr(ffmpeg, "STALL", 0.2)
    with pytest.raises(MediaError, match="gave nothing"):
        list(ffmpeg.frames([], (2, 2, 3), np.uint8, clip))


def test_a_decoder_is_bounded_in_memory(tmp_path):
    if sys.platform != "linux":
        pytest.skip("Linux only")
    from kinema.io.watchdog import limit_resources

    with subprocess.Popen(["sleep", "30"], stdin=subprocess.DEVNULL) as child:
        limit_resources(child)
        limits = Path(f"/proc/{child.pid}/limits").read_text()
        child.kill()
    data = next(line for line in limits.splitlines() if line.startswith("Max data size"))
    assert int(data.split()[3]) <= 4 << 30


def test_escape_codes_in_tags_reach_no_terminal(clip, tmp_path):
    title = "title=\x1b[31mred\x1b]0;x\x07\nStream #0:9: Video: rgb"
    tool("-f", "lavfi", "-i", "sine=d=0.1", "-metadata", title, tmp_path / "a.mp4")
    with pytest.raises(MediaError) as caught:
        open_video(tmp_path / "a.mp4")
    assert str(caught.value).isprintable()
