"""Figures and the page, from planted outcomes whose figures are known."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from jaisp.ablations.figures import (
    TOLD,
    Figure,
    differences,
    over_seeds,
    position_name,
    read_measured,
)
from jaisp.ablations.one import FAILURE, receipt_of
from jaisp.ablations.page import write_page
from jaisp.errors import UserError
from jaisp.evaluate.outcomes import Outcomes
from jaisp.evaluate.plots.style import plain
from jaisp.files import write_json

SOURCES = np.array([f"field/{i % 20}/{i}" for i in range(400)])
BOUND = 5.0


def tell(survey, target, r2, n):
    own = {"survey": survey, "target": target, "r2": r2, "n": n, "random_r2": 0.0}
    return own | {"shuffled_r2": None, "aperture_r2": 0.9}


def told(share):
    """Two fluxes of its own, one of the other's, colours of both, and what is not counted."""
    return [
        tell("rubin", "rubin:g", share, 90),
        tell("rubin", "rubin:r", share + 0.1, 80),
        tell("rubin", "euclid:VIS", 0.5, 70),
        tell("rubin", "rubin:g-r", 0.3, 60),
        tell("euclid", "rubin:g-r", 0.2, 60),
        tell("euclid", "redshift", -0.1, 40),
        tell("both", "rubin:g", 1.0, 90),
    ]


def plant(ablations, arm, seed, share, error_mas, sky="here", code=None, claim=True):
    """An arm of which a share of sources finds its place; easy sources are the same in all arms."""
    results = ablations.config(arm, seed).results
    easy = np.random.default_rng(0).permutation(len(SOURCES)) / len(SOURCES)
    normal = np.random.default_rng(1).normal(size=(len(SOURCES), 2))
    outcomes = Outcomes("weights", sky)
    retrieval = []
    for query, target, less in (("rubin", "euclid", 0.0), ("euclid", "rubin", 0.2)):
        way = {"query": query, "target": target, "tokens": "source", "scope": "field"}
        found = (easy < round(share - less, 3)) * 1.0
        outcomes.add("retrieval", way | {"figure": "top1"}, SOURCES, found)
        outcomes.add("retrieval", way | {"figure": "within_one"}, SOURCES, found)
        place = way | {"tokens": "sky", "scope": "patch", "figure": "within_one"}
        outcomes.add("retrieval", place, SOURCES, found)
        controls = dict.fromkeys(("shuffled_top1", "blank_top1", "random_top1"), 0.01)
        retrieval.append(way | {"n": 400, "pixels_top1": 0.4, **controls})
    row = {"survey": "rubin", "snr": 30.0, "readout": "tokens", "sky": "empty"}
    identity = {**row, "figure": "median_mas"}
    outcomes.add("position", identity, SOURCES, error_mas * normal, "scatter")
    outcomes.add("position", identity | {"sky": "crowded"}, SOURCES, 9 * normal, "scatter")
    limits = {"median_mas": error_mas, "median_mas_low": 0.9 * error_mas}
    row |= {**limits, "median_mas_high": None, "bound_mas": BOUND, "n": 400, "claim": claim}
    row |= dict.fromkeys(("random_mas", "blank_mas", "shuffled_mas", "constant_mas"), 1000.0)
    spread = {"survey": "rubin", "participation_ratio": 18.5, "n": 400}
    shared = {"survey": "euclid+rubin", "shared_participation_ratio": 7.5, "n": 400}
    shared["canonical_above_half"] = 6
    groups = {"retrieval": retrieval, "position": [row], "collapse": [spread, shared]}
    groups |= {"photometry": told(share), "morphology": [tell("rubin", "e1", 0.1, 50)]}
    write_json(results / "metrics.json", plain({"groups": groups}))
    outcomes.save(results / "outcomes.npz")
    timing = {"seconds": 100.0 * seed, "threads": 1, "machine": "2 cores of a machine"}
    write_json(results / "timing.json", timing)
    made_from = ablations.made_from(arm, seed)
    made_from |= {"model": f"{arm} {seed} {share}"} | ({"code": code} if code else {})
    write_json(receipt_of(ablations, arm, seed), made_from)


RUBIN_30 = position_name("rubin", 30.0)


