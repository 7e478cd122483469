"""Tell a derived run of its tiles, as plan and fetch would: they were written a moment ago, and go
again once they are warped, so that the shared cache never sees them."""

from collections.abc import Sequence

from jaisp.archives import Tile
from jaisp.archives.table import plane_key, tile_planes, write_tiles
from jaisp.config import Config
from jaisp.files import write_receipt
from jaisp.sky import footprint
from jaisp.warp.tile import TileReader


def register(derived: Config, tiles: Sequence[tuple[Tile, TileReader]]) -> None:
    """Write the derived run's tiles.ecsv and the receipt of their fetching."""
    write_tiles(derived, [tile for tile, _ in tiles])
    planes: dict[str, dict] = {}
    for tile, reader in tiles:
        for name, plane in tile_planes(tile).items():
            # An absolute path stands for itself below any folder, the cache's too.
            file = str(plane.path.absolute()) if hasattr(plane.path, "absolute") else plane.path
            entry = {"file": file, "bytes": plane.bytes, "sha256": plane.sha256}
            planes[plane_key(tile, name)] = entry
        circle = [float(value) for value in footprint(reader.wcs, reader.shape)]
        planes[plane_key(tile, "science")]["footprint"] = circle
    write_receipt(derived, "fetch", "batch0", {"planes": planes, "failed": []})
