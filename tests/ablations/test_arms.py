"""The list of arms: the configs that it makes, and the one line that says what is wrong with it."""

from pathlib import Path

import pytest
import yaml

from jaisp.ablations.arms import load_ablations, merged
from jaisp.errors import UserError
from tests.configs import small_config, write_config

ROOT = Path(__file__).resolve().parents[2]


def listed(**changes):
    content = {
        "run": "arms",
        "page": "arms.md",
        "bases": {"small": "config.yaml"},
        "common": {"train": {"steps": 7, "pairs": {"bands": 0.3}}},
        "reference": "plain",
        "finalists": {"arms": ["plain"], "seeds": [1, 2]},
        "arms": {
            "plain": {"group": "all", "what": "the defaults"},
            "teacher": {
                "group": "all",
                "what": "a teacher",
                "overrides": {"train": {"ema": 0.9, "pairs": {"degraded": 0.0}}},
            },
        },
    }
    return content | changes


def write_list(folder, **changes):
    write_config(folder, small_config())
    path = folder / "arms.yaml"
    path.write_text(yaml.safe_dump(listed(**changes), sort_keys=False), encoding="utf-8")
    return path


def test_an_arm_is_its_base_with_what_all_change_and_what_it_changes(tmp_path):
    ablations = load_ablations(write_list(tmp_path))
    config = ablations.config("teacher", 3)
    assert config.run == "arms/teacher-3"
    assert config.results == Path("results/arms/teacher-3")
    settings = config.train
    assert (settings.steps, settings.ema, settings.seed) == (7, 0.9, 3)
    assert (settings.pairs.bands, settings.pairs.degraded, settings.pairs.surveys) == (0.3, 0, 0.8)
    assert ablations.config("plain", 1).train.ema == 0


def test_further_seeds_of_the_finalists_come_last(tmp_path):
    ablations = load_ablations(write_list(tmp_path))
    assert ablations.runs == [("plain", 1), ("teacher", 1), ("plain", 2)]
    assert ablations.seeds("plain") == [1, 2]
    assert ablations.against("teacher") == "plain"


def test_an_arm_is_stale_by_its_own_config_alone(tmp_path):
    before = load_ablations(write_list(tmp_path))
    arms = listed()["arms"]
    arms["teacher"]["overrides"]["train"]["ema"] = 0.5
    arms["teacher"]["what"] = arms["plain"]["what"] = "in other words"
    after = load_ablations(write_list(tmp_path, arms=arms))
    assert after.made_from("plain", 1) == before.made_from("plain", 1)
    assert after.made_from("teacher", 1)["config"] != before.made_from("teacher", 1)["config"]
    assert after.made_from("teacher", 1)["code"] == before.made_from("teacher", 1)["code"]
    assert before.made_from("plain", 1) != before.made_from("plain", 2)


def arm(**changes):
    plain = {"group": "all", "what": "the defaults"}
    return {"arms": {"plain": plain, "odd": plain | changes}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"colour": 1}, "colour: unknown key"),
        (arm(overides={}), "arms.odd.overides: unknown key"),
        (arm(overrides={"train": {"sedd": 1}}), "arms.odd.overrides: train.sedd: unknown key"),
        (arm(overrides={"trian": {}}), "arms.odd.overrides: trian: unknown key"),
        (arm(overrides={"train": 3}), "arms.odd.overrides.train: "),
        ({"common": {"train": {"sedd": 1}}}, "common: train.sedd: unknown key"),
        (arm(overrides={"inject": {"seed": 4}}), "changes what `inject` makes"),
        (arm(overrides={"model": {"token_arcsec": 3.2}}), "changes what `publish` makes"),
        (arm(base="large"), "arms.odd.base: 'large' is not one of `bases`"),
        (arm(against="x"), "arms.odd.against: 'x' is not one of `arms`"),
        ({"reference": "x"}, "reference: 'x' is not one of `arms`"),
        ({"finalists": {"arms": ["x"]}}, "finalists.arms: 'x' is not one of `arms`"),
        ({"seeds": []}, "seeds: "),
        ({"run": "a/b"}, "run: "),
    ],
)
def test_mistakes_are_told_in_one_line_with_file_and_key(tmp_path, changes, expected):
    path = write_list(tmp_path, **changes)
    with pytest.raises(UserError) as error:
        load_ablations(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert expected in message


def test_a_missing_base_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml: can't be read"):
        load_ablations(write_list(tmp_path, bases={"small": "none.yaml"}))


def test_changes_go_section_within_section():
    content = {"a": {"b": 1, "c": {"d": 2}}, "e": [1, 2]}
    changes = {"a": {"c": {"f": 3}}, "e": [4]}
    assert merged(content, changes) == {"a": {"b": 1, "c": {"d": 2, "f": 3}}, "e": [4]}
    assert content == {"a": {"b": 1, "c": {"d": 2}}, "e": [1, 2]}


def test_the_ready_list_is_valid():
    ablations = load_ablations(ROOT / "config" / "ablations.yaml")
    assert ablations.listed.page == Path("docs/ablations.md")
    assert len(ablations.runs) == len(set(ablations.runs))
