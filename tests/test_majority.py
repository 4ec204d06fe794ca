"""What the sentinels say counts where most of them say it."""

from collections.abc import Iterator
from typing import Any

import pytest

from streamcast.errors import Unavailable
from streamcast.streams.endpoint import StoreUrl
from streamcast.streams.sentinel import Sentinels

ONE, OTHER = ("10.0.0.1", 6379), ("10.0.0.2", 6379)
SILENT = "it does not answer"


async def named(monkeypatch: pytest.MonkeyPatch, *answers: object) -> str:
    hosts = ",".join(f"10.1.0.{number}" for number in range(len(answers)))
    url = StoreUrl.parse(f"redis+sentinel://me:s3cret@{hosts}/rooms/3")
    assert url.master is not None
    sentinels = Sentinels(url.endpoints, url.service, url.master)
    told: Iterator[object] = iter(answers)

    async def ask(_: Any) -> object:
        return next(told)

    monkeypatch.setattr(sentinels, "_ask", ask)
    try:
        endpoint = await sentinels.endpoint()
    finally:
        await sentinels.close()
    assert (endpoint.user, endpoint.password, endpoint.database) == ("me", "s3cret", 3)
    return str(endpoint)


@pytest.mark.parametrize(
    "answers",
    [[ONE], [ONE, ONE, ONE], [OTHER, ONE, ONE], [ONE, SILENT, ONE], [ONE, ONE, OTHER, ONE, SILENT]],
)
async def test_a_majority(monkeypatch: pytest.MonkeyPatch, answers: list[object]) -> None:
    assert await named(monkeypatch, *answers) == "10.0.0.1:6379"


@pytest.mark.parametrize(
    "answers",
    [[ONE, SILENT, SILENT], [ONE, OTHER, SILENT], [ONE, OTHER], [ONE, ONE, OTHER, OTHER]],
)
async def test_a_minority_decides_nothing(
    monkeypatch: pytest.MonkeyPatch, answers: list[object]
) -> None:
    with pytest.raises(Unavailable, match="it takes a majority"):
        await named(monkeypatch, *answers)


async def test_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why is told, of the first one."""
    with pytest.raises(Unavailable, match=r"None of the sentinels says .*: it does not answer\."):
        await named(monkeypatch, SILENT, "it does not know it")
