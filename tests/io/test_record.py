import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patch_clips import patches

from kinema.core.contracts import Record
from kinema.core.errors import MediaError
from kinema.io.record import ffmetadata, parse_ffmetadata, parse_record, read_record, record_text, title
from kinema.io.video_write import write_video


@settings(max_examples=50)
@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_survives_the_metadata_file(prompt, note):
    record = Record({"prompt": prompt, "note": note})
    tags = parse_ffmetadata(ffmetadata(record).decode())
    assert parse_record(tags["kinema"]) == record
    assert tags["comment"] == tags["kinema"]


@given(st.text(alphabet="\\=;#\n[a", min_size=1), st.text(alphabet="\\=;#\n[a"))
def test_metadata_lines_split_only_where_nothing_is_protected(one, two):
    def protect(text):
        return "".join("\\" + sign if sign in "\\=;#\n" else sign for sign in text)

    text = f";FFMETADATA1\nx{protect(one)}={protect(two)}\nlast=1\n[STREAM]\nstream=2\n"
    assert parse_ffmetadata(text) == {f"x{one}": two, "last": "1"}


def test_lone_surrogates_are_escaped_and_come_back():
    record = Record({"prompt": "a\ud800b"})
    assert parse_record(record_text(record).encode().decode()) == record


def test_title_is_the_first_words_of_the_prompt_whatever_its_form():
    assert title(Record({"prompt": "a\nfox  runs"})) == "a fox runs"
    assert title(Record({"prompt": {"0": "a fox", "24": "a wolf"}})) == "a fox"
    for written in (
        {"mix": {"a fox": "1 - t / max_f", "a wolf": "t"}},
        {"head": "in oil", "mix": [{"weight": 0.5, "prompt": "a fox"}, {"prompt": "a wolf"}]},
        {"ease": "in_out", "head": "in oil", "tail": "4k", "0": "a fox", "24": "a wolf"},
        {"mode": "hold", "0": {"ease": "in", "prompt": "a fox"}},
    ):
        assert title(Record({"prompt": written})) == "a fox"
        assert title(Record({"steps": 3, "shots": [{"prompt": written}, {"prompt": "a bear"}]})) == "a fox"
    assert title(Record({"prompt": "a fox", "shots": [{"steps": 2}, {"steps": 3}]})) == "a fox"
    assert title(Record({"shots": ["a fox", "a wolf"]})) == "a fox"
    for broken in ({"mix": 3}, {"mix": []}, {"head": "in oil"}, {"0": []}, [[]], 7):
        assert title(Record({"prompt": broken})) == title(Record({"shots": broken})) == ""
    assert title(Record({"prompt": "狐" * 500})) == "狐" * 120
    assert title(Record({})) == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "null",
        "[]",
        '{"kinema": 1}',
        '{"kinema": 1, "shot": []}',
        "[" * 100_000,
        '{"shot": {}}',
        "\0",
        "x" * (5 << 20),
    ],
    ids=range(10),
)
def test_what_is_no_record_is_none(text):
    assert parse_record(text) is None


def test_a_comment_by_another_program_is_no_record(tmp_path):
    path = write_video(tmp_path / "a.mp4", patches(1), fps=24)
    assert read_record(path) is None
    (tmp_path / "a.json").write_text(json.dumps({"prompt": "of another program"}))
    assert read_record(path) is None


def test_unknown_content_has_no_record_and_a_missing_file_is_an_error(tmp_path):
    (tmp_path / "a.mp4").write_text("ffconcat version 1.0\nfile b.mp4\n")
    assert read_record(tmp_path / "a.mp4") is None
    assert read_record(tmp_path) is None
    with pytest.raises(MediaError, match="No such file"):
        read_record(tmp_path / "b.mp4")


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".jpg"])
def test_a_damaged_file_gives_no_record_and_no_crash(tmp_path, suffix):
    record = Record({"prompt": "x" * 3000})
    data = write_video(tmp_path / f"a{suffix}", patches(1), fps=24, record=record).read_bytes()
    for keep in range(1, len(data), max(1, len(data) // 40)):
        (tmp_path / f"b{suffix}").write_bytes(data[:keep])
        assert read_record(tmp_path / f"b{suffix}") in (None, record)
