"""Shared fixtures: a clean cache, and the folder of real images where there is one."""

import os
from pathlib import Path

# Tests run side by side, a process a core: threads of their own would only wait for one another.
for _library in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

import matplotlib
import pytest
from jaxtyping import install_import_hook

matplotlib.use("Agg")
# Shapes and types of arrays at public boundaries are checked while testing.
install_import_hook("jaisp", "beartype.beartype")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole workflows first: one that begins last is waited for by everyone."""
    items.sort(key=lambda item: item.get_closest_marker("workflow") is None)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images (JAISP_REAL_DATA); skips, saying so, where there is none."""
    folder = os.environ.get("JAISP_REAL_DATA", "")
    if folder and Path(folder).is_dir():
        return Path(folder)
    if os.environ.get("JAISP_REQUIRE_REAL_DATA"):
        pytest.fail(f"JAISP_REAL_DATA names no folder: {folder!r}")
    pytest.skip("no folder of real images: set JAISP_REAL_DATA")


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A two-patch field, run through Snakemake to its report."""
    from tests.workflow.conftest import TWO_PATCHES, Workflow

    workflow = Workflow(tmp_path_factory.mktemp("two"), TWO_PATCHES)
    done = workflow.run("--cores", "2")
    assert done.returncode == 0, done.stderr[-5000:]
    return workflow


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    """No test touches the user's cache."""
    monkeypatch.setenv("JAISP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("JAISP_DATA", raising=False)
    return tmp_path / "cache"
