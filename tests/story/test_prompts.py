"""Prompt weights: what each notation means, and that rendered spans are read back."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinema.story.prompts import MAX_WEIGHT, PromptError, both_sides, parse, render


@pytest.mark.parametrize(
    ("text", "spans", "negative"),
    [
        ("a fox", [("a fox", 1)], []),
        ("a (fox)", [("a ", 1), ("fox", 1.1)], []),
        ("a [fox]", [("a ", 1), ("fox", 1 / 1.1)], []),
        ("a (fox:1.3) runs", [("a ", 1), ("fox", 1.3), (" runs", 1)], []),
        ("((a))", [("a", 1.21)], []),
        ("((a:2) b:3)", [("a", 6), (" b", 3)], []),
        ("([a])", [("a", 1.0)], []),
        (r"\(a\) \[b\] c\\d", [(r"(a) [b] c\d", 1)], []),
        (r"(a\:1.3)", [("a:1.3", 1.1)], []),
        ("at 16:9, (see: here)", [("at 16:9, ", 1), ("see: here", 1.1)], []),
        ("a\\z", [("a\\z", 1)], []),
        ("(a: 1.5 )", [("a", 1.5)], []),
        ("a, (b:0), c", [("a, c", 1)], []),
        ("(fog:-1)", [], [("fog", 1)]),
        ("(fog:-0.5)", [], [("fog", 0.5)]),
        ("(-bad hands)", [], [("bad hands", 1)]),
        ("( - bad hands:1.5)", [], [("bad hands", 1.5)]),
        (r"(\-5 degrees)", [("-5 degrees", 1.1)], []),
        ("a fox, (fog:-1), snow", [("a fox, snow", 1)], [("fog", 1)]),
        ("a fox, (fog:-1)", [("a fox", 1)], [("fog", 1)]),
        ("(fog:-1), a fox", [("a fox", 1)], [("fog", 1)]),
        ("a fox (fog:-1) runs", [("a fox runs", 1)], [("fog", 1)]),
        ("(a (b:-1):1.2)", [("a", 1.2)], [("b", 1.2)]),
        ("(-a (-b))", [], [("a", 1), ("b", 1)]),
        ("", [], []),
        ("()", [], []),
    ],
)
def test_notation(text, spans, negative):
    parsed = parse(text)
    assert [word for word, _ in parsed.spans] == [word for word, _ in spans]
    assert [weight for _, weight in parsed.spans] == pytest.approx([weight for _, weight in spans])
    assert list(parsed.negative) == [(word, pytest.approx(weight)) for word, weight in negative]


@pytest.mark.parametrize(
    ("text", "message", "column"),
    [
        ("a (fox", r"write \( for a plain one", 2),
        ("a fox)", r"write \) for a plain one", 5),
        ("a [fox)", r"write \) for a plain one", 6),
        (":-]", r"write \] for a plain one", 2),
        ("(a:11)", "outside -10 to 10", 3),
        ("(a:nan)", "outside -10 to 10", 3),
        ("(a:1e999)", "outside -10 to 10", 3),
        ("((a:5):5)", "multiply to 25", 6),
        ("[a:0.5]", "[ ] takes no weight", 2),
    ],
)
def test_errors_show_the_place_and_the_escape(text, message, column):
    with pytest.raises(PromptError) as error:
        parse(text)
    first, *_, caret = str(error.value).splitlines()
    assert message in first
    assert caret == "  " + " " * column + "^"


@pytest.mark.parametrize("text", ["(" * 32_000, "(" * 65 + ")" * 65, "a" * 32_001])
def test_size_is_bounded(text):
    with pytest.raises(PromptError):
        parse(text)


def test_both_sides_exchange_phrases():
    assert both_sides("a fox (fog:-1)", "blurry") == ((("a fox", 1.0),), (("blurry, fog", 1.0),))
    assert both_sides("a fox, (-fog:0.5)", "") == ((("a fox", 1.0),), (("fog", 0.5),))
    assert both_sides("a", "b (c:-1)") == ((("a, c", 1.0),), (("b", 1.0),))


WEIGHTS = st.one_of(st.just(1.0), st.floats(1e-6, MAX_WEIGHT, exclude_min=True))
SPANS = st.lists(st.tuples(st.text(min_size=1, max_size=12), WEIGHTS), max_size=6).filter(
    lambda spans: all(a[1] != b[1] for a, b in pairwise(spans))
)


@given(SPANS)
def test_rendered_spans_are_read_back(spans):
    parsed = parse(render(spans))
    assert parsed.spans == tuple(spans)
    assert parsed.negative == ()


@given(st.one_of(st.text(max_size=60), st.text("ab(:)[]\\-1.5e, ", max_size=60)))
def test_any_text_parses_or_is_a_prompt_error(text):
    try:
        parsed = parse(text)
    except PromptError:
        return
    assert all(word and 0 < weight <= MAX_WEIGHT for word, weight in parsed.spans + parsed.negative)
    assert parse(render(parsed.spans)).spans == parsed.spans
