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

constexpr int MESSAGE_ROWS = 4;

// What one kernel of a mean-field update filters: before * (q P').
struct Message {
    const float* before;           // (BN,), or null for 1
    const float* penalty_columns;  // P' (L, L)
    const float* diagonal;         // (L,), P's own less `between`
    float between;                 // the one penalty between any two labels, where ...
    bool uniform;                  // ... there is one
    float* rows;                   // (BN, L)
};

// What the update subtracts: after * values, or after * (W values) of a lattice.
struct Term {
    const float* after;  // (BN,), or null for 1
    const float* values;
    const Lattice* lattice;  // or null
};

struct Loops {
    const char* instructions;
    void (*splat)(const Lattice&, int64_t labels, const float* v, float* values, int64_t begin,
                  int64_t end);
    void (*blur)(const int32_t* stencil, const float* taps, int width, int64_t labels,
                 const float* values, float* blurred, int64_t begin, int64_t end);
    void (*slice_)(const Lattice&, int64_t labels, const float* values, float* filtered,
                   int64_t begin, int64_t end);
    void (*convolve)(const float* v, const float* taps, int64_t radius, int64_t size,
                     int64_t length, int64_t columns, float* out);
    void (*messages)(const Message* all, int count, int64_t labels, const float* logits, float* q,
                     int64_t begin, int64_t end);
    void (*update)(const Term* terms, int count, int64_t labels, const float* unary, float* logits,
                   int64_t begin, int64_t end);
};

extern const Loops loops_baseline, loops_avx2, loops_avx512;

// Those of this machine's best instruction set.
const Loops& loops();

}  // namespace crfrnn
