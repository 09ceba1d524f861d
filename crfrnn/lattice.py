"""The permutohedral lattice in plain PyTorch (Adams, Baek and Davis, 2010)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from crfrnn.checks import check_choice

# How closely a permutohedral lattice follows the Gaussian: two choices, as numbers.
#
# "standard" is the lattice of Adams et al. (2010) as every dense CRF uses it. It is off by about
# a tenth of the message's variation on photographs, for three reasons, in this order:
#
# - the blur (1/2, 1, 1/2) is a flat-topped Gaussian, and the image's pixels are near each other,
#   where that shows: three sampled taps on each side, still one pass for each direction, cure it;
# - a cell is wide beside the Gaussian: with a wider blur the same Gaussian is a finer lattice;
# - what would flow through vertices that no pixel touches is lost, the more the finer the lattice:
#   vertices are inserted (`insert_neighbours`).
#
# "fine" does all three. Each alone helps little or harms.

LatticeAccuracyName = Literal["standard", "fine"]


@dataclass(frozen=True)
class LatticeAccuracy:
    """The numbers behind a name.

    Attributes:
        taps: the weights of a blur 0, 1, 2, ... steps away, the same on both sides.
        insertion: add the vertices through which the blurs would carry values.
        unit: what is brought to 1. "peak": the blurs' own centre, as in every published
            implementation. "integral": that of K over that of the Gaussian, so that K of a
            constant is the exact sum's without normalisation, too.
    """

    taps: tuple[float, ...]
    insertion: bool
    unit: Literal["peak", "integral"]

    @property
    def reach(self) -> int:
        """Steps on each side of a vertex that a blur sees."""
        return len(self.taps) - 1

    @property
    def sum(self) -> float:
        """Return what a blur multiplies a constant by."""
        return self.taps[0] + 2 * math.fsum(self.taps[1:])

    @property
    def scale(self) -> float:
        """Lattice units of d + 1 for a standard deviation of the features.

        Along any line through the lattice, blurs of variance s (in steps) have the variance
        s (d + 1)^2; the barycentric weights of splat and slice add (d + 1)^2 / 6 on average over
        the simplex. The square root of the sum of the two makes the whole a unit Gaussian: for
        (1/2, 1, 1/2) it is the sqrt(2/3) of Adams et al. (2010), section 3.1.
        """
        variance = 2 * math.fsum(k * k * tap for k, tap in enumerate(self.taps)) / self.sum
        return math.sqrt(variance + 1 / 6)

    def gain(self, dim: int) -> float:
        """Return what K is multiplied by so that its unit is that of the Gaussian, in R^dim."""
        if self.unit == "peak":
            # As the directions sum to zero, k steps along every one of them lead back.
            peak, *sides = (math.pow(tap, dim + 1) for tap in self.taps)
            return 1 / (peak + 2 * math.fsum(sides))
        # One vertex for each (d + 1)^(d - 1/2) of volume, which the scale shrinks.
        vertex_volume = 1 / (math.sqrt(dim + 1) * math.pow(self.scale, dim))
        return math.pow(2 * math.pi, dim / 2) / (math.pow(self.sum, dim + 1) * vertex_volume)


ACCURACIES: dict[LatticeAccuracyName, LatticeAccuracy] = {
    "standard": LatticeAccuracy(taps=(1.0, 0.5), insertion=False, unit="peak"),
    # The Gaussian of variance 1.1. On photographs at the published widths, less leaves dense
    # features (theta 80/13) no better than three times the standard's error, and more makes
    # sparse ones (67/3, 4/5) worse.
    "fine": LatticeAccuracy(
        taps=tuple(math.exp(-k * k / 2.2) for k in range(4)), insertion=True, unit="integral"
    ),
}


def named(accuracy: str) -> LatticeAccuracy:
    """The numbers of that name, which the operators take as a plain string."""
    check_choice("accuracy", accuracy, ACCURACIES)
    return ACCURACIES[cast(LatticeAccuracyName, accuracy)]


# The geometry of the permutohedral lattice: which simplex a point lies in, and where in it.
#
# Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice",
# Eurographics 2010, sections 3.1 and 3.2; and the derivative of both steps.

RESOLUTION = 1e-2  # the rounding of a coordinate, in lattice cells, that is put up with


@dataclass(frozen=True)
class Simplex:
    """The simplex around each of N points, all (d + 1, N) but the weights.

    Attributes:
        origin: int64, its remainder-0 vertex in elevated coordinates.
        rank: int64, the rank of each coordinate's offset from the origin, 0 the largest.
        barycentric: (N, d + 1), the weight of the vertex of remainder k, summing to 1.
    """

    origin: Tensor
    rank: Tensor
    barycentric: Tensor


def elevate(features: Tensor, scale: float) -> Tensor:
    """Rotate and scale R^d onto the plane sum = 0 of R^(d + 1): (N, d) -> (d + 1, N).

    Written as a running sum, not as a matrix product, so that the bits do not depend on N.

    Args:
        features: (N, d), of unit variance.
        scale: times d + 1, the lattice units of a unit (`LatticeAccuracy.scale`).
    """
    dim = features.shape[1]
    elevated = features.new_empty(dim + 1, features.shape[0])
    total = torch.zeros_like(elevated[0])
    for j in range(dim, 0, -1):
        scaled = features[:, j - 1] * (scale * (dim + 1) / math.sqrt(j * (j + 1)))
        elevated[j] = total - j * scaled
        total = total + scaled
    elevated[0] = total
    return elevated


def elevate_transposed(elevated: Tensor, scale: float) -> Tensor:
    """The transpose of `elevate`: (d + 1, N) -> (N, d)."""
    dim = elevated.shape[0] - 1
    features = elevated.new_empty(elevated.shape[1], dim)
    total = elevated[0]
    for j in range(1, dim + 1):
        factor = scale * (dim + 1) / math.sqrt(j * (j + 1))
        features[:, j - 1] = (total - j * elevated[j]) * factor
        total = total + elevated[j]
    return features


def check_precision(elevated: Tensor) -> None:
    """Raise where a coordinate's own rounding is no longer small beside a lattice cell."""
    largest, size = elevated.abs().amax().item(), elevated.shape[0]
    if not largest <= largest_precise(elevated.dtype, size):  # NaN as well
        cells = largest / size
        raise LatticeOverflowError(
            f"the features reach {cells:.1e} cells of the permutohedral lattice, too far for "
            f"{elevated.dtype} to place a pixel within its cell: theta is too small. Use a larger "
            "theta, float64, or the exact filter."
        )


