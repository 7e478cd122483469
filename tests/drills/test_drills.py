"""Drills, once each or JAISP_DRILLS times, but for those that other tests are like.

`make drills` does all of them ten times.
"""

import os
from random import Random

import pytest

from tests.drills.all import DRILLS, lacking
from tests.drills.field import Field

HERE = [name for name, drill in DRILLS.items() if not drill.alike]

# The field is made once.
pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("workflow")]


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    return Field(tmp_path_factory.mktemp("field") / "field")


@pytest.mark.parametrize("number", range(int(os.environ.get("JAISP_DRILLS", "1"))))
@pytest.mark.parametrize("name", HERE)
def test_nothing_is_lost_or_silently_used(name, number, field, tmp_path):
    reason = lacking(name)
    if reason and os.environ.get("JAISP_REQUIRE_REAL_DATA"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    found = DRILLS[name].run(field, tmp_path / "own", Random(f"{name} {number}"))
    assert found["equal"], found
    assert "said" not in found, found
