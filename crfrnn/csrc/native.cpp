// What filtering/cpu.py calls: plain C functions on raw pointers, all float32 and contiguous.
//
// A function that can fail returns 0 for success and FAILED where memory ran out.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "build.h"
#include "kernels.h"
#include "loops.h"
#include "scratch.h"
#include "threads.h"

using namespace crfrnn;

namespace crfrnn {

const Loops& loops() {
#if defined(__x86_64__)
    static const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    static const bool avx512 =
        avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
    return avx512 ? loops_avx512 : avx2 ? loops_avx2 : loops_baseline;
#else
    return loops_baseline;
#endif
}

EnclosingSimplex enclosing_simplex() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) return enclosing_simplex_avx2;
#endif
    return enclosing_simplex_baseline;
}

}  // namespace crfrnn

namespace {

enum Status : int { DONE = 0, OVERFLOWED = 1, FAILED = 2 };
constexpr int64_t GRAIN = 1 << 14;  // floats of a result below which a thread does not pay
constexpr int64_t COLUMNS = 64;     // floats of a row that go down an axis together

template <class Body>
int guarded(const Body& body) {
    int status = FAILED;
    try {
        status = body();
    } catch (...) {
        // Told by the status: no exception may cross into C.
    }
    Scratch::release();
    return status;
}

// B_d ... B_0 W' v, in one of the two buffers (M + 1, L), which is returned.
const float* splat_and_blur(const Lattice& lattice, int64_t labels, const float* v, bool transposed,
                            float* values, float* blurred, int threads) {
    const int64_t rows = lattice.vertices + 1, grain = GRAIN / labels + 1;
    // A vertex costs as much as it has pixels, so the parts are equal in pixels.
    const auto bound = [&](int64_t part, int64_t parts) {
        const int64_t entries = lattice.pixels * lattice.size * part / parts;
        const int32_t* const begin = lattice.splat_offsets;
        if (part == parts) return lattice.vertices;
        return std::lower_bound(begin, begin + lattice.vertices, entries) - begin;
    };
    const int64_t parts = std::min<int64_t>(threads, lattice.pixels / grain);
    parallel_parts(std::max<int64_t>(parts, 1), bound, [&](int64_t begin, int64_t end) {
        loops().splat(lattice, labels, v, values, begin, end);
    });
    // The missing neighbour.
    std::fill_n(values + lattice.vertices * labels, labels, 0.0f);
    for (int step = 0; step < lattice.size; ++step) {
        const int direction = transposed ? lattice.size - 1 - step : step;
        const int32_t* stencil = lattice.stencils + direction * rows * lattice.width;
        parallel_rows(rows, grain, threads, [&](int64_t begin, int64_t end) {
            loops().blur(stencil, lattice.taps, lattice.width, labels, values, blurred, begin, end);
        });
        std::swap(values, blurred);
    }
    return values;
}

// One axis of `separable_filter`: v (before, size, length) -> out.
void convolve_axis(const float* taps, int64_t radius, int64_t before, int64_t size, int64_t length,
                   const float* v, float* out, int threads) {
    const int64_t strips = (length + COLUMNS - 1) / COLUMNS;
    const int64_t grain = GRAIN / (size * std::min(length, COLUMNS)) + 1;
    parallel_rows(before * strips, grain, threads, [&](int64_t begin, int64_t end) {
        for (int64_t unit = begin; unit < end; ++unit) {
            const int64_t first = unit % strips * COLUMNS;
            const int64_t at = unit / strips * size * length + first;
            loops().convolve(v + at, taps, radius, size, length, std::min(COLUMNS, length - first),
                             out + at);
        }
    });
}

// `separable_filter`: axes alternate between the two buffers, beginning with the first; returns
// the one that the last axis ends in.
const float* convolve_axes(const Separable& kernel, int64_t batch, int64_t labels, const float* v,
                           float* const to[2], int threads) {
    const float* taps = kernel.taps;
    int64_t before = batch, length = kernel.pixels() * labels;
    for (int axis = 0; axis < kernel.axes; ++axis) {
        const int64_t radius = kernel.radii[axis], size = kernel.shape[axis];
        length /= size;
        convolve_axis(taps + radius + 3, radius, before, size, length, v, to[axis % 2], threads);
        taps += 2 * (radius + 3) + 1;
        before *= size;
        v = to[axis % 2];
    }
    return v;
}

// The columns of a penalty, and whether there is one number between any two labels.
struct Penalty {
    std::vector<float> columns, diagonal;
    float between = 0.0f;
    bool uniform = true;

    void read(const float* matrix, int64_t labels) {
        columns.resize(labels * labels);
        diagonal.resize(labels);
        if (labels > 1) between = matrix[1];
        for (int64_t l = 0; l < labels; ++l) {
            for (int64_t k = 0; k < labels; ++k) {
                columns[k * labels + l] = matrix[l * labels + k];
                if (k != l) uniform = uniform && matrix[l * labels + k] == between;
            }
            diagonal[l] = matrix[l * labels + l] - between;
        }
    }
    Message message(const float* before, float* rows) const {
        return {before, columns.data(), diagonal.data(), between, uniform, rows};
    }
};

}  // namespace