def largest_precise(dtype: torch.dtype, size: int) -> float:
    """The largest elevated coordinate of d + 1 = size that still has `RESOLUTION`."""
    return RESOLUTION / torch.finfo(dtype).eps * size


def enclosing_simplex(elevated: Tensor) -> Simplex:
    """The lattice simplex around each elevated point, (d + 1, N) (Adams et al., section 3.2)."""
    size = elevated.shape[0]  # d + 1

    # Round every coordinate to the nearest multiple of d + 1; ties go down.
    down = (elevated / size).floor() * size
    up = (elevated / size).ceil() * size
    origin = torch.where(up - elevated < elevated - down, up, down)
    excess = (origin.sum(0) / size).round().to(torch.int64)

    # Rank the offsets, largest first; of two equal ones the earlier coordinate is first.
    offset = elevated - origin
    rank = torch.zeros_like(offset, dtype=torch.int64)
    for i in range(size - 1):
        behind = offset[i] < offset[i + 1 :]  # (d - i, N)
        rank[i] += behind.sum(0)
        rank[i + 1 :] += ~behind

    # Walk back to the plane sum = 0 by moving the coordinates that were rounded worst.
    rank += excess
    wrap = (rank < 0).to(torch.int64) - (rank >= size).to(torch.int64)
    rank += size * wrap
    origin += size * wrap

    # Weight of remainder k: the gap between the sorted offsets at ranks d - k and d + 1 - k.
    # `barycentric_features_grad` is the derivative of these two lines.
    ordered = torch.empty_like(offset).scatter_(0, rank, (elevated - origin) / size).flip(0)
    barycentric = ordered - torch.cat([ordered[-1:] - 1, ordered[:-1]])
    return Simplex(origin.to(torch.int64), rank, barycentric.t().contiguous())


