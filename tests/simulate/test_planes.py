import numpy as np
import pytest
from astropy.io import fits

from jaisp.simulate.planes import compressed


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("shape", [(1, 1), (256, 256), (300, 517)])
def test_a_compressed_plane_reads_back_exactly_whole_and_in_sections(tmp_path, dtype, shape):
    rng = np.random.default_rng(1)
    plane = (rng.normal(10.0, 3.0, shape)).astype(dtype)
    if dtype is np.float32:
        plane[0, 0], plane[-1, -1] = np.nan, 1e20
    path = tmp_path / "plane.fits"
    header = fits.Header({"CRVAL1": 12.5, "FILTER": "r"})
    fits.HDUList([fits.PrimaryHDU(), compressed(plane, header, "RMS")]).writeto(path)
    with fits.open(path) as hdus:
        hdu = hdus["RMS"]
        assert isinstance(hdu, fits.CompImageHDU)
        assert hdu.shape == shape
        assert (hdu.header["CRVAL1"], hdu.header["FILTER"]) == (12.5, "r")
        part = np.s_[shape[0] // 3 : shape[0] // 3 + 40, shape[1] // 2 :]
        np.testing.assert_array_equal(hdu.section[part], plane[part])
        np.testing.assert_array_equal(hdu.data, plane)
        assert hdu.data.dtype.newbyteorder("=") == dtype