def test_figures_are_of_both_ways_and_over_the_bound(ablations):
    plant(ablations, "plain", 1, 0.8, 40.0)
    found = read_measured(ablations, "plain", 1)
    for name in ("top-1", "right place"):
        figure = found.figures[name]
        assert figure.value == pytest.approx(0.7, abs=0.005)
        assert figure.n == 400
        assert 0.6 < figure.low < 0.7 < figure.high < 0.8
    position = found.figures[RUBIN_30]
    assert (position.value, position.low) == pytest.approx((8.0, 7.2))
    assert np.isnan(position.high)
    assert found.figures["shared_participation_ratio euclid+rubin"].value == 7.5
    assert found.controls["pixels"]["top-1"].value == pytest.approx(0.4)
    assert found.controls["constant"][RUBIN_30].value == pytest.approx(200.0)
    assert found.is_current


def test_what_tokens_tell_is_a_mean_over_surveys_and_bands(ablations):
    plant(ablations, "plain", 1, 0.8, 40.0)
    found = read_measured(ablations, "plain", 1)
    values = {name: (found.figures[name].value, found.figures[name].n) for name in TOLD[:5]}
    assert values == {
        "fluxes": (pytest.approx(0.85), 80),
        "the other's fluxes": (0.5, 70),
        "colours": (0.3, 60),
        "the other's colours": (0.2, 60),
        "redshifts": (-0.1, 40),
    }
    assert found.figures["ellipticities"].value == pytest.approx(0.1)
    assert "sizes" not in found.figures
    assert found.controls["aperture"]["fluxes"].value == pytest.approx(0.9)
    assert "fluxes" not in found.controls["shuffled"]
    assert "| plain | 0.85 | 0.50 | 0.30 | 0.20 | −0.10 | – | 0.10 |" in write_page(ablations)


def test_differences_are_paired(ablations):
    plant(ablations, "plain", 1, 0.80, 40.0)
    plant(ablations, "vicreg", 1, 0.84, 50.0)
    base, other = (read_measured(ablations, arm, 1) for arm in ("plain", "vicreg"))
    found = differences(base, other)
    assert found["top-1"].value == pytest.approx(0.04, abs=0.003)
    assert found["top-1"].n == 400
    # Known far better than either figure, whose interval is 0.08 wide or more.
    assert 0.01 < found["top-1"].low < found["top-1"].high < 0.07
    unit = np.median(np.abs(np.random.default_rng(1).normal(size=(400, 2)))) / 0.6745
    assert found[RUBIN_30].value == pytest.approx(10 * unit / BOUND, rel=0.02)
    assert found[RUBIN_30].low > 0
    assert {figure.value for figure in differences(base, base).values()} == {0.0}


def test_other_sky_is_not_compared(ablations):
    plant(ablations, "plain", 1, 0.80, 40.0)
    plant(ablations, "vicreg", 1, 0.84, 50.0, sky="there")
    assert differences(*(read_measured(ablations, arm, 1) for arm in ("plain", "vicreg"))) == {}


def test_where_a_constant_would_do_no_position_is_told(ablations):
    plant(ablations, "plain", 1, 0.8, 40.0, claim=False)
    assert RUBIN_30 not in read_measured(ablations, "plain", 1).figures


def test_seeds_give_mean_spread_and_students_interval():
    found = over_seeds([{"x": Figure(v, n=7), "y": Figure(v)} for v in (1.0, 2.0, 3.0)])["x"]
    assert (found.value, found.spread, found.seeds, found.n) == (2.0, 1.0, 3, 7)
    # 4.303 = Student's t of two degrees of freedom at 97.5 %.
    assert found.high - 2 == pytest.approx(4.303 / np.sqrt(3), abs=1e-3)
    alone = {"x": Figure(1.0, 0.5, 1.5)}
    assert over_seeds([alone]) == alone
    assert over_seeds([alone, {}]) == {}
    assert replace(found, seeds=1).seeds == 1


def row_of(text, *cells):
    start = f"| {' | '.join(cells)} |"
    return next(line for line in text.splitlines() if line.startswith(start))


def test_a_page_without_any_arm_says_so(ablations):
    text = write_page(ablations)
    assert "0 of 3 trainings are done" in text
    assert "No arm has been run yet" in text
    assert "VICReg &#124; 25/25/1 | not yet run" in text
    assert text == (ablations.listed.page).read_text(encoding="utf-8")


