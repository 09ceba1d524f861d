// What filtering/cpu.py calls: plain C functions on raw pointers, all float32 and contiguous.
//
// A function that can fail returns 0 for success and FAILED where memory ran out.
#include <cstdint>
#include <memory>

#include "build.h"
#include "filters.h"
#include "kernels.h"
#include "loops.h"
#include "mean_field.h"
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

template <class Body>
int guarded(int threads, const Body& body) {
    int status = FAILED;
    try {
        Team team(threads);
        status = body(team);
    } catch (...) {
        // Told by the status: no exception may cross into C.
    }
    Scratch::release();
    return status;
}

}  // namespace

extern "C" {

// Of the functions below: what native.py expects, or the library is of another version.
int crfrnn_interface() { return 5; }

const char* crfrnn_instructions() { return loops().instructions; }

// For memory that has no pages yet.
void crfrnn_large_pages(void* memory, int64_t bytes) {
    Scratch::ask_for_large_pages(memory, bytes);
}

// q = softmax(logits) of rows of labels.
int crfrnn_softmax(const float* logits, int64_t rows, int64_t labels, float* q, int threads) {
    return guarded(threads, [&](Team& team) {
        team.for_rows(rows, GRAIN / labels + 1, [&](int64_t begin, int64_t end) {
            loops().softmax(logits, labels, q, begin, end);
        });
        return DONE;
    });
}

// Returns OVERFLOWED where theta is too small; else *build and *vertices are for the second step.
int crfrnn_build_start(const Points* points, int64_t batch, int64_t num_pixels, int margin,
                       int32_t* slice_vertices, int threads, LatticeBuild** build,
                       int64_t* vertices) {
    return guarded(threads, [&](Team& team) {
        *build =
            LatticeBuild::start(*points, batch, num_pixels, margin, slice_vertices, team).release();
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
    return guarded(threads, [&](Team& team) {
        owner->finish(weights, splat_pixels, splat_weights, splat_offsets, stencils, reach, team);
        return DONE;
    });
}

// K v or K' v for v (BN, L).
int crfrnn_lattice_filter(const Lattice* lattice, int64_t labels, int transposed, const float* v,
                          float* filtered, int threads) {
    return guarded(threads, [&](Team& team) {
        const int64_t table = (lattice->vertices + 1) * labels;
        float* const values = Scratch::floats(2 * table);
        const float* const on_vertices = splat_and_blur(
            *lattice, labels, nullptr, v, transposed != 0, values, values + table, team);
        team.for_rows(lattice->pixels, GRAIN / labels + 1,
                      [&](int64_t begin, int64_t end) {
                          loops().slice_(*lattice, labels, on_vertices, filtered, begin, end);
                      });
        return DONE;
    });
}

// sum_j k_ij (f_j - f_i) (grad_i . v_j + v_i . grad_j), the Gaussian's own derivative through the
// lattice: `columns` (d, BN) hold f and become the result; v and grad are (BN, L).
int crfrnn_gaussian_features_grad(const Lattice* lattice, int dim, int64_t labels, const float* v,
                                  const float* grad, int transposed, float* columns, int threads) {
    return guarded(threads, [&](Team& team) {
        const int64_t pixels = lattice->pixels, table = (lattice->vertices + 1) * labels;
        float* const values = Scratch::floats(2 * table + 4 * pixels);
        float* const dots = values + 2 * table;
        // dots[2 s] = <w, K_s u> of all pixels, dots[2 s + 1] = <w, K_s (f u)>: s = 0 receives,
        // s = 1 sends.
        const auto filter_dot = [&](int sends, const float* factor, float* result) {
            const float* const from = sends ? grad : v;
            const float* const on_vertices =
                splat_and_blur(*lattice, labels, factor, from, (transposed != 0) != (sends != 0),
                               values, values + table, team);
            team.for_rows(pixels, GRAIN / labels + 1, [&](int64_t begin, int64_t end) {
                loops().slice_dot(*lattice, labels, on_vertices, sends ? v : grad, result, begin,
                                  end);
            });
        };
        for (const int sends : {0, 1}) filter_dot(sends, nullptr, dots + 2 * sends * pixels);
        for (int k = 0; k < dim; ++k) {
            float* const f = columns + k * pixels;
            for (const int sends : {0, 1}) filter_dot(sends, f, dots + (2 * sends + 1) * pixels);
            for (int64_t i = 0; i < pixels; ++i)
                f[i] = (dots[pixels + i] - f[i] * dots[i]) +
                       (dots[3 * pixels + i] - f[i] * dots[2 * pixels + i]);
        }
        return DONE;
    });
}

// One convolution per axis of v (B, *shape, L).
int crfrnn_separable_filter(const Separable* kernel, int64_t batch, int64_t labels, const float* v,
                            float* out, int threads) {
    return guarded(threads, [&](Team& team) {
        const int64_t count = batch * kernel->pixels() * labels;
        float* const scratch = kernel->axes > 1 ? Scratch::floats(count) : nullptr;
        // The last axis ends in `out`, the ones ahead of it alternate.
        float* const to[] = {kernel->axes % 2 == 1 ? out : scratch,
                             kernel->axes % 2 == 1 ? scratch : out};
        convolve_axes(*kernel, batch, labels, v, to, team);
        return DONE;
    });
}

// `iterations` updates, all rows (BN, L): from `start` to `updated`, which may be it. Unless history
// is null, q ahead of each of them is in it, (iterations, BN, L).
int crfrnn_mean_field_update(const Kernel* kernels, int count, int64_t batch, int64_t pixels,
                             int64_t labels, int iterations, const float* start,
                             const float* unary, float* history, float* updated, int threads) {
    return guarded(threads, [&](Team& team) {
        MeanField(kernels, count, batch, pixels, labels, team)
            .update(iterations, start, unary, history, updated);
        return DONE;
    });
}

// The gradients of these updates: to the start and the unary, and to the penalties (count, L, L);
// each may be null. Where that of the start is, the unary was the start, and receives both.
int crfrnn_mean_field_update_grad(const Kernel* kernels, int count, int64_t batch, int64_t pixels,
                                  int64_t labels, int iterations, const float* history,
                                  const float* grad, float* start_grad, float* unary_grad,
                                  float* penalty_grads, int threads) {
    return guarded(threads, [&](Team& team) {
        MeanField(kernels, count, batch, pixels, labels, team)
            .update_grad(iterations, history, grad, start_grad, unary_grad, penalty_grads);
        return DONE;
    });
}
}