extern "C" {

const char* crfrnn_instructions() { return loops().instructions; }

// Returns OVERFLOWED where theta is too small; else *build and *vertices are for the second step.
int crfrnn_build_start(const Points* points, int64_t batch, int64_t num_pixels, int margin,
                       int32_t* slice_vertices, int threads, LatticeBuild** build,
                       int64_t* vertices) {
    return guarded([&] {
        *build =
            LatticeBuild::start(*points, batch, num_pixels, margin, slice_vertices, threads)
                .release();
        if (*build == nullptr) return OVERFLOWED;
        *vertices = (*build)->vertices();
        return DONE;
    });
}

// Fills the tables and frees the build.
int crfrnn_build_finish(LatticeBuild* build, const float* weights, int32_t* splat_pixels,
                        float* splat_weights, int32_t* splat_offsets, int32_t* stencils, int reach,
                        int threads) {
    const std::unique_ptr<LatticeBuild> owner(build);
    return guarded([&] {
        owner->finish(weights, splat_pixels, splat_weights, splat_offsets, stencils, reach,
                      threads);
        return DONE;
    });
}

// K v or K' v for v (BN, L).
int crfrnn_lattice_filter(const Lattice* lattice, int64_t labels, int transposed, const float* v,
                          float* filtered, int threads) {
    return guarded([&] {
        const int64_t table = (lattice->vertices + 1) * labels;
        float* const values = Scratch::floats(2 * table);
        const float* const on_vertices = splat_and_blur(*lattice, labels, v, transposed != 0,
                                                        values, values + table, threads);
        parallel_rows(lattice->pixels, GRAIN / labels + 1, threads,
                      [&](int64_t begin, int64_t end) {
                          loops().slice_(*lattice, labels, on_vertices, filtered, begin, end);
                      });
        return DONE;
    });
}

// One convolution per axis of v (B, *shape, L).
int crfrnn_separable_filter(const Separable* kernel, int64_t batch, int64_t labels, const float* v,
                            float* out, int threads) {
    return guarded([&] {
        const int64_t count = batch * kernel->pixels() * labels;
        float* const scratch = kernel->axes > 1 ? Scratch::floats(count) : nullptr;
        // The last axis ends in `out`, the ones ahead of it alternate.
        float* const to[] = {kernel->axes % 2 == 1 ? out : scratch,
                             kernel->axes % 2 == 1 ? scratch : out};
        convolve_axes(*kernel, batch, labels, v, to, threads);
        return DONE;
    });
}

// unary - sum_m after_m * K_m (before_m * (softmax(logits) P_m')), all (BN, L).
int crfrnn_mean_field_update(const Kernel* kernels, int count, int64_t batch, int64_t pixels,
                             int64_t labels, const float* logits, const float* unary,
                             float* updated, int threads) {
    return guarded([&] {
        const int64_t rows = batch * pixels * labels, padded = (labels + 7) / 8 * 8;
        // For each kernel what it filters, then for a lattice its two tables, for an odd number
        // of axes another buffer to alternate with.
        std::vector<int64_t> offset{0};
        for (int m = 0; m < count; ++m)
            offset.push_back(offset.back() + rows + kernels[m].extra(labels, rows));
        float* const scratch = Scratch::floats(offset.back());

        std::vector<Penalty> penalties(count);
        std::vector<Message> to_filter(count);
        for (int m = 0; m < count; ++m) {
            penalties[m].read(kernels[m].penalty, labels);
            to_filter[m] = penalties[m].message(kernels[m].before, scratch + offset[m]);
        }
        parallel_rows(batch * pixels, GRAIN / labels + 1, threads, [&](int64_t begin, int64_t end) {
            std::vector<float> q(MESSAGE_ROWS * padded);
            loops().messages(to_filter.data(), count, labels, logits, q.data(), begin, end);
        });

        std::vector<Term> terms(count);
        for (int m = 0; m < count; ++m) {
            float* const v = scratch + offset[m];
            float* const extra = v + rows;
            const Lattice* const lattice = kernels[m].lattice;
            terms[m] = {kernels[m].after, v, lattice};
            if (lattice != nullptr) {
                terms[m].values =
                    splat_and_blur(*lattice, labels, v, false, extra,
                                   extra + (lattice->vertices + 1) * labels, threads);
            } else {
                float* const to[] = {kernels[m].separable->axes % 2 == 1 ? extra : updated, v};
                terms[m].values =
                    convolve_axes(*kernels[m].separable, batch, labels, v, to, threads);
            }
        }
        parallel_rows(batch * pixels, GRAIN / labels + 1, threads, [&](int64_t begin, int64_t end) {
            loops().update(terms.data(), count, labels, unary, updated, begin, end);
        });
        return DONE;
    });
}
}