def barycentric_features_grad(rank: Tensor, grad: Tensor, scale: float) -> Tensor:
    """The features' gradient (BN, d) from that of the barycentric weights (BN, d + 1).

    Within a simplex each weight is a difference of two elevated coordinates, chosen by rank
    (`enclosing_simplex`), and these are linear in the features (`elevate`).
    """
    size = rank.shape[1]
    # The coordinate of rank r is added to the weight of remainder d - r, taken from d + 1 - r.
    by_rank = (grad - grad.roll(-1, dims=1)).flip(1) / size  # (BN, d + 1)
    elevated = by_rank.gather(1, rank.long())
    return elevate_transposed(elevated.t(), scale)


# The vertex table of a permutohedral lattice: packed keys, and who neighbours whom.
#
# The lattice in R^d is spanned by d + 1 directions u_0 .. u_d that sum to zero, so a vertex is
# a_0 u_0 + ... + a_(d-1) u_(d-1) with integers a_k: one step along u_k adds 1 to a_k, and one
# along u_d takes 1 from all. In elevated coordinates x (Adams et al. 2010, section 3.1) u_k adds
# d to x_k and takes 1 from every other, so a_k = (x_k - x_d) / (d + 1). The keys pack the a_k:
# packing x_k itself would waste a factor (d + 1)^(d - 1) of the int64, since only one in as many
# integer points of the plane is a vertex.

KEY_LIMIT = 2**62  # packed keys are int64; one bit is left for sums
INSERTED_STEPS = 2  # how far from a pixel's own vertices vertices are inserted
CONNECTED = 4  # of 2 (d + 1) neighbours; 3 or 5: fewer errors or fewer vertices, by a tenth or two


class LatticeOverflowError(ValueError):
    """The features reach farther than the lattice can tell apart: theta is too small."""


def pack_keys(
    origin: Tensor, rank: Tensor, image_index: Tensor, *, margin: int
) -> tuple[Tensor, list[int]]:
    """One int64 per (pixel, vertex): mixed-radix digits of (image, a_0, ..., a_(d-1)).

    The radix of a digit is its range with a margin, so that a step to a neighbour never carries
    into another digit.

    Args:
        origin: (d + 1, N) int64, each pixel's remainder-0 vertex in elevated coordinates.
        rank: (d + 1, N) int64, the rank of each coordinate within the simplex.
        image_index: (N,), which image a pixel belongs to.
        margin: steps that will ever be made from a pixel's own vertices.

    Returns:
        keys: (N, d + 1), and the d strides of the digits.

    Raises:
        LatticeOverflowError: the digits do not fit into 62 bits.
    """
    dim = origin.shape[0] - 1
    digits = torch.div(origin[:dim] - origin[dim], dim + 1, rounding_mode="floor")  # exact
    low = digits.amin(1) - margin - 1  # the other vertices of a simplex differ by at most one
    spans = (digits.amax(1) + margin + 1 - low + 1).tolist()
    radices = [int(image_index[-1]) + 1, *spans]
    if math.prod(radices) > KEY_LIMIT:
        raise LatticeOverflowError(
            f"the permutohedral lattice would span {' x '.join(map(str, spans))} cells for "
            f"{radices[0]} image(s), more than 2^62 keys: theta is too small for these features. "
            "Use a larger theta, fewer feature dimensions, or the exact filter."
        )
    strides = [math.prod(radices[k + 2 :]) for k in range(dim)]

    base = image_index * math.prod(spans)
    for k in range(dim):
        base = base + (digits[k] - low[k]) * strides[k]
    keys = base.repeat(dim + 1, 1)
    for remainder in range(1, dim + 1):
        # Remainder r lies one step back along the directions of the r last ranks.
        wrapped = (rank > dim - remainder).to(torch.int64)
        for k in range(dim):
            keys[remainder] += (wrapped[dim] - wrapped[k]) * strides[k]
    return keys.t().contiguous(), strides


