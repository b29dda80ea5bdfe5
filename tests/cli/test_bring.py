"""`kinema import`: a shot file that reads back, and the losses on the side."""

import json

import kinema.cli
from kinema.story.storyboard import load

CONFIG = {"prompt_map": {"0": "a fox", "8": "a wolf"}, "scheduler": "none such", "steps": 9}


def test_import_prints_or_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "travel.json").write_text(json.dumps(CONFIG))
    assert kinema.cli.run(["import", "travel.json"]) == 0
    printed = capsys.readouterr()
    assert "steps: 9" in printed.out
    assert "scheduler: there is no solver 'none such'" in printed.err
    assert kinema.cli.run(["import", "travel.json", "-o", "story.yaml"]) == 0
    assert load("story.yaml").steps == 9
    capsys.readouterr()
    assert kinema.cli.run(["import", "travel.json", "-o", "story.yaml"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert kinema.cli.run(["import", "travel.json", "-o", "story.yaml", "--overwrite"]) == 0


def test_what_is_printed_reads_back_as_what_is_written(tmp_path, capsys):
    (tmp_path / "travel.json").write_text(json.dumps({"prompt_map": {"0": "a ${fox} of 5 $"}}))
    written, printed = tmp_path / "written.yaml", tmp_path / "printed.yaml"
    assert kinema.cli.run(["import", str(tmp_path / "travel.json"), "-o", str(written)]) == 0
    capsys.readouterr()
    assert kinema.cli.run(["import", str(tmp_path / "travel.json")]) == 0
    printed.write_text(capsys.readouterr().out)
    assert load(printed) == load(written)
    assert load(printed).prompt.constant == "a ${fox} of 5 $"


def test_a_file_of_no_tool_is_one_line(tmp_path, capsys):
    path = tmp_path / "a.json"
    path.write_text("{}")
    assert kinema.cli.run(["import", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
