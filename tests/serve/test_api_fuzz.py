"""Requests drawn from the published document: whatever comes, the server has an answer in its own form."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from live import Live

WAITING = ("/api/events", "/v1/images/generations")
BUSY = (
    ("POST", "/api/jobs"),
    ("POST", "/api/plan"),
    ("POST", "/api/curve"),
    ("POST", "/v1/videos"),
    ("GET", "/api/jobs"),
)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with Live(tmp_path_factory.mktemp("fuzz") / "data", "--workers", "0") as found:
        yield found


def test_a_few_requests_are_no_failure_of_ours(live):
    fuzz(live, 3, only=BUSY)


@pytest.mark.slow
def test_no_request_is_a_failure_of_ours(live):
    fuzz(live, 40)


def fuzz(live: Live, examples: int, only: tuple[tuple[str, str], ...] | None = None) -> None:
    quiet = settings(
        max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    seen = 0
    for found in schemathesis.openapi.from_dict(live.get("/openapi.json")).get_all_operations():
        operation = found.ok()
        place = (operation.method.upper(), operation.path)
        if operation.path in WAITING or (only is not None and place not in only):
            continue

        @quiet
        @given(case=operation.as_strategy())
        def check(case) -> None:
            answer = case.call(base_url=live.url)
            told = (case.method, case.formatted_path, answer.status_code, answer.content[:500])
            assert answer.status_code < 500 or answer.status_code == 503, told
            if answer.status_code >= 400:
                assert set(answer.json()["error"]) == {"message", "type", "code", "param"}, told

        check()
        seen += 1
    assert seen >= (5 if only else 30)
