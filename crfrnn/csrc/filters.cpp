// The whole filters, cut into parts for the threads.
#include "filters.h"

#include <algorithm>

namespace crfrnn {

namespace {

constexpr int64_t COLUMNS = 64;  // floats of a row that go down an axis together

}  // namespace

Part part_of(const Lattice& lattice, int64_t first_pixel, int64_t last_pixel) {
    // The first vertex of which `body` does not hold: their splats are in the order of the pixels.
    const auto first_not = [&](const auto& body) {
        int64_t begin = 0, end = lattice.vertices;
        while (begin < end) {
            const int64_t middle = (begin + end) / 2;
            if (body(middle)) begin = middle + 1;
            else end = middle;
        }
        return begin;
    };
    const int64_t begin = first_pixel * lattice.size, end = last_pixel * lattice.size;
    return {first_pixel, last_pixel,
            first_not([&](int64_t vertex) { return lattice.splat_offsets[vertex] < begin; }),
            first_not([&](int64_t vertex) { return lattice.splat_end(vertex) <= end; })};
}

float* splat_and_blur(const Lattice& lattice, const Part& part, int64_t labels, int64_t count,
                      const float* factors, const float* v, bool transposed, float* values,
                      float* blurred, Team& team) {
    const int64_t width = count * labels, grain = GRAIN / width + 1;
    // A vertex costs as much as it has pixels, so the pieces are equal in pixels.
    const int64_t pixels = part.last_pixel - part.first_pixel;
    const int64_t pieces = team.num_parts(pixels, grain);
    const auto bound = [&](int64_t piece) {
        if (piece == pieces) return part.last;
        const int64_t entry = (part.first_pixel + pixels * piece / pieces) * lattice.size;
        const int32_t* const offsets = lattice.splat_offsets;
        return std::lower_bound(offsets + part.first, offsets + part.last, entry) - offsets;
    };
    team.for_parts(pieces, bound, [&](int64_t begin, int64_t end) {
        loops().splat(lattice, labels, count, factors, v, values, begin, end);
    });
    return blur_all(lattice, part, width, transposed, values, blurred, team);
}

float* blur_all(const Lattice& lattice, const Part& part, int64_t width, bool transposed,
                float* values, float* blurred, Team& team) {
    // The missing neighbour.
    for (float* const table : {values, blurred})
        std::fill_n(table + lattice.vertices * width, width, 0.0f);
    for (int step = 0; step < lattice.size; ++step) {
        const int direction = transposed ? lattice.size - 1 - step : step;
        const int32_t* stencil =
            lattice.stencils + direction * (lattice.vertices + 1) * lattice.width;
        team.for_rows(part.last - part.first, GRAIN / width + 1, [&](int64_t begin, int64_t end) {
            loops().blur(stencil, lattice.taps, lattice.width, width, values, blurred,
                         part.first + begin, part.first + end);
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

void correlate_axis(const Axis& axis, int64_t before, int64_t length, const float* v, float* out,
                    Team& team) {
    const int64_t strips = (length + COLUMNS - 1) / COLUMNS;
    const int64_t grain = GRAIN / (axis.out_size * std::min(length, COLUMNS)) + 1;
    team.for_rows(before * strips, grain, [&](int64_t begin, int64_t end) {
        for (int64_t unit = begin; unit < end; ++unit) {
            const int64_t first = unit % strips * COLUMNS, image = unit / strips;
            loops().correlate(axis, v + image * axis.in_size * length + first, length,
                              std::min(COLUMNS, length - first), 0, axis.out_size,
                              out + image * axis.out_size * length + first, length);
        }
    });
}

const float* convolve_axes(const Separable& kernel, int64_t batch, int64_t labels, const float* v,
                           float* const to[2], Team& team) {
    int64_t before = batch, length = kernel.pixels() * labels;
    for (int axis = 0; axis < kernel.axes; ++axis) {
        const int64_t size = kernel.shape[axis];
        length /= size;
        correlate_axis(axis_of(kernel, axis), before, length, v, to[axis % 2], team);
        before *= size;
        v = to[axis % 2];
    }
    return v;
}

}  // namespace crfrnn
