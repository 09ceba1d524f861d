from __future__ import annotations

import numpy as np

from data.palette import palette_of, voc_palette


def test_shape():
    palette = voc_palette()
    assert palette.shape == (256, 3)
    assert palette.dtype == np.uint8


def test_colours_of_the_development_kit():
    # Copied from the figure of the VOC 2012 kit: background, aeroplane, cat, person, train, void.
    expected = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        8: (64, 0, 0),
        15: (192, 128, 128),
        19: (128, 192, 0),
        255: (224, 224, 192),
    }
    palette = voc_palette()
    assert {i: tuple(palette[i].tolist()) for i in expected} == expected


def test_every_id_has_its_own_colour():
    assert len(np.unique(voc_palette(), axis=0)) == 256


def test_own_colours_come_before_those_of_voc():
    palette = palette_of([(1, 2, 3), (4, 5, 6)])
    assert palette[:2].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert np.array_equal(palette[2:], voc_palette()[2:])
    assert np.array_equal(palette_of(()), voc_palette())
