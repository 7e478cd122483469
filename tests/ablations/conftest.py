"""A small list of arms, on the store of the tests of training."""

import pytest
import yaml

from jaisp.ablations.arms import load_ablations
from jaisp.config import dump_config
from jaisp.files import write_receipt
from tests.train.conftest import make_config, publish_blobs

ARMS = {
    "run": "arms",
    "page": "pages/arms.md",
    "bases": {"small": "small.yaml"},
    "reference": "plain",
    "finalists": {"arms": ["plain"], "seeds": [1, 2]},
    "arms": {
        "plain": {"group": "objective", "what": "the defaults"},
        "vicreg": {
            "group": "objective",
            "what": "VICReg | 25/25/1",
            "overrides": {"train": {"objective": "vicreg"}},
        },
    },
}


@pytest.fixture
def ablations(tmp_path, monkeypatch):
    """Two arms in the working folder, whose base has a store and no injected sky."""
    monkeypatch.chdir(tmp_path)
    base = make_config(tmp_path)
    publish_blobs(base)
    write_receipt(base, "inject", "all", {"skies": {}, "skipped": "none here"})
    (tmp_path / "small.yaml").write_text(dump_config(base), encoding="utf-8")
    (tmp_path / "arms.yaml").write_text(yaml.safe_dump(ARMS, sort_keys=False), encoding="utf-8")
    return load_ablations(tmp_path / "arms.yaml")
