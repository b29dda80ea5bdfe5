"""HDR and wide gamut against the numbers of the standards."""

import numpy as np
import pytest

from kinema.io.tone import (
    PEAK,
    WHITE,
    ToSRGB,
    eetf,
    hlg_decode,
    pq_decode,
    pq_encode,
    srgb_decode,
    srgb_encode,
    to_bt709,
)


def codes(*pixels):
    """One row of 16-bit pixels from codes in 0..1."""
    return (np.array([pixels]) * 65535).round().astype(np.uint16)


def test_pq_has_the_codes_of_its_standard():
    # ITU-R BT.2408, table 1 and ST 2084: 0, 26, 100, 203, 1000, 10000 cd/m2
    assert pq_encode(np.array([26, 100, 203, 1000, 10_000.0])) == pytest.approx(
        [0.38, 0.508, 0.581, 0.752, 1.0], abs=2e-3
    )
    light = np.array([0.001, 0.1, 1, 58, 203, 4000])
    assert pq_decode(pq_encode(light)) == pytest.approx(light, rel=1e-9)


def test_hlg_has_the_levels_of_its_standard():
    assert hlg_decode(np.array([0.0, 0.5, 1.0])) == pytest.approx([0, 1 / 12, 1], abs=1e-6)
    assert hlg_decode(np.array([0.75])) == pytest.approx([0.265], abs=1e-3)  # reference white


def test_reference_white_of_both_is_the_same_gray():
    pq = ToSRGB("smpte2084", "bt2020")(codes([0.5807] * 3))[0, 0]
    hlg = ToSRGB("arib-std-b67", "bt2020")(codes([0.75] * 3))[0, 0]
    assert len(set(pq)) == len(set(hlg)) == 1
    assert abs(int(pq[0]) - int(hlg[0])) <= 1
    # BT.2390 by hand: PQ 0.5807 is e = 0.7724 of the peak, t = 1/3, 0.5554 after the spline, 158 cd/m2
    assert pq[0] == pytest.approx(255 * srgb_encode(np.array(158 / 203)), abs=1)


def test_dark_parts_keep_their_light_and_the_peak_is_white():
    light = np.array([0.5, 2.03, 20.3, 80.0])
    shown = ToSRGB("smpte2084", "bt709")(codes(*([p] * 3 for p in pq_encode(light))))[0, :, 0]
    assert shown == pytest.approx(255 * srgb_encode(light / WHITE), abs=0.6)
    assert (ToSRGB("smpte2084", "bt2020")(codes([pq_encode(np.array(PEAK))] * 3, [1, 1, 1])) == 255).all()


def test_the_roll_off_never_falls_and_never_jumps():
    code = np.linspace(0, 1, 4001)
    rolled = eetf(code)
    assert (np.diff(rolled) >= -1e-12).all()
    assert np.diff(rolled).max() < 1.5 * np.diff(code).max()
    assert rolled.max() == pytest.approx(pq_encode(np.array(WHITE)))


def test_a_highlight_keeps_its_hue():
    bright = pq_encode(np.array([800.0, 400.0, 200.0]))
    shown = srgb_decode(ToSRGB("smpte2084", "bt709")(codes(bright))[0, 0] / 255)
    assert shown / shown[0] == pytest.approx([1, 0.5, 0.25], abs=0.01)


def test_primaries_are_those_of_the_standards():
    # ITU-R BT.2087: BT.2020 to BT.709
    known = [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
    assert to_bt709("bt2020") == pytest.approx(np.array(known), abs=2e-4)
    for name in ("bt2020", "smpte431", "smpte432", "bt709", "unknown"):
        assert to_bt709(name).sum(axis=1) == pytest.approx([1, 1, 1])  # white stays white


@pytest.mark.parametrize("primaries", ["bt2020", "smpte432"])
def test_a_colour_of_bt709_comes_back_from_wide_primaries(primaries):
    wanted = np.array([[255, 0, 0], [0, 200, 90], [31, 62, 93], [128, 128, 128]])
    wide = srgb_decode(wanted / 255) @ np.linalg.inv(to_bt709(primaries)).T
    shown = ToSRGB("bt709", primaries)(codes(*srgb_encode(wide)))[0]
    assert abs(shown.astype(int) - wanted).max() <= 1


def test_bands_and_alpha():
    frame = np.random.default_rng(0).integers(0, 65536, (3000, 700, 4), dtype=np.uint16)
    convert = ToSRGB("smpte2084", "bt2020")
    whole = convert(frame)
    assert np.array_equal(whole[1400:1600], convert(frame[1400:1600]))  # bands do not show
    assert np.array_equal(whole[..., 3], (frame[..., 3] / 257).round())
