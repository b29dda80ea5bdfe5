import os
import struct
import tracemalloc
from fractions import Fraction

import av
import imageio_ffmpeg
import numpy as np
import pytest
from patch_clips import names, patch_error, patches, position

from kinema.core.contracts import Record
from kinema.core.errors import ConfigError, KinemaError, MediaError
from kinema.io.record import parse_record, read_record, record_text
from kinema.io.video_read import open_video
from kinema.io.video_write import check_output, parse_fps, write_video

VIDEO = [".mp4", ".mov", ".webm", ".mkv"]
FORMATS = [*VIDEO, ".gif", ".webp"]
RECORD = Record(
    {"prompt": 'un renard 狐 🦊 = ; # \\ \n \x00 \ud800 <&">', "seed": 7}, {"id": "m"}, {"kinema": "0.1"}
)
OTHER = Record({"prompt": "a wolf"})
BIG = Record({"prompt": "狐" * 1000, "notes": "x=;#\\\n" * 34_000})


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_back_count_rate_size_order_and_colours(tmp_path, suffix):
    path = write_video(tmp_path / f"a{suffix}", patches(7), fps=24, size=(192, 64))
    reader = open_video(path)
    frames = list(reader)
    assert (reader.frames, len(frames), reader.fps, reader.size) == (7, 7, 24, (192, 64))
    assert [position(frame) for frame in frames] == list(range(7))
    assert max(patch_error(frame) for frame in frames) <= 2


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".webm"])
def test_pyav_reads_the_tags_that_players_go_by(tmp_path, suffix):
    path = write_video(tmp_path / f"a{suffix}", patches(5), fps="30000/1001")
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        frames = list(file.decode(stream))
        context = stream.codec_context
        assert len(frames) == 5
        assert stream.average_rate == Fraction(30000, 1001)
        assert frames[0].format.name == "yuv420p"
        # 1 is BT.709 for primaries, transfer and matrix, and MPEG (limited) for the range
        assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (
            1,
            1,
            1,
            1,
        )
        assert max(patch_error(frame.to_ndarray(format="rgb24")) for frame in frames) <= 2


def test_imageio_reads_the_same_colours(tmp_path):
    path = write_video(tmp_path / "a.mp4", patches(4), fps=12)
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    frames = [np.frombuffer(data, np.uint8).reshape(64, 192, 3) for data in reader]
    assert meta["fps"] == 12
    assert meta["size"] == (192, 64)
    assert len(frames) == 4
    assert max(patch_error(frame) for frame in frames) <= 2


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_the_index_stands_before_the_pictures_so_that_browsers_start_at_once(tmp_path, suffix):
    data = write_video(tmp_path / f"a{suffix}", patches(3), fps=24, record=BIG).read_bytes()
    boxes, at = [], 0
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        boxes.append(kind)
        at += length
    assert boxes.index(b"moov") < boxes.index(b"mdat")


@pytest.mark.parametrize("record", [RECORD, BIG], ids=["signs", "200kB"])
@pytest.mark.parametrize(
    "name", [*(f"a{suffix}" for suffix in FORMATS), "one.webp", "a.png", "a.jpg", "s/%d.png"]
)
def test_the_record_comes_back_from_every_format(tmp_path, name, record):
    count = 1 if name in ("a.png", "a.jpg", "one.webp") else 3
    path = write_video(tmp_path / name, patches(count), fps=24, record=record)
    found = path.parent if "%" in name else path
    assert read_record(found) == record
    assert open_video(found).frames == count


def test_the_comment_and_title_are_there_for_other_programs(tmp_path):
    path = write_video(tmp_path / "a.mp4", patches(1), fps=24, record=Record({"prompt": "a fox " * 50}))
    with av.open(str(path)) as file:
        assert file.metadata["comment"] == file.metadata["kinema"]
        assert file.metadata["title"] == ("a fox " * 50)[:120]


