"""Closes the tiles that a test opened."""

from collections.abc import Iterator

import pytest

from tests.warp import images


@pytest.fixture(autouse=True)
def close_tiles() -> Iterator[None]:
    yield
    while images.OPENED:
        images.OPENED.pop().close()
