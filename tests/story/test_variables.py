"""Variables: replaced once, with their type, in every text; what is unknown or circular is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinema.core.errors import ConfigError
from kinema.story.shot import Shot
from kinema.story.storyboard import Storyboard, dump, from_mapping, load
from kinema.story.variables import read_variables, substituted

BOARD = {
    "vars": {"subject": "a fox", "pace": 1.5, "late": "50%", "soft": True},
    "prompt": "${subject} on a hill",
    "guidance": "${pace}",
    "end": "fade ${frames}",
    "shots": [
        {},
        {"vars": {"subject": "a wolf", "pace": 2}},
        {"prompt": {0: "${subject}", "${late}": "a $${price} of ${pace}"}, "guidance": "${pace} * sin(t)"},
    ],
}
BOARD["vars"]["frames"] = 3


def test_texts_numbers_keys_and_defaults_are_replaced_for_each_shot():
    board = from_mapping(BOARD)
    assert isinstance(board, Storyboard)
    first, second, third = board.shots
    assert (first.prompt.source, second.prompt.source) == ("a fox on a hill", "a wolf on a hill")
    assert (first.guidance.constant, second.guidance.constant) == (1.5, 2)
    assert third.prompt.source == {0: "a fox", "50%": "a ${price} of 1.5"}
    assert third.guidance.source == "1.5 * sin(t)"
    assert board.end is not None
    assert board.end.fade is not None
    assert from_mapping(board.to_mapping()) == board


def test_a_value_keeps_its_type_alone_and_is_text_inside_text():
    variables = read_variables({"n": 3, "yes": True, "x": 1e-3})
    assert substituted(["${n}", "${ n }x", "${yes}", "is ${yes}", "${x}"], variables) == [
        3,
        "3x",
        True,
        "is true",
        0.001,
    ]
    assert substituted({"a": ("${n}", None, 4)}, variables) == {"a": (3, None, 4)}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"prompt": "${subjct}", "vars": {"subject": "a"}},
            "unknown variable 'subjct'. Did you mean 'subject'?",
        ),
        ({"prompt": "${subject}", "vars": {}}, "${subject}: there are no variables"),
        ({"prompt": "${", "vars": {"a": 1}}, "'${' is no variable"),
        ({"prompt": "${a b}", "vars": {"a": 1}}, "'${a b}' is no variable"),
        ({"prompt": "${a", "vars": {"a": 1}}, "'${a' is no variable"),
        ({"vars": {"a": "${b}", "b": "${a}"}}, "vars.a='${b}': a variable cannot use another"),
        ({"vars": {"a": [1]}}, "vars.a is neither text nor number"),
        ({"vars": {"a b": 1}}, "'a b' is no name"),
        ({"vars": 3}, "vars is not a mapping"),
        ({"prompt": "${a}" * 20, "vars": {"a": "x" * 9000}}, "grows to 180000 letters"),
        (
            {"prompt": {0: "x", "${a}": "fox", "${b}": "wolf"}, "vars": {"a": "50%", "b": "50%"}},
            "'50%' is written twice; remove one.",
        ),
        ({"shots": ["a", {"prompt": "${b}"}], "vars": {"a": 1}}, "shots[1]: unknown variable 'b'"),
        ({"shots": ["${b}"], "vars": {"a": 1}}, "shots[0]: unknown variable 'b'"),
    ],
)
def test_what_is_wrong_is_said(values, message):
    with pytest.raises(ConfigError) as error:
        from_mapping(values)
    assert message in str(error.value)


def test_values_can_be_given_from_outside(tmp_path):
    path = tmp_path / "story.yaml"
    path.write_text(
        "vars: {subject: a fox}\nprompt: ${subject} runs\nshots: [{}, {vars: {subject: a bear}}]\n"
    )
    board = load(path, variables={"subject": "a wolf"})
    assert [shot.prompt.source for shot in board.shots] == ["a wolf runs", "a bear runs"]
    with pytest.raises(ConfigError, match="unknown variable 'subjct'"):
        load(path, variables={"subjct": "a wolf"})


@given(st.text(), st.dictionaries(st.from_regex(r"[a-z]{1,3}", fullmatch=True), st.text(max_size=9)))
def test_any_text_is_replaced_or_refused_in_one_line(text, variables):
    try:
        found = substituted(text, read_variables(variables))
    except ConfigError:
        assert "${" in text or any("${" in value for value in variables.values())
        return
    assert found == text or "${" in text


def test_without_vars_it_is_just_text_and_a_file_escapes_it(tmp_path):
    shot = Shot(prompt="a ${price}", negative="$${")
    assert from_mapping(shot.to_mapping()) == shot
    dump(shot, tmp_path / "a.yaml")
    assert load(tmp_path / "a.yaml") == shot
    (tmp_path / "b.yaml").write_text("prompt: ${price}")
    with pytest.raises(ConfigError, match="there are no variables"):
        load(tmp_path / "b.yaml")