def test_odd_sizes_are_padded_by_a_copied_pixel_with_a_note_where_420_needs_it(tmp_path):
    notes = []
    frames = [frame[:63, :191] for frame in patches(3)]
    path = write_video(tmp_path / "odd.mp4", frames, fps=24, on_note=notes.append)
    assert open_video(path).size == (192, 64)
    assert len(notes) == 1
    assert "191x63" in notes[0]
    assert "192x64" in notes[0]
    last = open_video(path).read([1])[0].astype(int)
    assert abs(last[40, 191] - (0, 255, 255)).max() <= 6
    assert abs(last[63, 16] - (255, 0, 0)).max() <= 6


@pytest.mark.parametrize("suffix", [".webm", ".mkv", ".gif", ".webp"])
def test_odd_sizes_stay_exact_where_the_format_can(tmp_path, suffix):
    notes = []
    frames = [frame[:63, :191] for frame in patches(3)]
    path = write_video(tmp_path / f"odd{suffix}", frames, fps=24, on_note=notes.append)
    assert open_video(path).size == (191, 63)
    assert notes == []


def test_prores_and_ffv1_keep_alpha_and_mp4_says_that_it_drops_it(tmp_path):
    def half():
        for frame in patches(2, channels=4):
            frame[40:, :, 3] = 0
            frame[:40, :, 3] = 255
            yield frame

    for name in ("a.mov", "a.mkv"):
        with av.open(str(write_video(tmp_path / name, half(), fps=24))) as file:
            alpha = next(file.decode(video=0)).to_ndarray(format="rgba")[..., 3]
        assert alpha[:39].min() == 255
        assert alpha[41:].max() == 0
    notes = []
    path = write_video(tmp_path / "a.mp4", half(), fps=24, on_note=notes.append)
    assert len(notes) == 1
    assert "black" in notes[0]
    assert open_video(path).read([0])[0, 52:].max() <= 2


def test_ffv1_is_lossless(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (3, 17, 23, 3), dtype=np.uint8)
    path = write_video(tmp_path / "a.mkv", frames, fps=24)
    assert np.array_equal(open_video(path).read(range(3)), frames)


def test_a_sequence_is_one_lossless_png_per_frame_and_replaces_a_longer_one(tmp_path):
    target = tmp_path / "shots" / "%04d.png"
    write_video(target, patches(5), fps=24)
    (tmp_path / "shots" / "notes.txt").write_text("mine")
    with pytest.raises(MediaError, match="already holds frames"):
        write_video(target, patches(2), fps=24)
    write_video(target, patches(2), fps=24, overwrite=True)
    assert names(tmp_path / "shots") == ["0001.png", "0002.png", "notes.txt"]
    assert np.array_equal(open_video(tmp_path / "shots").read([1])[0], list(patches(2))[1])


@pytest.mark.parametrize(
    "name", ["-y.mp4", "concat:a|b.mp4", "100%d.mp4", "a:b.mp4", "it's \n two.mp4", "狐.MP4"]
)
def test_a_name_is_a_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_video(name, patches(2), fps=24, record=RECORD)
    assert names(tmp_path) == [name]
    assert open_video(name).frames == 2
    assert read_record(name) == RECORD


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".gif", ".webp"])
def test_the_same_frames_give_the_same_bytes(tmp_path, suffix):
    one = write_video(tmp_path / f"1{suffix}", patches(4), fps=24, record=RECORD).read_bytes()
    assert write_video(tmp_path / f"2{suffix}", patches(4), fps=24, record=RECORD).read_bytes() == one


def breaks_after(count, error):
    yield from patches(count)
    raise error


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.png", "s/%d.png"])
@pytest.mark.parametrize("error", [ValueError("mid-way"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_nothing_is_left_when_the_frames_break_off(tmp_path, name, error):
    with pytest.raises(type(error)):
        write_video(tmp_path / name, breaks_after(1 if name == "a.png" else 5, error), fps=24)
    assert names(tmp_path) == []


def test_an_older_file_survives_a_failed_overwrite(tmp_path):
    path = write_video(tmp_path / "a.mp4", patches(2), fps=24)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="mid-way"):
        write_video(path, breaks_after(3, ValueError("mid-way")), fps=24, overwrite=True)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["a.mp4"]


def test_a_dying_encoder_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    liar = tmp_path / "ffmpeg"
    liar.write_text("#!/bin/sh\necho 'No space left on device' >&2\nexit 228\n")
    liar.chmod(0o755)
    monkeypatch.setattr("kinema.io.ffmpeg.executable", lambda: str(liar))
    (tmp_path / "out").mkdir()
    with pytest.raises(MediaError, match=r"cannot write .*a\.mp4.*No space left on device"):
        write_video(tmp_path / "out" / "a.mp4", patches(200), fps=24)
    assert names(tmp_path / "out") == []


def test_a_folder_that_takes_no_files_is_refused_before_the_first_frame():
    with pytest.raises(MediaError, match="cannot write in '/proc'"):
        write_video("/proc/a.mp4", never(), fps=24)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (17, 5)])
