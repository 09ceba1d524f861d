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

namespace {

constexpr int TOGETHER = 3;  // filters that share what they read of the lattice and the rows

// The features of a single label are filtered as so many labels.
int64_t filters_together(int dim, int64_t labels) {
    return labels == 1 ? dim + 1 : std::min(TOGETHER, dim + 1);
}

float factor_at(const float* factor, int64_t pixel) {
    return factor != nullptr ? factor[pixel] : 1.0f;
}

void add_lattice_grad(const Lattice& lattice, const Part& part, const Message& message,
                      int64_t labels, bool transposed, const KernelGrad& to, float* scratch,
                      Team& team) {
    const bool single = labels == 1;
    const int64_t pixels = lattice.pixels, num_pixels = part.last_pixel - part.first_pixel;
    const int64_t most = filters_together(to.dim, labels);
    const int64_t table = (lattice.vertices + 1) * most * labels;
    float* const values = scratch;
    float* const factors = values + 2 * table;
    float* const dots = factors + most * pixels;
    float* const of_rows = dots + most * pixels;
    // K sends v to grad, and its transpose sends grad to v.
    for (const bool back : {false, true}) {
        const float* const from = back ? message.grad : message.v;
        const float* const at = back ? message.v : message.grad;
        const float* const sent = back ? message.after : message.before;
        const float* const received = back ? message.before : message.after;
        // Filter 0 is of the rows themselves, filter c of feature c - 1 times the rows.
        for (int64_t first = 0; first <= to.dim; first += most) {
            const int64_t count = std::min(most, to.dim + 1 - first);
            team.for_rows(num_pixels, GRAIN, [&](int64_t begin, int64_t end) {
                for (int64_t i = part.first_pixel + begin; i < part.first_pixel + end; ++i)
                    for (int64_t c = 0; c < count; ++c)
                        factors[i * count + c] =
                            (single ? from[i] : 1.0f) * factor_at(sent, i) *
                            (first + c > 0 ? to.features[(first + c - 1) * pixels + i] : 1.0f);
            });
            const float* const on_vertices =
                single ? splat_and_blur(lattice, part, count, 1, nullptr, factors,
                                        transposed != back, values, values + table, team)
                       : splat_and_blur(lattice, part, labels, count, factors, from,
                                        transposed != back, values, values + table, team);
            team.for_rows(num_pixels, GRAIN / labels + 1, [&](int64_t begin, int64_t end) {
                begin += part.first_pixel;
                end += part.first_pixel;
                if (single) {
                    loops().slice_(lattice, count, on_vertices, dots, begin, end);
                    for (int64_t k = begin * count; k < end * count; ++k) dots[k] *= at[k / count];
                } else {
                    loops().slice_dots(lattice, labels, count, on_vertices, at, dots, begin, end);
                }
                for (int64_t i = begin; i < end; ++i)
                    for (int64_t c = 0; c < count; ++c) {
                        const float dot = dots[i * count + c];
                        if (first + c == 0) {
                            of_rows[i] = dot;
                            if (to.factors != nullptr) to.factors[back * pixels + i] += dot;
                            continue;
                        }
                        const int64_t k = (first + c - 1) * pixels + i;
                        to.own[k] +=
                            factor_at(received, i) * (dot - to.features[k] * of_rows[i]);
                    }
            });
        }
    }
}

// sums_i += factor_i <w_i, (K (before v))_i> of a spatial Gaussian, in some images.
void add_separable_dots(const Separable& kernel, const Images& images, int64_t batch,
                        int64_t labels, const float* v, const float* before, const float* w,
                        const float* factor, float* sums, float* scratch, Team& team) {
    const int64_t pixels = kernel.pixels(), rows = batch * pixels;
    const int64_t first = images.begin * pixels, last = images.end * pixels;
    float* const dots = scratch;
    float* const to[] = {dots + rows, dots + rows + rows * labels};
    v += first * labels;
    if (before != nullptr) {
        scale_rows(before + first, labels, v, to[1], last - first, team);
        v = to[1];
    }
    const float* const filtered = convolve_axes(kernel, images.count(), labels, v, to, team);
    team.for_rows(last - first, GRAIN / labels + 1, [&](int64_t begin, int64_t end) {
        loops().row_dots(filtered, w + first * labels, labels, dots + first, begin, end);
    });
    for (int64_t i = first; i < last; ++i) sums[i] += factor_at(factor, i) * dots[i];
}

}  // namespace

int64_t kernel_grad_floats(const Kernel& kernel, const KernelGrad& to, int64_t batch,
                           int64_t pixels, int64_t labels) {
    const int64_t rows = batch * pixels;
    if (kernel.lattice == nullptr)
        return rows + 2 * rows * labels;
    const int64_t most = filters_together(to.dim, labels);
    return 2 * (kernel.lattice->vertices + 1) * most * labels + (2 * most + 1) * rows;
}

void add_kernel_grad(const Kernel& kernel, const Images& images, int64_t pixels, int64_t batch,
                     int64_t labels, const Message& message, bool transposed, const KernelGrad& to,
                     float* scratch, Team& team) {
    if (kernel.lattice != nullptr) {
        const Part part = part_of(*kernel.lattice, images.begin * pixels, images.end * pixels);
        add_lattice_grad(*kernel.lattice, part, message, labels, transposed, to, scratch, team);
        return;
    }
    const Separable& spatial = *kernel.separable;
    const int64_t rows = batch * pixels;
    const auto add_dots = [&](const Separable& gaussian, const float* v, const float* before,
                              const float* w, const float* factor, float* sums) {
        add_separable_dots(gaussian, images, batch, labels, v, before, w, factor, sums, scratch,
                           team);
    };
    for (int k = 0; k < to.dim; ++k)
        add_dots(to.changes[k], message.v, message.before, message.grad, message.after,
                 to.own + k * rows);
    if (to.factors == nullptr) return;
    // Who has no factor wants no gradient to it.
    if (message.after != nullptr)
        add_dots(spatial, message.v, message.before, message.grad, nullptr, to.factors);
    if (message.before != nullptr)
        add_dots(spatial, message.grad, message.after, message.v, nullptr, to.factors + rows);
}

}  // namespace crfrnn
