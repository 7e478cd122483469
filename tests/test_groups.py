"""Tests that share what takes minutes to make run in one process of those that run side by side."""

import pytest


@pytest.mark.xdist_group("groups")
def test_groups_of_tests_hold(request):
    """Versions of pytest and pytest-xdist that don't fit ignore them without a word."""
    if not hasattr(request.config, "workerinput"):
        pytest.skip("tests do not run side by side here (pytest -n auto)")
    assert request.node.nodeid.endswith("@groups")