@pytest.mark.parametrize("suffix", FORMATS)
def test_the_smallest_sizes_work(tmp_path, suffix, size):
    frames = np.full((2, size[1], size[0], 3), 90, np.uint8)
    reader = open_video(write_video(tmp_path / f"a{suffix}", frames, fps=24))
    even = tuple(side + side % 2 for side in size)
    assert reader.size == (even if suffix in (".mp4", ".mov") else size)
    assert abs(next(iter(reader)).astype(int) - 90).max() <= 2


@pytest.mark.parametrize("size", [(353, 16), (16, 289), (1280, 720), (7680, 16)])
@pytest.mark.parametrize("suffix", [".mkv", ".gif"])
def test_lossless_frames_have_as_many_slices_as_their_size_asks_for(tmp_path, suffix, size):
    frames = np.full((1, size[1], size[0], 3), 90, np.uint8)
    reader = open_video(write_video(tmp_path / f"a{suffix}", frames, fps=24))
    assert reader.size == size
    assert np.array_equal(next(iter(reader)), frames[0])


def never():
    raise AssertionError("a frame was drawn")
    yield


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.mp5", {}, "unknown file suffix '.mp5'"),
        ("a", {}, "has no suffix"),
        ("there.mp4", {}, "exists"),
        ("there.png", {}, "exists"),
        ("folder.mp4", {"overwrite": True}, "not a regular file"),
        ("fifo.mp4", {"overwrite": True}, "not a regular file"),
        ("no/where/a.mp4", {}, "does not exist"),
        ("no/where/%d.png", {}, "does not exist"),
        ("s/%d%d.png", {}, "no numbered name"),
        ("a.mp4", {"fps": 0}, "out of range"),
        ("a.mp4", {"fps": -24}, "out of range"),
        ("a.mp4", {"fps": float("nan")}, "no frame rate"),
        ("a.mp4", {"fps": float("inf")}, "no frame rate"),
        ("a.mp4", {"fps": "24/0"}, "no frame rate"),
        ("a.mp4", {"fps": "fast"}, "no frame rate"),
        ("a.gif", {"fps": 60}, "GIF"),
        ("a.mp4", {"quality": "hihg"}, "Did you mean 'high'"),
        ("a.mp4", {"quality": "lossless"}, "mkv"),
        ("a.jpg", {"quality": "lossless"}, "png"),
        ("a.mp4", {"codec": "vp9"}, "unknown codec"),
        ("a.png", {"codec": "h264"}, "leave it out"),
        ("a.mp4", {"record": Record({"prompt": "x" * (5 << 20)})}, "at most"),
        ("a.mp4", {"record": RECORD, "sidecar": True}, "a.mp4.json' exists"),
        (
            "b.mp4",
            {"record": RECORD, "sidecar": True, "overwrite": True},
            "b.mp4.json' is no record of kinema's; move it away",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_frame(tmp_path, name, options, message):
    for there in ("there.mp4", "there.png", "a.mp4.json", "b.mp4.json"):
        (tmp_path / there).write_bytes(b"mine")
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "fifo.mp4")
    before = names(tmp_path)
    with pytest.raises(KinemaError, match=message) as caught:
        write_video(tmp_path / name, never(), **{"fps": 24, **options})
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == before


@pytest.mark.parametrize(
    ("frames", "size", "message"),
    [
        ([], None, "no frames"),
        ([np.zeros((8, 8, 3))], None, "float64"),
        ([np.zeros((8, 8), np.uint8)], None, r"\[8, 8\]"),
        (["frame"], None, "str"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 10, 3), np.uint8)], None, "frame 1"),
        ([np.zeros((8, 8, 3), np.uint8)], (8, 10), "size=8x10"),
    ],
)
def test_frames_that_are_no_clip_are_named_and_leave_nothing(tmp_path, frames, size, message):
    with pytest.raises(MediaError, match=message):
        write_video(tmp_path / "a.mp4", frames, fps=24, size=size)
    assert names(tmp_path) == []