def test_the_page_holds_what_is_done(ablations):
    plant(ablations, "plain", 1, 0.80, 40.0)
    plant(ablations, "vicreg", 1, 0.70, 600.0)
    text = write_page(ablations)
    assert "2 of 3 trainings are done" in text
    assert "2 cores of a machine" in text
    assert "fewer than 1,000" in text
    assert "| plain | the defaults | 400 | 0.700 <sub>" in text
    assert "| 7.5 | 6 | 100 |" in row_of(text, "plain", "the defaults")
    worse = next(x for x in text.splitlines() if x.startswith("| vicreg | plain | **−0.10"))
    assert "**+11" in worse
    assert "| pixels | 0.400 |" in text
    for table in text.split("\n\n"):
        assert len({line.count("|") for line in table.splitlines() if line.startswith("|")}) <= 1


def test_an_arm_that_failed_says_why(ablations):
    path = ablations.config("vicreg", 1).results / FAILURE
    write_json(path, {"config": ablations.made_from("vicreg", 1)["config"], "why": "no | end"})
    assert "VICReg &#124; 25/25/1 | failed: no &#124; end |" in write_page(ablations)
    write_json(path, {"config": "another", "why": "no end"})
    assert "failed:" not in write_page(ablations)


def test_the_page_has_seeds_as_mean_and_spread(ablations):
    plant(ablations, "plain", 1, 0.80, 40.0)
    plant(ablations, "plain", 2, 0.90, 50.0)
    row = row_of(write_page(ablations), "plain", "the defaults")
    assert "| 0.750 ± 0.07" in row
    assert row.endswith("| 150 |")


def test_stale_arms_are_marked_or_left_out(ablations):
    plant(ablations, "plain", 1, 0.80, 40.0, code="edited since")
    assert "| plain † | the defaults | 400 |" in write_page(ablations)
    arms = dict(ablations.listed.arms)
    arms["plain"] = arms["plain"].model_copy(update={"overrides": {"train": {"ema": 0.5}}})
    changed = replace(ablations, listed=ablations.listed.model_copy(update={"arms": arms}))
    assert "| plain | the defaults | not yet run |" in write_page(changed)


def test_seeds_of_other_code_are_not_averaged_with_those_of_now(ablations):
    plant(ablations, "plain", 1, 0.80, 40.0)
    plant(ablations, "plain", 2, 0.90, 50.0, code="edited since")
    text = write_page(ablations)
    assert "| plain | the defaults | 400 | 0.700 <sub>" in text
    assert "1 of 3 trainings are done" in text
    plant(ablations, "plain", 1, 0.80, 40.0, code="edited since")
    assert "| 0.750 ± 0.07" in row_of(write_page(ablations), "plain †", "the defaults")


def test_arms_outlive_their_results(ablations):
    for seed, error_mas in ((1, 40.0), (2, 44.0)):
        plant(ablations, "plain", seed, 0.80, error_mas)
    plant(ablations, "vicreg", 1, 0.70, 600.0)
    text = write_page(ablations)
    for gone in ("plain-1", "plain-2", "vicreg-1"):
        shutil.rmtree(ablations.results / gone)
    assert write_page(ablations) == text
    # Another training of one of them stands beside what the other was, and is not compared.
    plant(ablations, "vicreg", 1, 0.75, 600.0)
    renewed = write_page(ablations)
    assert "| vicreg | VICReg &#124; 25/25/1 | 400 | 0.650" in renewed
    assert "| vicreg | plain |" in text
    assert "| vicreg | plain |" not in renewed


def test_a_difference_outlives_another_training_of_what_it_is_from(ablations):
    plant(ablations, "plain", 1, 0.80, 40.0)
    plant(ablations, "vicreg", 1, 0.70, 600.0)
    before = row_of(write_page(ablations), "vicreg", "plain")
    for gone in ("plain-1", "vicreg-1"):
        shutil.rmtree(ablations.results / gone)
    plant(ablations, "plain", 1, 0.82, 40.0)
    assert row_of(write_page(ablations), "vicreg", "plain") == before
    # Of other code it would be another recipe.
    plant(ablations, "plain", 1, 0.82, 40.0, code="edited since")
    assert "| vicreg | plain |" not in write_page(ablations)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "is not JSON .*; remove it"),
        ("[1]", "all of it: is no arm .*; remove it"),
        ('{"plain-1": {"config": "x"}}', "plain-1: is no arm .*; remove it"),
    ],
)
def test_a_record_that_is_no_record_is_told(ablations, content, reason):
    record = ablations.listed.page.with_suffix(".json")
    record.parent.mkdir()
    record.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=rf"arms\.json: {reason}"):
        write_page(ablations)
