// The whole filters, cut into parts for the threads.
#include "filters.h"

#include <algorithm>

namespace crfrnn {

namespace {

constexpr int64_t COLUMNS = 64;  // floats of a row that go down an axis together

}  // namespace

float* splat_and_blur(const Lattice& lattice, int64_t labels, int64_t count, const float* factors,
                      const float* v, bool transposed, float* values, float* blurred, Team& team) {
    const int64_t rows = lattice.vertices + 1, width = count * labels, grain = GRAIN / width + 1;
    // A vertex costs as much as it has pixels, so the parts are equal in pixels.
    const int64_t parts = team.num_parts(lattice.pixels, grain);
    const auto bound = [&](int64_t part) {
        const int64_t entries = lattice.pixels * lattice.size * part / parts;
        const int32_t* const begin = lattice.splat_offsets;
        if (part == parts) return lattice.vertices;
        return std::lower_bound(begin, begin + lattice.vertices, entries) - begin;
    };
    team.for_parts(parts, bound, [&](int64_t begin, int64_t end) {
        loops().splat(lattice, labels, count, factors, v, values, begin, end);
    });
    // The missing neighbour.
    std::fill_n(values + lattice.vertices * width, width, 0.0f);
    for (int step = 0; step < lattice.size; ++step) {
        const int direction = transposed ? lattice.size - 1 - step : step;
        const int32_t* stencil = lattice.stencils + direction * rows * lattice.width;
        team.for_rows(rows, grain, [&](int64_t begin, int64_t end) {
            loops().blur(stencil, lattice.taps, lattice.width, width, values, blurred, begin, end);
        });
        std::swap(values, blurred);
    }
    return values;
}

void scale_rows(const float* factor, int64_t labels, const float* v, float* scaled, int64_t rows,
                Team& team) {
    team.for_rows(rows, GRAIN / labels + 1, [&](int64_t begin, int64_t end) {
        loops().scale(factor, labels, v, scaled + begin * labels, begin, end);
    });
}

void convolve_axis(const Taps& taps, int64_t before, int64_t size, int64_t length, const float* v,
                   float* out, Team& team) {
    const int64_t strips = (length + COLUMNS - 1) / COLUMNS;
    const int64_t grain = GRAIN / (size * std::min(length, COLUMNS)) + 1;
    team.for_rows(before * strips, grain, [&](int64_t begin, int64_t end) {
        for (int64_t unit = begin; unit < end; ++unit) {
            const int64_t first = unit % strips * COLUMNS;
            const int64_t at = unit / strips * size * length + first;
            loops().convolve(v + at, taps.middle, taps.radius, size, length,
                             std::min(COLUMNS, length - first), 0, size, out + at, length);
        }
    });
}

const float* convolve_axes(const Separable& kernel, int64_t batch, int64_t labels, const float* v,
                           float* const to[2], Team& team) {
    int64_t before = batch, length = kernel.pixels() * labels;
    for (int axis = 0; axis < kernel.axes; ++axis) {
        const int64_t size = kernel.shape[axis];
        length /= size;
        convolve_axis(taps_of(kernel, axis), before, size, length, v, to[axis % 2], team);
        before *= size;
        v = to[axis % 2];
    }
    return v;
}

}  // namespace crfrnn
