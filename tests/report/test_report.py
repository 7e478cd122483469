"""The page: it holds all that a run has, says what is missing, and asks nothing of a network."""

import html.parser
import json
import re

import numpy as np
import pytest
import zarr
from PIL import Image

from jaisp.archives import Plane, Tile
from jaisp.config import Config, group_hash, parse_config
from jaisp.files import record_problem, write_json
from jaisp.report import report
from jaisp.report.curves import read_history, training_curves
from jaisp.report.field import islands
from jaisp.report.provenance import resolved_config, stages, tiles_by_survey
from jaisp.sky import cells
from jaisp.store.publish import publish
from jaisp.store.writer import GroupWriter, PatchPlanes

SURVEYS = {"rubin": (["g", "r"], 0.4), "euclid": (["VIS"], 0.2)}


@pytest.fixture
def config(tmp_path, monkeypatch) -> Config:
    monkeypatch.chdir(tmp_path)
    content = {
        "run": "small",
        "sky": {"ra": 53.1, "dec": -28.1, "width_arcmin": 0.64, "height_arcmin": 0.43},
        "patch": {"arcsec": 12.8},
        "surveys": {
            name: {"bands": bands, "pixel_arcsec": pixel, "archive": {"kind": "simulated"}}
            for name, (bands, pixel) in SURVEYS.items()
        },
    }
    return parse_config(content, tmp_path / "small.yaml")


@pytest.fixture
def whole(config) -> Config:
    """A run with a store, a history, metrics, maps, a figure and a bad tile."""
    (cell,) = cells(config)
    generator = np.random.default_rng(2)
    for survey, (bands, _) in SURVEYS.items():
        pixels = config.patch_pixels(survey)
        shape = (len(bands), pixels, pixels)
        path = config.results / "patches.zarr" / cell.name / survey
        attributes = {"hash": group_hash(config, survey, cell)}
        grid = config.grid(survey)[1]
        with GroupWriter(path, bands, pixels, len(cell), grid, "int16", attributes) as group:
            for row in range(len(cell)):
                flux = generator.normal(0, 5, shape).astype(np.float32)
                flux[:, 10:14, 8:12] += 100
                noise = np.full(shape, 5, np.float32)
                fwhm = np.full(len(bands), 0.8, np.float32)
                group.write(row, PatchPlanes(flux, noise, np.zeros(shape, np.uint8), fwhm))
            group.finish(np.ones((len(bands), 2), np.float32))
    publish(config)
    _write_embedding(config, generator)
    lines = [
        {"step": k, "loss": 3.0 / (k + 1), "cross": {"rubin>euclid": 1.0 / (k + 1)}, "odd": k % 2}
        for k in range(100)
    ]
    history = config.results / "history.jsonl"
    history.write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 100, "lo')
    row = {
        "query": "rubin", "target": "euclid", "tokens": "source", "scope": "field", "n": 50,
        "candidates": 50, "top1": 0.5, "top1_low": 0.4, "top1_high": 0.6, "random_top1": 0.1,
    }  # fmt: skip
    metrics = {"groups": {"retrieval": [row]}, "skipped": {"withheld": "<two> surveys only"}}
    write_json(config.results / "metrics.json", metrics)
    (config.results / "figures").mkdir()
    Image.new("RGB", (40, 30)).save(config.results / "figures" / "ranks.png")
    record_problem(config, "fetch", "rubin", "g", "tile 7", "checksum differs")
    return config


def _write_embedding(config: Config, generator: np.random.Generator) -> None:
    basis = {
        "mean": [0.0] * 4,
        "components": np.eye(3, 4).tolist(),
        "variance": [3.0, 2.0, 1.0],
        "total_variance": 6.5,
    }
    write_json(config.results / "maps" / "basis.json", basis)
    for survey in SURVEYS:
        group = zarr.open_group(config.results / "embeddings.zarr" / "field" / survey, mode="w")
        group.attrs["wcs"] = {}
        group["tokens"] = generator.normal(0, 1, (4, 16, 24)).astype(np.float16)
        group["signal_to_noise"] = generator.normal(0, 1, (16, 24)).astype(np.float32)
        for end in ("", "_image"):
            Image.new("RGB", (24, 16)).save(config.results / "maps" / f"field_{survey}{end}.png")


