// What cpu.py calls: plain C functions on raw pointers, all float32 and contiguous.
//
// A function that can fail returns 0 for success and FAILED where memory ran out.
#include <cstdint>
#include <memory>
#include <vector>

#include "filters.h"
#include "lattice.h"
#include "loops.h"
#include "mean_field.h"
#include "resources.h"

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

}  // namespace crfrnn

namespace {

enum Status : int { DONE = 0, OVERFLOWED = 1, FAILED = 2 };

template <class Body>
int guarded(int threads, const Body& body) {
    int status = FAILED;
    try {
        status = body(Team::of_this_thread(threads));
    } catch (...) {
        // Told by the status: no exception may cross into C.
    }
    Scratch::release();
    return status;
}

}  // namespace

extern "C" {

// Of the functions below: what cpu.py expects, or the library is of another version.
int crfrnn_interface() { return 8; }

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

// v matrix, of rows of labels and a square matrix.
int crfrnn_product(const float* v, int64_t rows, int64_t labels, const float* matrix,
                   float* product, int threads) {
    return guarded(threads, [&](Team& team) {
        std::vector<float> minus(matrix, matrix + labels * labels);
        for (float& x : minus) x = -x;
        const Penalty penalty{minus.data(), nullptr, 0.0f, false};
        team.for_rows(rows, GRAIN / (labels * labels) + 1, [&](int64_t begin, int64_t end) {
            loops().multiply(penalty, labels, v, product, begin, end);
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
        const float* const on_vertices =
            splat_and_blur(*lattice, part_of(*lattice, 0, lattice->pixels), labels, 1, nullptr, v,
                           transposed != 0, values, values + table, team);
        team.for_rows(lattice->pixels, GRAIN / labels + 1,
                      [&](int64_t begin, int64_t end) {
                          loops().slice_(*lattice, labels, on_vertices, filtered, begin, end);
                      });
        return DONE;
    });
}

// The gradient of <grad, K v> to what K is made of, added to to->own (filters.h); v and grad
// (BN, L). The kernel's penalty and factors do not count.
int crfrnn_kernel_grad(const Kernel* kernel, int64_t batch, int64_t pixels, int64_t labels,
                       const float* v, const float* grad, int transposed, const KernelGrad* to,
                       int threads) {
    return guarded(threads, [&](Team& team) {
        float* const scratch =
            Scratch::floats(kernel_grad_floats(*kernel, *to, batch, pixels, labels));
        add_kernel_grad(*kernel, {0, batch}, pixels, batch, labels, {v, nullptr, grad, nullptr},
                        transposed != 0, *to, scratch, team);
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

// `iterations` updates, all rows (BN, L): from `start` to `updated`, which may be it unless that is
// the unary. Where `history` is not null, q ahead of each update is in it, (iterations, BN, L).
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
// each may be null. Where that of the start is, the unary was the start, and receives both. And to
// the kernels, whose entry in kernel_grads is null where they do not learn: added to what is there.
int crfrnn_mean_field_update_grad(const Kernel* kernels, int count, int64_t batch, int64_t pixels,
                                  int64_t labels, int iterations, const float* history,
                                  const float* grad, float* start_grad, float* unary_grad,
                                  float* penalty_grads, const KernelGrad* const* kernel_grads,
                                  int threads) {
    return guarded(threads, [&](Team& team) {
        MeanField(kernels, count, batch, pixels, labels, team)
            .update_grad(iterations, history, grad, start_grad, unary_grad, penalty_grads,
                         kernel_grads);
        return DONE;
    });
}
}