def neighbour_steps(strides: list[int]) -> list[int]:
    """Return what one step along each of the d + 1 directions adds to a key."""
    return [*strides, -sum(strides)]


def insert_neighbours(vertices: Tensor, steps: list[int]) -> Tensor:
    """The table with the vertices through which blurs carry values from pixel to pixel.

    A value goes from vertex to vertex along one direction after the other, and is lost where a
    vertex on its way is missing. All neighbours are inserted, so that no way over three
    directions is lost; then, of their neighbours in turn, those that have at least
    `CONNECTED` neighbours: one with fewer is seldom on a way between two pixels.

    Args:
        vertices: (M,), sorted packed keys; a margin of `INSERTED_STEPS` is needed.
        steps: from `neighbour_steps`.

    Returns:
        (M',) sorted packed keys, M' > M.
    """
    vertices = torch.unique(torch.cat([vertices, *_neighbours(vertices, steps)]))
    candidates, counts = torch.unique(torch.cat(_neighbours(vertices, steps)), return_counts=True)
    table: Tensor = torch.unique(torch.cat([vertices, candidates[counts >= CONNECTED]]))
    return table


def _neighbours(vertices: Tensor, steps: list[int]) -> list[Tensor]:
    return [vertices + sign * step for step in steps for sign in (-1, 1)]


def find_neighbours(vertices: Tensor, steps: list[int], *, reach: int) -> list[Tensor]:
    """The rows that each vertex gathers from, along each of the d + 1 directions.

    The way back is the inverse table. A neighbour that is not in the table is row M, which
    stays zero.

    Args:
        vertices: (M,), sorted packed keys.
        steps: from `neighbour_steps`.
        reach: steps to go on each side.

    Returns:
        d + 1 tables (M + 1, 2 reach + 1) int64: one step behind, one step ahead, two steps
        behind, ..., the vertex itself.
    """
    size = vertices.numel()
    missing = torch.full((size + 1,), size, device=vertices.device)
    itself = torch.arange(size + 1, device=vertices.device)
    stencils = []
    for step in steps:
        columns = []
        for hop in range(1, reach + 1):
            target = vertices + hop * step
            found = torch.searchsorted(vertices, target).clamp_(max=size - 1)
            present = vertices[found] == target
            ahead, behind = missing.clone(), missing.clone()
            ahead[:-1] = torch.where(present, found, size)
            behind[found[present]] = present.nonzero().squeeze(1)
            columns += [behind, ahead]
        stencils.append(torch.stack([*columns, itself], dim=1))
    return stencils


# The permutohedral lattice in plain PyTorch: the readable specification.
#
# Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice",
# Eurographics 2010; scales as in Krahenbuhl and Koltun, NIPS 2011.
#
#     K v = slice(blur(splat(v))) = W B_d ... B_0 W' v
#
# W holds, for each pixel, the barycentric weights of the d + 1 vertices of its simplex; B_j blurs
# along lattice direction j with (1/2, 1, 1/2), or more widely on a finer lattice with vertices
# inserted (`accuracy.py`). The blurs do not commute where a neighbour is missing, so the
# transpose runs them backwards: K' v = W B_0' ... B_d' W' v, with B_j' = B_j.
#
# All vertices of a batch live in one table: the image index is part of the key. Every stage is a
# small sparse matrix with the same number of entries a row (or a list of rows), which torch calls
# an embedding bag: no atomics, so the same bits on any number of threads.


