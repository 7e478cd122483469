"""Which skies with known answers a run has, by name. Light: every dry run reads this module."""

from jaisp.config import Config
from jaisp.config.survey import FilesArchive
from jaisp.sky import Cell

EMPTY, CROWDED, PAIRS, DISPLACED = "empty", "crowded", "pairs", "displaced"
SECOND, SECOND_EMPTY = "second", "second_empty"
FEWEST_PATCHES = 4


def sky_names(config: Config, sky_cells: list[Cell]) -> list[str]:
    """The skies of a run: `empty`, its copies `empty2`, `empty3`…, and so on."""
    if why_none(config, sky_cells):
        return []
    simulated = all(s.archive.kind == "simulated" for s in config.surveys.values())
    copied = [EMPTY, CROWDED, PAIRS, *([SECOND_EMPTY] if simulated else [])]
    return [
        *(copy_name(kind, n) for kind in copied for n in range(1, config.inject.copies + 1)),
        DISPLACED,
        *([SECOND] if simulated else []),
    ]


def copy_name(kind: str, number: int) -> str:
    """The name of a copy of a sky, counted from 1: the first has the sky's own."""
    return kind if number == 1 else f"{kind}{number}"


def kind_of(name: str) -> str:
    """Which kind of sky a name stands for."""
    return name.rstrip("0123456789")


def why_none(config: Config, sky_cells: list[Cell]) -> str | None:
    """Why a run has no injected sky; None when it has."""
    if config.inject.copies == 0:
        return "inject.copies is 0"
    for survey, content in config.surveys.items():
        if isinstance(content.archive, FilesArchive):
            for image in content.archive.images:
                if image.band in content.bands and image.zeropoint is None:
                    return f"{survey} {image.band} is uncalibrated"
    if not _has_patches(sky_cells):
        return f"the sky has fewer than {FEWEST_PATCHES} patches"
    return None


def _has_patches(sky_cells: list[Cell]) -> bool:
    # Cells of a wide sky work their patches out when asked: the first ones tell.
    found = 0
    for cell in sky_cells:
        found += len(cell)
        if found >= FEWEST_PATCHES:
            return True
    return False
