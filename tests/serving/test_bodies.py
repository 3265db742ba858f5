"""Bodies of predict requests: how large, how fast, how many."""

import tracemalloc

import anyio
import pytest
from starlette.applications import Starlette

from natix_lib.serving import bodies
from tests.serving.asking import PREDICT, Message, ask, whole


@pytest.mark.parametrize(("announced", "expect"), [(32 * 2**20 + 1, True), (128 * 2**20 + 1, False)])
def test_a_body_that_is_announced_too_large_is_not_read(app: Starlette, announced: int, expect: bool) -> None:
    async def receive() -> Message:
        raise AssertionError("the body was read")

    headers = {"content-length": str(announced), **({"expect": "100-continue"} if expect else {})}
    answer = anyio.run(ask, app, receive, PREDICT, headers)
    assert answer == (413, {"error": f"the body must have at most 33554432 bytes, got {announced}"})


def test_a_body_of_the_largest_size_is_read(app: Starlette) -> None:
    status, answer = anyio.run(ask, app, whole(b" " * 32 * 2**20))
    assert status == 400 and answer["error"].startswith("the body is not JSON: ")


def test_of_an_endless_body_a_limited_part_is_held_and_a_limited_part_is_read(
    app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "MAX_BODY", 2**20)
    monkeypatch.setattr(bodies, "MAX_DISCARDED", 4 * 2**20)
    parts = 0

    async def receive() -> Message:
        nonlocal parts
        parts += 1
        return {"type": "http.request", "body": bytes(2**18), "more_body": True}

    tracemalloc.start()
    answer = anyio.run(ask, app, receive)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert answer == (413, {"error": f"the body must have at most 1048576 bytes, got {4 * 2**20 + 2**18}"})
    assert parts == 17 and held < 2 * 2**20


def test_a_body_that_does_not_come_is_given_up(app: Starlette, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "PACE_SECONDS", 0.05)
    status, answer = anyio.run(ask, app, anyio.sleep_forever)
    text = "the body must come with 262144 bytes each 0.05 s and whole within 60 s, got 0 bytes"
    assert (status, answer) == (408, {"error": text})


@pytest.mark.parametrize(
    ("part", "pace", "whole", "least", "most"),
    [(2**10, 0.1, 60, 2, 20), (2**18, 0.1, 0.3, 10, 30), (2**18, 0.1, 60, 40, 40)],
    ids=["too slow", "too long", "in time"],
)
def test_a_body_comes_at_a_pace_and_within_a_time(
    app: Starlette, monkeypatch: pytest.MonkeyPatch, part: int, pace: float, whole: float, least: int, most: int
) -> None:
    monkeypatch.setattr(bodies, "PACE_SECONDS", pace)
    monkeypatch.setattr(bodies, "BODY_SECONDS", whole)
    parts = 0

    async def receive() -> Message:
        nonlocal parts
        await anyio.sleep(0.015)
        parts += 1
        return {"type": "http.request", "body": b" " * part, "more_body": parts < 40}

    status, _ = anyio.run(ask, app, receive)
    assert least <= parts <= most and status == (400 if parts == 40 else 408)


def test_when_bodies_are_too_many_the_largest_that_is_still_coming_goes_and_a_small_one_is_read(
    app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "MAX_HELD", 3 * 2**20)

    async def scenario() -> list[tuple[int, str]]:
        answers = []

        async def slow(size: int) -> None:
            sent = False

            async def receive() -> Message:
                nonlocal sent
                if sent:
                    await anyio.sleep(0.2)
                    return {"type": "http.request", "body": b"", "more_body": False}
                sent = True
                return {"type": "http.request", "body": b" " * size, "more_body": True}

            status, answer = await ask(app, receive)
            answers.append((status, answer["error"].split(": ")[0]))

        async with anyio.create_task_group() as group:
            for size in (2**20, 2**21 - 2**10):
                group.start_soon(slow, size)
            await anyio.sleep(0.05)
            status, answer = await ask(app, whole(b" " * 2**12))
            answers.append((status, answer["error"].split(": ")[0]))
        return answers

    large, good, small = anyio.run(scenario)
    assert large == (503, f"bodies of more than {3 * 2**20} bytes are held, this one has {2**21 - 2**10} of them")
    assert good == (400, "the body is not JSON")
    assert small == (400, "the body is not JSON")


def test_what_a_body_held_is_free_when_it_is_answered(app: Starlette, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_HELD", 2**20)
    assert [anyio.run(ask, app, whole(b" " * 2**19))[0] for _ in range(4)] == [400] * 4


def test_a_client_that_goes_away_is_an_error_of_one_line(app: Starlette) -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    assert anyio.run(ask, app, receive) == (400, {"error": "the client went away after 0 bytes"})
