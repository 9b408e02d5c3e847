"""Fields on a torus: fractal noise, cells around random points; moved and blurred."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating[Any]]
"""A picture (rows, cols), float32 wherever it comes out of this package."""

Size = tuple[int, int]
"""(rows, cols)."""


@dataclass(frozen=True)
class Spectrum:
    """Power spectrum of a random field.

    Attributes
    ----------
    slope
        Of the power along a line against wavenumber: -5/3 for turbulence, -3 for smooth fields.
    outer_px
        Wavelength above which the power stays level.
    stretch, angle_deg
        Structures are `stretch` times longer along this direction, counted from the column axis
        towards lower rows.
    peaked
        Power falls off above `outer_px` too, so that structures of that size repeat.
    inner_px
        Wavelength below which the slope is steeper by 2: light leaks sideways in a cloud, which
        smooths it below some 200 m (the Landsat scale break of Davis et al. 1997).
    """

    slope: float
    outer_px: float
    stretch: float = 1.0
    angle_deg: float = 0.0
    peaked: bool = False
    inner_px: float = 0.0

    def amplitude(self, size: Size) -> Field:
        """Amplitude (rows, cols // 2 + 1) of the waves of a real transform of `size`."""
        down, across = _wavenumbers(size)
        cos, sin = math.cos(math.radians(self.angle_deg)), math.sin(math.radians(self.angle_deg))
        squared = (self.stretch * (cos * across - sin * down)) ** 2 + (
            sin * across + cos * down
        ) ** 2
        outer = 1.0 / self.outer_px**2
        amplitude: Field = np.exp(np.log(squared + outer) * ((self.slope - 1.0) / 4.0))
        if self.peaked:
            amplitude *= (squared / (squared + outer)) ** 2
        if self.inner_px > 0.0:
            amplitude /= np.sqrt(1.0 + self.inner_px**2 * squared)
        amplitude[0, 0] = 0.0
        return amplitude


@lru_cache(maxsize=8)
def _wavenumbers(size: Size) -> tuple[Field, Field]:
    down = np.fft.fftfreq(size[0]).astype(np.float32)[:, None]
    return down, np.fft.rfftfreq(size[1]).astype(np.float32)[None, :]


def smooth_size(least: int) -> int:
    """Smallest length of at least `least` with no prime factor above 5: a quick transform."""
    size = max(least, 1)
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 1


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between two whose logarithm is uniform: as often below their geometric mean."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def normal_values(rng: np.random.Generator, size: Size) -> Field:
    """Independent normal numbers (rows, cols), mean 0 and standard deviation 1.

    By pairs (Box and Muller 1958), whole arrays at once: in a third of the generator's own time.
    """
    pairs = -(-size[0] * size[1] // 2)
    numbers = _normal_pairs(rng, pairs).view(np.float32)
    return numbers[: size[0] * size[1]].reshape(size)


def _normal_pairs(rng: np.random.Generator, count: int) -> NDArray[np.complex64]:
    """Complex numbers (count,) whose parts are independent normal numbers."""
    lots = rng.random((2, count), dtype=np.float32)
    radius = np.sqrt(-2.0 * np.log(1.0 - lots[0]))  # of 1 - lot, which is never 0
    angle = np.float32(2.0 * math.pi) * lots[1]
    pairs = np.empty(count, np.complex64)
    np.multiply(radius, np.cos(angle), out=pairs.real)
    np.multiply(radius, np.sin(angle), out=pairs.imag)
    return pairs


def fractal_field(rng: np.random.Generator, size: Size, spectrum: Spectrum) -> Field:
    """Random periodic field (rows, cols) with a power spectrum; mean 0, standard deviation 1.

    Spectral synthesis (Saupe 1988; for clouds Barker and Davies 1992): Gaussian noise for each
    wave, weighted by the root of the spectrum.
    """
    amplitude = spectrum.amplitude(size)
    noise = _normal_pairs(rng, amplitude.size).reshape(amplitude.shape) * amplitude
    field: Field = np.fft.irfft2(noise, s=size).astype(np.float32, copy=False)
    field -= field.mean()
    spread = float(field.std())
    return field / spread if spread > 0.0 else field


def nearest_cells(
    rng: np.random.Generator, size: Size, cell_px: int
) -> tuple[Field, Field, NDArray[np.int32]]:
    """Voronoi cells of one random point in every square of `cell_px`.

    They wrap round where `cell_px` divides `size`. Returns, each (rows, cols), the distance to the
    nearest point and how much farther the second nearest is, in pixels, and the nearest's number.
    Only the next squares are searched, which seldom matters.
    """
    count = tuple(-(-n // cell_px) for n in size)
    places = rng.random((2, *count), dtype=np.float32)
    steps = np.arange(cell_px, dtype=np.float32)
    shape = (count[0], cell_px, count[1], cell_px)
    nearest = np.full(shape, np.inf, np.float32)
    second = nearest.copy()
    number = np.zeros(shape, np.int32)
    numbers = np.arange(count[0] * count[1], dtype=np.int32).reshape(count)
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            there = np.roll(places, (-down, -across), (1, 2))
            rows = steps[None, :, None] - cell_px * (there[0] + down)[:, None, :]
            cols = steps - cell_px * (there[1] + across)[:, :, None]
            squared = rows[..., None] ** 2 + cols[:, None] ** 2
            closer = squared < nearest
            second = np.minimum(second, np.maximum(squared, nearest))
            np.minimum(nearest, squared, out=nearest)
            label = np.roll(numbers, (-down, -across), (0, 1))
            np.copyto(number, label[:, None, :, None], where=closer)
    whole = (count[0] * cell_px, count[1] * cell_px)
    first = np.sqrt(nearest).reshape(whole)[: size[0], : size[1]]
    gap = np.sqrt(second).reshape(whole)[: size[0], : size[1]] - first
    return first, gap, number.reshape(whole)[: size[0], : size[1]]


def shifted(field: Field, shift: tuple[float, float], size: Size) -> Field:
    """The first `size` of a torus after it has moved by (rows, cols), whole or not; bilinear."""
    whole = (math.floor(shift[0]), math.floor(shift[1]))
    rows, cols = (np.arange(-1, size[axis]) - whole[axis] for axis in (0, 1))
    near = field.take(rows, 0, mode="wrap").take(cols, 1, mode="wrap")
    near = near[1:] + (shift[0] - whole[0]) * (near[:-1] - near[1:])
    return near[:, 1:] + (shift[1] - whole[1]) * (near[:, :-1] - near[:, 1:])


def gaussian(field: Field, sigma_px: float) -> Field:
    """A torus, blurred."""
    rows, cols = field.shape
    scale = -2.0 * (math.pi * sigma_px) ** 2
    down = np.exp(scale * np.fft.fftfreq(rows) ** 2).astype(np.float32)[:, None]
    across = np.exp(scale * np.fft.rfftfreq(cols) ** 2).astype(np.float32)
    blurred: Field = np.fft.irfft2(np.fft.rfft2(field) * down * across, s=(rows, cols))
    return blurred
