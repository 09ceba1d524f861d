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
};

extern const Loops loops_baseline, loops_avx2, loops_avx512;

// Those of this machine's best instruction set.
const Loops& loops();

}  // namespace crfrnn
