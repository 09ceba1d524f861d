#include "kernel_grads.h"

#include <algorithm>

#include "filters.h"
#include "patches.h"
#include "scratch.h"

namespace crfrnn {

namespace {

constexpr int TOGETHER = 3;  // filters that share what they read of the lattice and the rows

}  // namespace

void lattice_kernel_grad(const Lattice& lattice, int dim, int64_t labels, const Message& message,
                         bool transposed, const float* features, float* features_grad,
                         float* factor_grads, Team& team) {
    // The features of a single label are filtered as so many labels.
    const bool single = labels == 1;
    const int64_t pixels = lattice.pixels, most = single ? dim + 1 : std::min(TOGETHER, dim + 1);
    const int64_t table = (lattice.vertices + 1) * most * labels;
    float* const values = Scratch::floats(2 * table + 2 * most * pixels);
    float* const factors = values + 2 * table;
    float* const dots = factors + most * pixels;
    std::fill_n(features_grad, dim * pixels, 0.0f);
    // K sends v to grad, and its transpose sends grad to v.
    for (const bool back : {false, true}) {
        const float* const from = back ? message.grad : message.v;
        const float* const to = back ? message.v : message.grad;
        const float* const sent = back ? message.after : message.before;
        const float* const received = back ? message.before : message.after;
        float* const own = factor_grads + (back ? pixels : 0);
        // Filter 0 is of the rows themselves, filter c of feature c - 1 times the rows.
        for (int64_t first = 0; first <= dim; first += most) {
            const int64_t count = std::min(most, dim + 1 - first);
            team.for_rows(pixels, GRAIN, [&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i)
                    for (int64_t c = 0; c < count; ++c)
                        factors[i * count + c] =
                            (single ? from[i] : 1.0f) * (sent != nullptr ? sent[i] : 1.0f) *
                            (first + c > 0 ? features[(first + c - 1) * pixels + i] : 1.0f);
            });
            const float* const on_vertices =
                single ? splat_and_blur(lattice, count, 1, nullptr, factors, transposed != back,
                                        values, values + table, team)
                       : splat_and_blur(lattice, labels, count, factors, from, transposed != back,
                                        values, values + table, team);
            team.for_rows(pixels, GRAIN / labels + 1, [&](int64_t begin, int64_t end) {
                if (single) {
                    loops().slice_(lattice, count, on_vertices, dots, begin, end);
                    for (int64_t k = begin * count; k < end * count; ++k) dots[k] *= to[k / count];
                } else {
                    loops().slice_dots(lattice, labels, count, on_vertices, to, dots, begin, end);
                }
                for (int64_t i = begin; i < end; ++i)
                    for (int64_t c = 0; c < count; ++c) {
                        const float dot = dots[i * count + c];
                        if (first + c == 0) {
                            own[i] = dot;
                            continue;
                        }
                        const int64_t at = (first + c - 1) * pixels + i;
                        features_grad[at] += (received != nullptr ? received[i] : 1.0f) *
                                             (dot - features[at] * own[i]);
                    }
            });
        }
    }
}

void separable_dots(const Separable* kernels, int count, int64_t batch, int64_t labels,
                    const float* v, const float* factor, const float* w, float* dots, Team& team) {
    const int64_t pixels = kernels->pixels(), rows = batch * pixels;
    if (kernels->axes <= 2) {
        const Patches patches(kernels, batch, pixels, labels);
        for (int k = 0; k < count; ++k) {
            Term term{};
            term.values = v;
            term.before = factor;
            set_axes(kernels[k], term);
            patches.for_each(team, [&](int64_t, const Patch& patch) {
                loops().patch_dots(term, labels, w, dots + k * rows, patch);
            });
        }
        return;
    }
    const int64_t floats = rows * labels;
    float* const scratch = Scratch::floats((factor != nullptr ? 3 : 2) * floats);
    float* const to[] = {scratch, scratch + floats};
    if (factor != nullptr) {
        float* const scaled = scratch + 2 * floats;
        scale_rows(factor, labels, v, scaled, rows, team);
        v = scaled;
    }
    for (int k = 0; k < count; ++k) {
        const float* const filtered = convolve_axes(kernels[k], batch, labels, v, to, team);
        team.for_rows(rows, GRAIN / labels + 1, [&](int64_t begin, int64_t end) {
            loops().row_dots(filtered + begin * labels, w + begin * labels, labels,
                             dots + k * rows + begin, 0, end - begin);
        });
    }
}

}  // namespace crfrnn
