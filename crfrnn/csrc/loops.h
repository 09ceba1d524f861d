// The inner loops, compiled once for each instruction set, and the tables they read.
#pragma once

#include <cstdint>

namespace crfrnn {

// The sparse matrices of filtering/lattice.py, as pointers.
struct Lattice {
    int64_t pixels;    // BN
    int64_t vertices;  // M
    int32_t size;      // d + 1
    int32_t width;     // 2 reach + 1
    const int32_t* slice_vertices;
    const float* slice_weights;
    const int32_t* splat_pixels;
    const float* splat_weights;
    const int32_t* splat_offsets;
    const int32_t* stencils;
    const float* taps;  // in the order of a stencil's rows
    float gain;

    int64_t splat_end(int64_t vertex) const {
        return vertex + 1 < vertices ? splat_offsets[vertex + 1] : pixels * size;
    }
};

// A penalty, as what the message of label k adds to all labels: row k of the matrix.
struct Penalty {
    const float* rows;      // (L, L)
    const float* diagonal;  // (L,), the matrix's own less `between`
    float between;          // the one number between any two labels, where ...
    bool uniform;           // ... there is one
};

// Taps along an axis: the middle one, and how far they reach on both sides of it.
struct Taps {
    const float* middle;  // or null for an axis that is done
    int64_t radius;
};

// A kernel whose last stage is still to be done: slicing, or the last and the first axis.
struct Term {
    const float* factor;     // (BN,), of the finished rows, or null for 1
    const Lattice* lattice;  // or null
    const float* values;     // (M + 1, L) of a lattice, or rows (BN, L)
    const float* before;     // (BN,), of these rows ahead of the last axis, or null for 1
    Taps last, first;
    Penalty penalty;
};

// Pixels that are done together: `columns` neighbours, `size` times with `stride` between. To the
// left of them the line has `left` more, and `right` to the right.
struct Patch {
    int64_t first, size, stride, columns, left, right;
};

struct Loops {
    const char* instructions;
    void (*splat)(const Lattice&, int64_t labels, int64_t count, const float* factors,
                  const float* v, float* values, int64_t begin, int64_t end);
    void (*blur)(const int32_t* stencil, const float* taps, int width, int64_t labels,
                 const float* values, float* blurred, int64_t begin, int64_t end);
    void (*slice_)(const Lattice&, int64_t labels, const float* values, float* filtered,
                   int64_t begin, int64_t end);
    void (*slice_dots)(const Lattice&, int64_t labels, int64_t count, const float* values,
                       const float* v, float* dots, int64_t begin, int64_t end);
    void (*convolve)(const float* v, const float* taps, int64_t radius, int64_t size,
                     int64_t length, int64_t columns, int64_t begin, int64_t end, float* out,
                     int64_t apart);
    void (*softmax)(const float* logits, int64_t labels, float* q, int64_t begin, int64_t end);
    void (*row_dots)(const float* a, const float* b, int64_t labels, float* dots, int64_t begin,
                     int64_t end);
    void (*scale)(const float* factor, int64_t labels, const float* v, float* scaled,
                  int64_t begin, int64_t end);
    void (*multiply)(const Penalty& minus, int64_t labels, const float* v, float* product,
                     int64_t begin, int64_t end);
    void (*penalise)(const Penalty&, int64_t labels, float* values, int64_t begin, int64_t end);
    void (*patch_dots)(const Term& term, int64_t labels, const float* w, float* dots,
                       const Patch& patch);
    void (*update)(const Term* terms, int count, int64_t labels, const float* unary, bool to_q,
                   float* updated, const Patch& patch);
    void (*update_grad)(const Term* terms, int count, int64_t labels, const float* q,
                        float* logits_grad, const float* grad_sum, float* new_sum,
                        float* const* penalty_grads, const Patch& patch);
};

extern const Loops loops_baseline, loops_avx2, loops_avx512;

// Those of this machine's best instruction set.
const Loops& loops();

}  // namespace crfrnn
