"""Each case once, on one engine; `scripts/faults` plays them for longer, and on all."""

import pytest

from tests.conftest import ENGINES
from tests.faults.cases import CASES, Case
from tests.faults.stage import Stage


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_nothing_is_lost_or_it_is_told(case: Case) -> None:
    with Stage(ENGINES["valkey"]) as stage:
        case.check(await case.run(stage))