class _Reader(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.images: list[dict] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.images.append(dict(attributes))
        if tag in ("table", "section", "figure", "details", "tr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in ("table", "section", "figure", "details", "tr"):
            assert self.open.pop() == tag


def test_a_whole_run(whole):
    path = report(whole)
    text = path.read_text(encoding="utf-8")
    reader = _Reader()
    reader.feed(text)
    assert reader.open == []
    # 3 bands of 3 patches, 2 maps with their images, a figure and the overview.
    assert len(reader.images) == 9 + 4 + 1 + 1
    assert all(image["alt"] for image in reader.images)
    assert all(image["src"].startswith("data:image/") for image in reader.images)
    assert text.count("<svg") == 2
    assert text.count('role="img" aria-label=') == 2
    assert "checksum differs" in text
    assert "&lt;two&gt; surveys only" in text
    assert "50.0" in text
    assert "[40.0, 60.0]" in text
    assert "No metrics yet" not in text
    with Image.open(whole.results / "figures" / "overview.png") as overview:
        assert overview.width > 2 * overview.height


def test_the_page_loads_nothing(whole):
    text = report(whole).read_text(encoding="utf-8")
    addresses = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", text)
    # SVG's own references (#…) stay inside the page.
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "<script" not in text


def test_two_reports_of_a_run_are_the_same(whole):
    first = report(whole).read_text(encoding="utf-8")
    assert report(whole).read_text(encoding="utf-8") == first


def test_a_run_without_anything(config):
    text = report(config).read_text(encoding="utf-8")
    for missing in ("No published store yet", "No history yet", "No maps yet", "No metrics yet"):
        assert missing in text
    assert "None: no tile was set aside" in text


def test_a_store_alone(whole):
    for name in ("history.jsonl", "metrics.json", "maps/basis.json"):
        (whole.results / name).unlink()
    text = report(whole).read_text(encoding="utf-8")
    assert "No history yet" in text
    assert "6 patches in 1 cell" in text


def test_a_cut_off_history_is_read(whole):
    history = read_history(whole.results / "history.jsonl")
    assert [row["step"] for row in history] == list(range(100))
    assert history[3]["cross rubin>euclid"] == 0.25
    svg = training_curves(history)
    assert "#0102" not in svg
    assert "currentColor" in svg


def test_secrets_and_folders_stay_out(config):
    archive = {
        "kind": "files",
        "root": "https://host/data?sig=abc",
        "images": [{"band": "g", "science": {"path": "g.fits"}}],
    }
    survey = {"bands": ["g"], "pixel_arcsec": 0.2, "archive": archive}
    content = config.model_dump(mode="json")
    content["surveys"]["rubin"] = survey
    content.pop("data")
    text = resolved_config(parse_config(content, config.data / "x.yaml"))
    assert "https://host/data" in text
    assert "sig=" not in text
    assert str(config.data) not in text


def test_times_come_from_benchmarks(config):
    folder = config.results / "benchmarks"
    folder.mkdir(parents=True)
    for name, seconds in (("warp.field.rubin", 70), ("warp.field.euclid", 20.5), ("train", "NA")):
        (folder / f"{name}.tsv").write_text(f"s\tmax_rss\n{seconds}\t2048\n")
    timed = {stage.name: stage for stage in stages(config)}
    assert timed["warp"].time == "1 min 30 s"
    assert timed["warp"].jobs == 2
    assert timed["train"].time == "–"


def test_releases_are_told_and_no_address_s_secrets(config):
    def tile(name, **origin):
        science = Plane("https://a/b.fits?token=swordfish", 0, sha256="0" * 64)
        return Tile("rubin", "g", name, science, None, None, None, "estimate", None, None, None,
                    None, False, "header", origin=origin)  # fmt: skip

    first, second = tiles_by_survey(
        config,
        [
            tile("https://a/b.fits?token=swordfish[0]", release="DP1"),
            tile("7", obs_collection="deep", obs_release_date="2025-05-01 00:00:00"),
        ],
    )
    assert first.releases == "DP1, deep, 2025-05-01"
    assert first.ids == ["g 7", "g https://a/b.fits"]
    assert (second.survey, second.releases) == ("euclid", "")


@pytest.mark.parametrize(
    ("degrees_apart", "expected"),
    [
        ([0, 0, 0, 0, 0, 0], [[0, 1, 2, 3, 4, 5]]),
        ([0, 0, 2, 0, 2, 2], [[0, 1, 3], [2, 4, 5]]),
        ([0, 2, 4, 6, 8, 10], [[0, 1, 2, 3, 4, 5]]),
    ],
)
def test_fields_far_apart_have_a_map_each_unless_they_are_many(degrees_apart, expected):
    ra, patch_arcsec = np.full(6, 53.1), 51.2
    dec = np.array(degrees_apart) + np.arange(6) * patch_arcsec / 3600
    assert [own.tolist() for own in islands(ra, dec, patch_arcsec)] == expected