def test_a_png_holds_one_frame_only(tmp_path):
    with pytest.raises(MediaError, match="one frame"):
        write_video(tmp_path / "a.png", patches(2), fps=24)
    assert names(tmp_path) == []


def test_memory_does_not_grow_with_length(tmp_path):
    def peak(count):
        frame = np.zeros((64, 64, 3), np.uint8)
        tracemalloc.start()
        write_video(tmp_path / f"{count}.mp4", (frame.copy() for _ in range(count)), fps=24)
        grown = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return grown

    peak(2)
    assert peak(800) - peak(20) < 20 * 64 * 64 * 3  # 780 more frames, of which fewer than 20 would be held


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (24, Fraction(24)),
        (23.976, Fraction(24000, 1001)),
        ("29.97", Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)),
        ("30000/1001", Fraction(30000, 1001)),
        (12.5, Fraction(25, 2)),
        (Fraction(1, 3), Fraction(1, 3)),
        (8.0, Fraction(8)),
    ],
)
def test_rates_are_rational(given, meant):
    assert parse_fps(given) == meant


def test_a_sidecar_holds_the_record(tmp_path):
    write_video(tmp_path / "a.mp4", patches(1), fps=24, record=RECORD, sidecar=True)
    assert names(tmp_path) == ["a.mp4", "a.mp4.json"]
    assert read_record(tmp_path / "a.mp4.json") == RECORD
    stripped = write_video(tmp_path / "b.mp4", patches(1), fps=24)
    assert read_record(stripped) is None
    (tmp_path / "a.mp4.json").rename(tmp_path / "b.mp4.json")
    assert read_record(stripped) == RECORD
    assert read_record(write_video(tmp_path / "b.webm", patches(1), fps=24)) is None
    write_video(stripped, patches(1), fps=24, record=OTHER, sidecar=True, overwrite=True)
    assert read_record(tmp_path / "b.mp4.json") == OTHER


def test_a_sidecar_of_earlier_versions_is_read_where_one_clip_has_its_name(tmp_path):
    (tmp_path / "a.json").write_text(record_text(RECORD))
    assert read_record(write_video(tmp_path / "a.mp4", patches(1), fps=24)) == RECORD
    assert read_record(write_video(tmp_path / "a.webm", patches(1), fps=24)) is None
    write_video(tmp_path / "a.mkv", patches(1), fps=24, record=OTHER, sidecar=True)
    assert parse_record((tmp_path / "a.json").read_text()) == RECORD


@pytest.mark.parametrize("there", [True, False])
def test_the_sidecar_of_a_sequence_lies_beside_its_first_picture(tmp_path, there):
    folder = tmp_path / "frames"
    if there:
        folder.mkdir()
    options = {"record": RECORD, "sidecar": True}
    check_output(folder / "c-%04d.png", fps=24, sidecar=True)
    write_video(folder / "c-%04d.png", patches(2), fps=24, **options)
    assert names(folder) == ["c-0001.png", "c-0001.png.json", "c-0002.png"]
    assert read_record(folder / "c-0001.png.json") == RECORD
    with pytest.raises(MediaError, match="already holds frames"):
        check_output(folder / "c-%04d.png", fps=24, sidecar=True)
    write_video(folder / "c-%04d.png", patches(1), fps=24, overwrite=True, **options)
    assert names(folder) == ["c-0001.png", "c-0001.png.json"]


def test_every_quality_shrinks_the_file_below_the_next(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    for suffix in (".mp4", ".webm", ".webp"):
        sizes = [
            write_video(tmp_path / f"{quality}{suffix}", noise, fps=24, quality=quality).stat().st_size
            for quality in ("small", "medium", "high")
        ]
        assert sizes == sorted(set(sizes))


def test_config_errors_are_value_errors():
    with pytest.raises(ConfigError):
        parse_fps(0)
