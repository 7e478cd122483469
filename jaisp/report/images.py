"""Pictures in the page: matched patches, embedding maps, and the overview for the README."""

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure
from PIL import Image

from jaisp.config import Config
from jaisp.embedding.maps import embedded, read_basis, token_grids
from jaisp.embedding.mosaic import Mosaic, Planes, signal_to_noise
from jaisp.embedding.picture import colour_bands, component_rgb, grey, image_rgb
from jaisp.files import atomic_write
from jaisp.store.reader import Patch, Store

EXAMPLES = 3
CANDIDATES = 60
OVERVIEW_TOKENS = 64
DARK = "#0e1116"
LIGHT = "#e8e6e1"


@dataclass(frozen=True)
class Panel:
    """One picture with its words. width, height: of the picture in pixels."""

    source: str
    alt: str
    title: str
    note: str
    width: int
    height: int


@dataclass(frozen=True)
class Example:
    """A patch of sky in every band of every survey."""

    title: str
    surveys: list[tuple[str, list[Panel]]] = field(default_factory=list)


def inline(picture: UInt8[np.ndarray, "y x *colour"], kind: str, widest: int = 1400) -> str:
    """A picture as a data URI, first row at the bottom: `JPEG` for skies, `PNG` for maps."""
    image = Image.fromarray(picture[::-1])
    if max(image.size) > widest:
        image.thumbnail((widest, widest))
    buffer = io.BytesIO()
    options = {"quality": 84} if kind == "JPEG" else {"optimize": True}
    image.save(buffer, format=kind, **options)
    return _data_uri(buffer.getvalue(), kind)


def inline_file(path: Path, title: str, widest: int = 1800) -> Panel:
    """A picture file as a panel, made smaller if it is wider than needed."""
    with Image.open(path) as image:
        image.load()
        width, height = image.size
        content, kind = path.read_bytes(), "PNG"
        if max(width, height) > widest:
            smaller = image.convert("RGB")
            smaller.thumbnail((widest, widest))
            width, height = smaller.size
            buffer = io.BytesIO()
            smaller.save(buffer, format="JPEG", quality=88)
            content, kind = buffer.getvalue(), "JPEG"
    return Panel(_data_uri(content, kind), title, title, "", width, height)


