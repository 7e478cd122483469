"""One store of buckets for all tests of it."""

import pytest

from tests.services.local import need
from tests.services.moto import binary, moto


@pytest.fixture(scope="session")
def store():
    need(binary() is not None, "moto_server is not installed (pip install -e .[test])")
    with moto() as store:
        yield store
