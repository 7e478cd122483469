"""Archives: where a survey's tiles are found, one module a kind, all answering with `Tile`s."""

from collections.abc import Callable

from jaisp.archives import files, sia2, simulated, template
from jaisp.archives.tile import Plane, Tile
from jaisp.config import Config

# kind -> function that lists a survey's tiles
KINDS: dict[str, Callable[[Config, str], list[Tile]]] = {
    "files": files.find_tiles,
    "sia2": sia2.find_tiles,
    "simulated": simulated.find_tiles,
    "template": template.find_tiles,
}


def find_tiles(config: Config, survey: str) -> list[Tile]:
    """Ask a survey's archive for the tiles of its bands; UserError where it lacks a band."""
    return KINDS[config.surveys[survey].archive.kind](config, survey)


__all__ = ["Plane", "Tile", "find_tiles"]