def rich_patches(store: Store, count: int = EXAMPLES) -> list[Patch]:
    """The patches that show most, of some spread over the field and covered by most surveys."""
    covered = np.stack([store.coverage(name).min(axis=1) for name in store.surveys])
    whole = np.sort(covered, axis=0)
    # The best patches by how well their worst survey is covered, then by their second worst.
    order = np.lexsort((whole.sum(axis=0), whole[0].round(2)))[::-1]
    best = whole[0] >= min(0.95, float(whole[0].max()))
    order = np.array([number for number in order if best[number]])
    chosen = np.sort(order)[:: max(1, len(order) // CANDIDATES)]
    scored = sorted(chosen, key=lambda number: (-_richness(store[int(number)]), number))
    return [store[int(number)] for number in scored[:count]]


def examples(config: Config, store: Store) -> list[Example]:
    """Some rich patches, every band of every survey side by side, the same sky, north up."""
    return [
        Example(
            f"{patch.name}, {patch.ra:.4f}° {patch.dec:+.4f}°, split: {patch.split}".replace(
                "-", "\u2212"
            ),
            [(survey, _panels(patch, survey)) for survey in config.surveys if survey in patch],
        )
        for patch in rich_patches(store)
    ]


def maps(config: Config, most: int = 2) -> list[tuple[str, list[tuple[str, Panel, Panel]]]]:
    """For the first cells, (survey, image, embedding) from the pictures that embed made."""
    folder = config.results / "maps"
    found: dict[str, list[tuple[str, Panel, Panel]]] = {}
    for cell, survey in embedded(config):
        image, coloured = folder / f"{cell}_{survey}_image.png", folder / f"{cell}_{survey}.png"
        drawn = image.is_file() and coloured.is_file()
        if drawn and (cell in found or len(found) < most):
            pair = _map_pair(image, coloured, cell, survey)
            found.setdefault(cell, []).append((survey, *pair))
    return list(found.items())


def write_overview(config: Config, store: Store) -> Path | None:
    """Write results/RUN/figures/overview.png: images and embeddings of the same sky, in a row.

    None when nothing is embedded yet.
    """
    patches = rich_patches(store, 1)
    basis = read_basis(config)
    if not patches or basis is None:
        return None
    cell = patches[0].cell
    grids = {grid.survey: grid for grid in token_grids(config) if grid.cell == cell}
    surveys = [survey for survey in config.surveys if survey in grids][:2]
    if not surveys:
        return None
    pictures, titles = [], []
    for survey in surveys:
        mosaic = Mosaic(store, cell, survey)
        y, x, height, width = _around(mosaic, patches[0])
        planes = mosaic.read(y, x, height, width)
        pictures.append(_colour(planes, mosaic.bands))
        shown = [mosaic.bands[k] for k in colour_bands(mosaic.bands)]
        titles.append(f"{survey}, {' '.join(shown)}")
    for survey in surveys:
        window = grids[survey].tokens[:, y : y + height, x : x + width]
        pictures.append(component_rgb(basis.project(window), basis.spread))
        titles.append(f"{survey}, embedding")
    path = config.results / "figures" / "overview.png"
    side = width * store.token_arcsec, height * store.token_arcsec
    _save_row(path, pictures, titles, side)
    return path


def _panels(patch: Patch, survey: str) -> list[Panel]:
    view = patch[survey]
    panels = []
    for k, band in enumerate(view.bands):
        if view.coverage[k] <= 0:
            continue
        picture = grey(view.flux[k], view.noise[k])
        fwhm = view.psf_fwhm_arcsec[k]
        psf = f", PSF {fwhm:.2f}″" if np.isfinite(fwhm) else ""
        height, width = picture.shape
        panels.append(
            Panel(
                inline(picture, "JPEG"),
                f"Patch {patch.name} in {survey} {band}, north up",
                band,
                f"{view.grid_arcsec:.3g}″/px{psf}",
                width,
                height,
            )
        )
    return panels


def _richness(patch: Patch) -> float:
    """The share of a patch's squares that hold a source, in the survey that shows fewest."""
    shares = []
    for survey in patch.surveys:
        view = patch[survey]
        n = patch.store.pixels_per_token(survey)
        planes = Planes(view.flux, view.noise, view.mask)
        signal = signal_to_noise(planes, n, np.full(len(view.bands), 2.0))
        shares.append(float((signal > 5).mean()))
    return min(shares, default=0.0)


def _map_pair(image: Path, coloured: Path, cell: str, survey: str) -> tuple[Panel, Panel]:
    pair = []
    for path, kind, word in ((image, "JPEG", "Image"), (coloured, "PNG", "Embedding")):
        with Image.open(path) as opened:
            pixels = np.asarray(opened.convert("RGB"))[::-1]
        height, width = pixels.shape[:2]
        alt = f"{word} of cell {cell} in {survey}, north up"
        pair.append(Panel(inline(pixels, kind, 1100), alt, word, "", width, height))
    return pair[0], pair[1]


def _around(mosaic: Mosaic, patch: Patch) -> tuple[int, int, int, int]:
    """A window of tokens with a patch in its middle, inside the cell: y, x, height, width."""
    height, width = (min(side, OVERVIEW_TOKENS) for side in mosaic.shape)
    y = round((patch.y - mosaic.y0) / mosaic.token_arcsec) - height // 2
    x = round((patch.x - mosaic.x0) / mosaic.token_arcsec) - width // 2
    y = int(np.clip(y, 0, mosaic.shape[0] - height))
    x = int(np.clip(x, 0, mosaic.shape[1] - width))
    return y, x, height, width


def _colour(planes: Planes, bands: list[str]) -> UInt8[np.ndarray, "y x 3"]:
    shown = colour_bands(bands)
    flux = np.where(planes.valid, planes.flux, np.nan)
    return image_rgb(flux[shown], planes.noise[shown])


def _save_row(
    path: Path, pictures: list[np.ndarray], titles: list[str], side: tuple[float, float]
) -> None:
    each, gap, head = 4.0, 0.06, 0.34
    tall = each * side[1] / side[0]
    width = len(pictures) * each + (len(pictures) + 1) * gap
    height = tall + head + gap
    with matplotlib.rc_context({"font.size": 11}):
        figure = Figure(figsize=(width, height), facecolor=DARK)
        for k, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
            left = gap + k * (each + gap)
            ax = figure.add_axes(
                (left / width, gap / height, each / width, tall / height), facecolor=DARK
            )
            ax.imshow(
                picture,
                origin="lower",
                extent=(0, side[0], 0, side[1]),
                interpolation="nearest" if picture.shape[1] < 200 else "antialiased",
            )
            ax.set_axis_off()
            ax.set_title(title, color=LIGHT, loc="left", pad=6)
            if k == 0:
                _scale_bar(ax, side)
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120, facecolor=DARK)


def _scale_bar(ax: matplotlib.axes.Axes, side: tuple[float, float]) -> None:
    bar = max((b for b in (1, 2, 5, 10, 20, 30, 60) if b <= side[0] / 4), default=1)
    x, y = 0.05 * side[0], 0.06 * side[1]
    ax.plot([x, x + bar], [y, y], color=LIGHT, linewidth=2, solid_capstyle="butt")
    ax.text(x + bar / 2, y + 0.02 * side[1], f"{bar}″", color=LIGHT, ha="center", va="bottom")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content).decode()}"