class Lattice(NamedTuple):
    """The sparse matrices W, W' and B_j of a batch of B images with N pixels and M vertices.

    Attributes:
        slice_vertices: (BN, d + 1), the vertices of each pixel's simplex.
        slice_weights: (BN, d + 1), their barycentric weights, summing to 1.
        splat_pixels: (BN (d + 1),), the pixels around each vertex, vertex by vertex.
        splat_weights: (BN (d + 1),), the same barycentric weights in that order.
        splat_offsets: (M,), where each vertex's pixels begin; or (S,), where each segment of them
            begins, if long lists are cut (`split_segments`).
        splat_segments: (M + 1,), where each vertex's segments begin, and where the last one's end;
            (0,), if a vertex is one segment.
        stencils: (d + 1, M + 1, 2 reach + 1), the rows that each vertex gathers from, for each
            direction: behind, ahead, ..., itself. A missing neighbour is row M, which stays zero.
    """

    slice_vertices: Tensor
    slice_weights: Tensor
    splat_pixels: Tensor
    splat_weights: Tensor
    splat_offsets: Tensor
    splat_segments: Tensor
    stencils: Tensor


def build_lattice(features: Tensor, accuracy: LatticeAccuracy) -> tuple[Lattice, Tensor]:
    """The lattice around the features (B, N, d), already divided by theta.

    Returns:
        The lattice, and the rank (BN, d + 1) int8 of the coordinates within each pixel's
        simplex, of which the gradient is made.

    Raises:
        LatticeOverflowError: theta is so small that the keys do not fit.
    """
    batch, num_pixels, dim = features.shape
    elevated = elevate(features.reshape(-1, dim), accuracy.scale)
    check_precision(elevated)
    simplex = enclosing_simplex(elevated)
    image_index = torch.arange(batch, device=features.device).repeat_interleave(num_pixels)
    margin = accuracy.reach + INSERTED_STEPS * accuracy.insertion
    keys, strides = pack_keys(simplex.origin, simplex.rank, image_index, margin=margin)
    steps = neighbour_steps(strides)

    # One sort gives the touched vertices, each pixel's vertices and each vertex's pixels.
    ordered, order = torch.sort(keys.reshape(-1), stable=True)
    touched, inverse, counts = torch.unique_consecutive(
        ordered, return_inverse=True, return_counts=True
    )
    vertices = insert_neighbours(touched, steps) if accuracy.insertion else touched
    row = torch.searchsorted(vertices, touched)
    num_pixels_of = counts.new_zeros(vertices.numel()).scatter_(0, row, counts)

    # Half the bytes of an index are half the traffic, wherever they are enough.
    index = torch.int32 if max(order.numel(), vertices.numel()) < 2**31 else torch.int64
    slice_vertices = torch.empty_like(order).scatter_(0, order, row[inverse])
    stencils = find_neighbours(vertices, steps, reach=accuracy.reach)
    tables = Lattice(
        slice_vertices=slice_vertices.to(index).reshape(-1, dim + 1),
        slice_weights=simplex.barycentric,
        splat_pixels=torch.div(order, dim + 1, rounding_mode="floor").to(index),
        splat_weights=simplex.barycentric.reshape(-1)[order],
        splat_offsets=(num_pixels_of.cumsum(0) - num_pixels_of).to(index),
        splat_segments=torch.empty(0, dtype=index, device=features.device),
        stencils=torch.stack(stencils).to(index),
    )
    return tables, simplex.rank.t().to(torch.int8).contiguous()


