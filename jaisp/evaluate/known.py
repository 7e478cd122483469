"""Sources of a run's own field with what is known of them.

What is known comes from the truth of a simulated field or, on real sky, from sep's apertures on
the images themselves. Every probe of sources (photometry, morphology, reconstruction) reads the
same sources, whose tokens are encoded once.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import sep
from astropy.table import Table, vstack
from jaxtyping import Bool, Float, Int, Shaped
from scipy.spatial import cKDTree

from jaisp.config.evaluate import EvaluateConfig
from jaisp.evaluate.bootstrap import sky_units
from jaisp.evaluate.injected import AROUND, InjectedSky
from jaisp.evaluate.mosaic import Mosaic, Surroundings
from jaisp.evaluate.sources import FWHM_IN_SIGMA, find_sources, fwhm_arcsec, usable
from jaisp.evaluate.stamps import Stamps, cut_stamps, join_stamps
from jaisp.progress import track
from jaisp.sampling import in_squares
from jaisp.sky import plane_xy
from jaisp.store.correlation import DISC_OF_FWHM, correlation_within
from jaisp.store.reader import Store

SIMULATED, SEP = "simulated", "sep"
NEAR_ARCSEC, NEAR_SHARE = 2.0, 0.1
SEP_RADIUS_ARCSEC = 1.0
HALF_LIGHT_IN_SIGMA = 1.1774  # of a round Gaussian
SHAPE = ("redshift", "half_light_radius_arcsec", "e1", "e2")


@dataclass(frozen=True)
class KnownSky:
    """Sources on test and training sky, at most one a token.

    sky: the store and a row a source: cell, row, x, y (arcsec on the cell's plane), split, truth
        (`simulated` or `sep`), isolated, and per survey and band `flux_S_B` (nJy) and `snr_S_B`,
        NaN where the band is unusable at the source; of a simulated field also type, redshift,
        half_light_radius_arcsec, e1 and e2.
    tokens: row and column of each source's token in its cell. stamps: images, by survey.
    """

    sky: InjectedSky
    tokens: Int[np.ndarray, "source 2"]
    stamps: dict[str, Stamps]

    def __len__(self) -> int:
        return len(self.sky.sources)

    @property
    def truth(self) -> str:
        """Where the truth is from: `simulated` or `sep`."""
        return str(self.sky.sources["truth"][0])

    @property
    def bands(self) -> list[tuple[str, str]]:
        """Every survey and band, the band's order that of the store."""
        store = self.sky.store
        return [(survey, band) for survey in store.surveys for band in store.bands(survey)]

    @cached_property
    def is_test(self) -> Bool[np.ndarray, " source"]:
        """Whether a source lies on test sky; all others lie on training sky."""
        return np.asarray(self.sky.sources["split"]) == "test"

    @cached_property
    def units(self) -> tuple[Int[np.ndarray, " source"], str]:
        """The piece of sky that each source is drawn with, and what the pieces are."""
        cell, row = (np.asarray(self.sky.sources[name]).astype(str) for name in ("cell", "row"))
        patches, patch = np.unique(np.stack([cell, row]), axis=1, return_inverse=True)
        return sky_units(patch.ravel(), patches[0].tolist())

    @property
    def names(self) -> Shaped[np.ndarray, " source"]:
        """CELL/ROW/TOKEN of each source, its patch first."""
        place = (self.sky.sources["cell"], self.sky.sources["row"], self.tokens)
        return np.array([f"{c}/{r}/{t[0]}.{t[1]}" for c, r, t in zip(*place, strict=True)])

    def snr(self, survey: str) -> Float[np.ndarray, " source"]:
        """In quadrature over the survey's bands; 0 where it doesn't cover the source."""
        columns = [f"snr_{survey}_{band}" for band in self.sky.store.bands(survey)]
        return np.sqrt(sum(np.nan_to_num(self.sky.column(name)) ** 2 for name in columns))


def known_sky(
    store: Store, settings: EvaluateConfig, truth: Table | Path | None = None
) -> KnownSky | None:
    """The sources of test and training sky above `snr_min` in any band, the brightest of a token.

    truth: the table that `simulate` wrote, or its path; without one, or where there is no such
    file, sep's sources and apertures stand for it. At most `settings.patches_of` patches of each
    split, in squares of neighbours, evenly over the sky. None when there is no source.
    """
    if isinstance(truth, Path):
        truth = Table.read(truth, format="ascii.ecsv") if truth.exists() else None
    surroundings = Surroundings(store)
    numbers = [
        number
        for split in ("train", "test")
        for number in _drawn(store, split, settings.patches_of(split))
    ]
    by_patch = _by_patch(store, truth) if truth is not None else None
    tables, tokens, stamps = [], [], []
    for number in track(numbers, "measure sources"):
        patch = _Patch(surroundings, number)
        if by_patch is None:
            table = patch.detected()
        else:
            assert truth is not None
            table = patch.simulated(truth[by_patch.get(number, [])])
        chosen = patch.brightest(table, settings.snr_min)
        if len(chosen):
            tables.append(table[chosen])
            tokens.append(patch.tokens(table[chosen]))
            stamps.append(patch.stamps(table[chosen]))
    if not tables:
        return None
    joined = {survey: join_stamps([own[survey] for own in stamps]) for survey in store.surveys}
    sources = vstack(tables, metadata_conflicts="silent")
    return KnownSky(InjectedSky(store.run, store, sources), np.concatenate(tokens), joined)


def _drawn(store: Store, split: str, most: int) -> list[int]:
    """At most so many patches of a split that a survey covers."""
    covered = np.array([n for n in store.where(split) if store[int(n)].surveys], int)
    centres = np.column_stack([store.index.x[covered], store.index.y[covered]])
    cells = store.index.cell[covered]
    return covered[in_squares(cells, centres, store.patch_arcsec, most)].tolist()


def _by_patch(store: Store, truth: Table) -> dict[int, list[int]]:
    """Rows of the truth table by the number of the patch that they lie on; adds x, y, isolated."""
    rows: dict[int, list[int]] = {}
    truth["x"], truth["y"] = np.nan, np.nan
    for cell in store.cells:
        plane = store.cell(cell)
        xy = np.stack(plane_xy(plane, np.asarray(truth["ra"]), np.asarray(truth["dec"])), axis=1)
        numbers = np.flatnonzero(np.asarray(store.index.cell) == cell)
        half = store.patch_arcsec / 2
        _, nearest = cKDTree(plane.centres).query(np.nan_to_num(xy, nan=1e9), p=np.inf)
        inside = (np.abs(xy - plane.centres[nearest]) < half).all(axis=1)
        for row in np.flatnonzero(inside):
            rows.setdefault(int(numbers[nearest[row]]), []).append(int(row))
        truth["x"][inside], truth["y"][inside] = xy[inside].T
    truth["isolated"] = _isolated(truth)
    return rows


def _isolated(truth: Table) -> Bool[np.ndarray, " source"]:
    """Whether no other source within NEAR_ARCSEC has NEAR_SHARE of a source's flux, all bands
    together."""
    columns = [name for name in truth.colnames if name.startswith("flux_")]
    flux = np.sum([np.asarray(truth[name], float) for name in columns], axis=0)
    ra, dec = (
        np.radians(np.asarray(truth["ra"], float)),
        np.radians(np.asarray(truth["dec"], float)),
    )
    sphere = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)
    pairs = cKDTree(sphere).query_pairs(np.radians(NEAR_ARCSEC / 3600), output_type="ndarray")
    isolated = np.ones(len(truth), bool)
    for first, second in (pairs.T, pairs.T[::-1]):
        isolated[first[flux[second] > NEAR_SHARE * flux[first]]] = False
    return isolated


