"""One tile, read in parts: flux, noise and flags in its own units, its WCS, zero point and PSF."""

from functools import cached_property

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import wcs_to_celestial_frame
from jaxtyping import Float32, UInt8

from jaisp.archives.tile import Plane, Tile
from jaisp.errors import TileError
from jaisp.sky import given_wcs
from jaisp.store.layout import Flag
from jaisp.warp.background import Background, background_rows, measure_background
from jaisp.warp.fits_plane import FitsPlane, open_fits, reading
from jaisp.warp.moffat import stamp_fwhm
from jaisp.warp.pixel_map import pixel_arcsec
from jaisp.warp.scratch import Scratch
from jaisp.warp.usable import mark_pixels
from jaisp.warp.verified import verify_bytes
from jaisp.warp.windows import Findings, Section, look
from jaisp.zeropoint import zeropoint


class TileReader:
    """Opens a tile; pixels are read when asked for.

    Attributes
    ----------
    tile: what the archive told of it. scratch: room for what is unpacked.
    shape: rows and columns. wcs: celestial, two axes. pixel_arcsec: mean pixel size.
    zeropoint: AB magnitude of one unit, or None when uncalibrated.

    Raises TileError when a file can't be read, planes don't fit one another, the WCS or the zero
    point is missing, and UserError when a file is not the one that was fetched any more.
    """

    def __init__(self, tile: Tile, scratch: Scratch | None = None) -> None:
        self.tile = tile
        self._scratch = scratch or Scratch()
        self._files: dict[str, fits.HDUList] = {}
        self._planes: list[FitsPlane] = []
        try:
            self._science = self._plane(tile.science)
            self.shape = self._science.shape
            self._needed = slice(0, self.shape[0]), slice(0, self.shape[1])
            self._noise = self._companion(tile.noise)
            self._mask = self._companion(tile.mask)
            if self._noise is None and tile.noise_kind != "estimate":
                raise TileError(f"noise of kind {tile.noise_kind} has no plane")
            self.wcs = self._read_wcs()
            self.pixel_arcsec = pixel_arcsec(self.wcs)
            self.zeropoint = self._read_zeropoint()
            self.saturation = self._read_saturation()
            self.psf_stamp = self._read_psf()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the files and forget what was unpacked."""
        for plane in self._planes:
            plane.forget()
        for hdus in self._files.values():
            hdus.close()
        self._files = {}

    def opened(self) -> "TileReader":
        """This reader, or a new one of the same tile when it was closed."""
        if self._files:
            return self
        again = TileReader(self.tile, self._scratch)
        again.need(*self._needed)
        return again

    def need(self, rows: slice, columns: slice) -> None:
        """Say which part of the tile will be asked for (default: all of it): the rest is neither
        unpacked nor looked at. What lies beyond can still be read, slowly."""
        rows, columns = (
            slice(min(max(part.start, 0), size), max(min(part.stop, size), 0))
            for part, size in zip((rows, columns), self.shape, strict=True)
        )
        self._needed = rows, columns
        if self._measures_sky:
            rows, columns = background_rows(rows, self.shape[0]), slice(0, self.shape[1])
        for plane in (self._science, self._noise, self._mask):
            if plane is not None:
                plane.need(rows, columns)

    def section(self, rows: slice, columns: slice) -> Section:
        """Read a part, which may reach beyond the tile: there it is EDGE.

        Flags: EDGE where the flux is NaN, BAD where the noise is invalid or the mask says so,
        SATURATED at or above the header's SATURATE.
        """
        inner_rows, inner_columns = (
            slice(max(part.start, 0), max(min(part.stop, size), max(part.start, 0)))
            for part, size in zip((rows, columns), self.shape, strict=True)
        )
        inner = self._inner(inner_rows, inner_columns)
        before = (inner_rows.start - rows.start, inner_columns.start - columns.start)
        after = (rows.stop - inner_rows.stop, columns.stop - inner_columns.stop)
        if not any(before) and not any(after):
            return inner
        around = tuple(zip(before, after, strict=True))
        return Section(
            np.pad(inner.flux, around, constant_values=np.nan),
            np.pad(inner.noise, around, constant_values=np.nan),
            np.pad(inner.flags, around, constant_values=np.uint8(Flag.EDGE)),
        )

    @property
    def header(self) -> fits.Header:
        """The science plane's header."""
        return self._science.header

    def science(self) -> Float32[np.ndarray, "y x"]:
        """All of the science plane as it stands in the file, whatever is usable of it."""
        whole = slice(0, self.shape[0]), slice(0, self.shape[1])
        return np.array(self._science.section(*whole), np.float32)

    def psf_fwhm_arcsec(self, x: float, y: float) -> float:
        """FWHM at a pixel position, pixel included: of the stamp, as given, or of stars; or NaN."""
        if self.psf_stamp is not None:
            return self._stamp_fwhm * self.pixel_arcsec
        if self.tile.psf_fwhm_arcsec is not None:
            return self.tile.psf_fwhm_arcsec
        return self._findings.stars.fwhm_at(x, y) * self.pixel_arcsec

    @property
    def psf_source(self) -> str:
        """Where the PSF's width comes from: `stamp`, `given`, `stars` or `none`."""
        if self.psf_stamp is not None:
            return "stamp"
        if self.tile.psf_fwhm_arcsec is not None:
            return "given"
        return "stars" if self._findings.stars.fwhm.size else "none"

    @property
    def noise_includes_sources(self) -> bool:
        """Whether the noise plane is higher on sources than on the sky beside them."""
        return self.tile.noise is not None and self._findings.noise_includes_sources

    def _plane(self, plane: Plane) -> FitsPlane:
        path = str(plane.path)
        if path not in self._files:
            verify_bytes(plane)
            self._files[path] = open_fits(path)
        self._planes.append(FitsPlane(self._files[path], plane, self._scratch))
        return self._planes[-1]

    def _companion(self, plane: Plane | None) -> FitsPlane | None:
        if plane is None:
            return None
        found = self._plane(plane)
        if found.shape != self.shape:
            raise TileError(f"{found.name}: is {found.shape}, its science plane {self.shape}")
        return found

    def _read_wcs(self) -> WCS:
        if isinstance(self.tile.wcs, dict):
            return given_wcs(self.shape, **self.tile.wcs)
        with reading(self._science.name):
            hdus = self._files[str(self.tile.science.path)]
            wcs = WCS(self._science.header, hdus)
            if not wcs.has_celestial:
                raise TileError(
                    f"{self._science.name}: has no celestial WCS; "
                    "give `wcs: {ra, dec, pixel_arcsec}`"
                )
            if wcs.naxis > 2:
                wcs = wcs.celestial
            centre = wcs.all_pix2world((self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2, 0)
            # A frame that astropy doesn't know fails here, not later.
            wcs_to_celestial_frame(wcs)
            if not np.isfinite(centre).all():
                raise TileError(f"{self._science.name}: its WCS gives no sky for its centre")
            return wcs

    def _read_zeropoint(self) -> float | None:
        named = self.tile.zeropoint
        if not isinstance(named, str):
            return named
        try:
            return zeropoint(named, self._science.header)
        except KeyError as error:
            raise TileError(
                f"{self._science.name}: its header has no key {error.args[0]} (zeropoint)"
            ) from None
        except ValueError as error:
            raise TileError(f"{self._science.name}: {named}: no zero point ({error})") from None

    def _read_saturation(self) -> float:
        level = self._science.header.get("SATURATE")
        real = isinstance(level, int | float) and np.isfinite(level) and level > 0
        return float(level) if real else np.inf

    def _read_psf(self) -> Float32[np.ndarray, "k k"] | None:
        """The stamp, normalised to a sum of 1."""
        if self.tile.psf is None:
            return None
        plane = self._plane(self.tile.psf)
        stamp = plane.section(slice(0, plane.shape[0]), slice(0, plane.shape[1])).astype(float)
        if stamp.shape[0] != stamp.shape[1] or not np.isfinite(stamp).all() or stamp.sum() <= 0:
            raise TileError(f"{plane.name}: is no PSF stamp (square, finite, a positive sum)")
        return (stamp / stamp.sum()).astype(np.float32)

    @cached_property
    def _stamp_fwhm(self) -> float:
        assert self.psf_stamp is not None
        return stamp_fwhm(self.psf_stamp)

    @cached_property
    def _background(self) -> Background:
        rows = background_rows(self._needed[0], self.shape[0])
        return measure_background(self._flux_and_bad, rows, self.shape[1])

    @property
    def _measures_sky(self) -> bool:
        """Whether the tile's own sky is measured: for its level, or for want of a noise plane."""
        return self._noise is None or self.tile.subtract_sky

    @cached_property
    def _findings(self) -> Findings:
        return look(self._inner, *self._needed)

    def _flux_and_bad(self, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        flux = self._science.section(rows, columns).astype(np.float32)
        _, flags = self._mark(flux.copy(), rows, columns, np.ones_like(flux))
        return flux, flags != 0

    def _mark(
        self,
        flux: Float32[np.ndarray, "y x"],
        rows: slice,
        columns: slice,
        sky_noise: Float32[np.ndarray, "y x"] | None,
    ) -> tuple[Float32[np.ndarray, "y x"], UInt8[np.ndarray, "y x"]]:
        """1σ noise, that of the sky if no plane tells, and flags; unusable flux becomes NaN."""
        noise, kind = sky_noise, "rms"
        if self._noise is not None:
            noise, kind = self._noise.section(rows, columns), self.tile.noise_kind
        assert noise is not None
        mask = None if self._mask is None else self._mask.section(rows, columns)
        return mark_pixels(flux, noise, mask, kind, self.saturation, self.tile.bad_bits)

    def _inner(self, rows: slice, columns: slice) -> Section:
        """A part within the tile."""
        flux = np.array(self._science.section(rows, columns), np.float32)
        level: np.ndarray | None = None
        sky_noise: np.ndarray | None = None
        if self._measures_sky:
            level, sky_noise = self._background.section(rows, columns)
        noise, flags = self._mark(flux, rows, columns, sky_noise)
        if self.tile.subtract_sky and level is not None:
            flux -= level
        return Section(flux, noise, flags)