def split_segments(lattice: Lattice, length: int) -> Lattice:
    """The same lattice, its lists of the pixels around a vertex cut to a length.

    As many segments as there could be are made without looking at the lists, for which a GPU
    would have to be waited for; those left over are empty and belong to no vertex.
    """
    begin, entries = lattice.splat_offsets.long(), lattice.splat_pixels.numel()
    counts = torch.diff(F.pad(begin, (0, 1), value=entries))
    segments_of = torch.div(counts + length - 1, length, rounding_mode="floor")
    first = F.pad(segments_of.cumsum(0), (1, 0))
    segment = torch.arange(begin.numel() + entries // length, device=begin.device)
    vertex = torch.searchsorted(first[:-1], segment, right=True) - 1
    offsets = (begin[vertex] + (segment - first[vertex]) * length).clamp_(max=entries)
    dtype = lattice.splat_offsets.dtype
    return lattice._replace(splat_offsets=offsets.to(dtype), splat_segments=first.to(dtype))


def lattice_filter(
    lattice: Lattice, v: Tensor, accuracy: LatticeAccuracy, *, transposed: bool
) -> Tensor:
    """K v, or K' v by the blurs in reverse order, for v (B, N, L)."""
    values = splat_and_blur(lattice, v, accuracy, transposed=transposed)
    return slice_(lattice, values, accuracy).reshape(v.shape)


def lattice_weights_grad(
    lattice: Lattice, v: Tensor, grad: Tensor, accuracy: LatticeAccuracy, *, transposed: bool
) -> Tensor:
    """d <grad, K v> / d(barycentric weights): (BN, d + 1).

    W stands on both sides of K = W B W', so there are two terms,

        d/dW_ik = grad_i . (B W' v)_k + v_i . (B' W' grad)_k.
    """
    result = torch.zeros_like(lattice.slice_weights)
    for rows, values in (
        (grad, splat_and_blur(lattice, v, accuracy, transposed=transposed)),
        (v, splat_and_blur(lattice, grad, accuracy, transposed=not transposed)),
    ):
        flat = rows.reshape(-1, rows.shape[-1])
        for k, vertices in enumerate(lattice.slice_vertices.unbind(1)):
            result[:, k] += (flat * values[vertices]).sum(1)
    return result * accuracy.gain(lattice.slice_weights.shape[1] - 1)


def splat_and_blur(
    lattice: Lattice, v: Tensor, accuracy: LatticeAccuracy, *, transposed: bool
) -> Tensor:
    """B_d ... B_0 W' v: (M + 1, L)."""
    values = splat(lattice, v.reshape(-1, v.shape[-1]))
    for stencil in lattice.stencils.flip(0) if transposed else lattice.stencils:
        values = blur(values, stencil, accuracy.taps)
    return values


def splat(lattice: Lattice, v: Tensor) -> Tensor:
    """W' v: (BN, L) -> (M + 1, L), the last row zero: the missing neighbour."""
    values = F.embedding_bag(
        lattice.splat_pixels,
        v,
        lattice.splat_offsets,
        mode="sum",
        per_sample_weights=lattice.splat_weights.to(v.dtype),
    )
    if lattice.splat_segments.numel():
        rows = torch.arange(len(values), device=v.device, dtype=lattice.splat_segments.dtype)
        values = F.embedding_bag(
            rows, values, lattice.splat_segments, mode="sum", include_last_offset=True
        )
    return F.pad(values, (0, 0, 0, 1))


def blur(values: Tensor, stencil: Tensor, taps: tuple[float, ...]) -> Tensor:
    """One direction: (M + 1, L) -> (M + 1, L); the zero row stays zero.

    Args:
        values: (M + 1, L), the last row zero.
        stencil: (M + 1, 2 reach + 1), from `find_neighbours`.
        taps: weights 0, 1, ... reach steps away.
    """
    row = [tap for tap in taps[1:] for _ in ("behind", "ahead")] + [taps[0]]
    weights = values.new_tensor(row).expand(stencil.shape).contiguous()
    return F.embedding_bag(stencil, values, mode="sum", per_sample_weights=weights)


def slice_(lattice: Lattice, values: Tensor, accuracy: LatticeAccuracy) -> Tensor:
    """W values, with the gain: (M + 1, L) -> (BN, L)."""
    gain = accuracy.gain(lattice.slice_weights.shape[1] - 1)
    weights = (lattice.slice_weights * gain).to(values.dtype)
    return F.embedding_bag(lattice.slice_vertices, values, mode="sum", per_sample_weights=weights)
