"""Jobs as text: what no option says is said by a file."""

from __future__ import annotations

import pytest

from kinema.serve.snippets import as_command


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        ({"width": 96, "height": 64}, "kinema generate --size 96x64"),
        ({"width": 96}, "width: 96"),
        ({"height": 64}, "height: 64"),
        ({"width": 96, "height": None}, "width: 96"),
    ],
)
def test_a_command_says_every_side_of_the_picture(sides, said):
    command = as_command({"prompt": "a fox", **sides}, "clip.mp4")
    assert said in command
    assert command.startswith(("kinema generate --size", "cat > shot.yaml"))
    assert "None" not in command