class _Patch:
    """One patch in every survey, with a margin of AROUND tokens of the sky that it may see."""

    def __init__(self, surroundings: Surroundings, number: int) -> None:
        store = surroundings.store
        self.store, self.number, self.patch = store, number, store[number]
        self.mosaics: dict[str, Mosaic] = {
            survey: surroundings.mosaic(number, survey, AROUND * store.pixels_per_token(survey))
            for survey in store.surveys
        }
        self._corner = np.array([self.patch.x, self.patch.y]) - store.patch_arcsec / 2
        self._margin = AROUND * store.token_arcsec

    def simulated(self, truth: Table) -> Table:
        """The truth's rows with the S/N that the noise here gives their fluxes."""
        table = Table({"x": np.asarray(truth["x"]), "y": np.asarray(truth["y"])})
        size = np.asarray(truth["half_light_radius_arcsec"], float) / HALF_LIGHT_IN_SIGMA
        for survey, mosaic in self.mosaics.items():
            seeing = fwhm_arcsec(mosaic) / FWHM_IN_SIGMA
            sigma = np.sqrt(seeing**2 + size[:, None] ** 2)
            # A matched filter of a Gaussian as wide as the source and the PSF.
            noise = self._noise(survey, self._within(table)) / mosaic.grid_arcsec
            disc = DISC_OF_FWHM * FWHM_IN_SIGMA * sigma
            noise = noise * np.sqrt(4 * np.pi) * sigma * self._correlation(survey, disc)
            for number, band in enumerate(mosaic.bands):
                table[f"flux_{survey}_{band}"] = np.where(
                    np.isfinite(noise[:, number]), truth[f"flux_{survey}_{band}"], np.nan
                )
                table[f"snr_{survey}_{band}"] = (
                    np.asarray(table[f"flux_{survey}_{band}"]) / noise[:, number]
                )
        for name in (*SHAPE, "type", "isolated"):
            table[name] = np.asarray(truth[name])
        return self._with_place(table, SIMULATED)

    def detected(self) -> Table:
        """What sep finds on the patch itself, with its fluxes within SEP_RADIUS_ARCSEC."""
        views = {survey: self.patch[survey] for survey in self.patch.surveys}
        cell = self.patch.cell
        found = find_sources(views, {s: self.store.noise_correlation(cell, s) for s in views})
        table = Table(
            {"x": found.xy[:, 0] + self._corner[0], "y": found.xy[:, 1] + self._corner[1]}
        )
        for survey, mosaic in self.mosaics.items():
            good = usable(mosaic)
            noise = self._noise(survey, self._within(table))
            correlation = self._correlation(survey, 2 * SEP_RADIUS_ARCSEC)
            x, y = (self._within(table) / mosaic.grid_arcsec - 0.5).T.copy()
            for number, band in enumerate(mosaic.bands):
                flux, error, _ = sep.sum_circle(
                    np.where(good[number], mosaic.flux[number], 0).astype(np.float32),
                    x,
                    y,
                    SEP_RADIUS_ARCSEC / mosaic.grid_arcsec,
                    err=np.where(good[number], mosaic.noise[number], 1).astype(np.float32),
                    mask=~good[number],
                )
                flux = np.where(np.isfinite(noise[:, number]), flux, np.nan)
                table[f"flux_{survey}_{band}"] = flux
                table[f"snr_{survey}_{band}"] = flux / error / correlation[number]
        near = cKDTree(found.xy).query_ball_point(found.xy, NEAR_ARCSEC, return_length=True)
        table["isolated"] = np.asarray(near, int) == 1 if len(found) else np.zeros(0, bool)
        return self._with_place(table, SEP)

    def brightest(self, table: Table, snr_min: float) -> Int[np.ndarray, " kept"]:
        """Rows above `snr_min` in any band, the one of the highest S/N on each token."""
        names = [name for name in table.colnames if name.startswith("snr_")]
        snr = np.stack([np.nan_to_num(np.asarray(table[name], float)) for name in names])
        total = np.sqrt((np.maximum(snr, 0) ** 2).sum(axis=0))
        order = np.argsort(-total, kind="stable")
        order = order[snr.max(axis=0, initial=0)[order] >= snr_min]
        _, first = np.unique(self.tokens(table)[order], axis=0, return_index=True)
        return np.sort(order[first])

    def tokens(self, table: Table) -> Int[np.ndarray, "source 2"]:
        """Row and column of each source's token in its cell."""
        own = np.asarray(self.store.index.cell) == self.patch.cell
        steps = self._corner - [self.store.index.x[own].min(), self.store.index.y[own].min()]
        steps = np.round((steps + self.store.patch_arcsec / 2) / self.store.token_arcsec)
        inside = np.floor((self._within(table) - self._margin) / self.store.token_arcsec)
        return (steps + inside)[:, ::-1].astype(int)

    def stamps(self, table: Table) -> dict[str, Stamps]:
        """Images of the sources, by survey."""
        return {
            survey: cut_stamps(mosaic, self.store.pixels_per_token(survey), self._within(table))
            for survey, mosaic in self.mosaics.items()
        }

    def _with_place(self, table: Table, truth: str) -> Table:
        table["cell"], table["row"] = self.patch.cell, self.patch.row
        table["split"], table["truth"] = self.patch.split, truth
        return table

    def _within(self, table: Table) -> Float[np.ndarray, "source 2"]:
        """x, y in arcsec from the margin's corner."""
        place = np.stack([np.asarray(table["x"]), np.asarray(table["y"])], axis=1)
        return place - self._corner + self._margin

    def _noise(self, survey: str, xy: np.ndarray) -> Float[np.ndarray, "source band"]:
        """1σ of the pixels that the sources lie on; NaN where unusable."""
        mosaic = self.mosaics[survey]
        x, y = np.floor(xy / mosaic.grid_arcsec).astype(int).T
        noise = np.where(usable(mosaic)[:, y, x], mosaic.noise[:, y, x], np.nan)
        return noise.T.astype(float)

    def _correlation(
        self, survey: str, diameters: np.ndarray | float
    ) -> Float[np.ndarray, "*source band"]:
        known = self.store.noise_correlation(self.patch.cell, survey)
        return correlation_within(known, diameters, self.store.grid_arcsec(survey))
