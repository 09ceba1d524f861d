// The kernels of a mean-field update as filtering/cpu.py describes them.
#pragma once

#include <cstdint>
#include <functional>
#include <numeric>

#include "loops.h"

namespace crfrnn {

// Images [begin, end) of a batch.
struct Images {
    int64_t begin, end;

    int64_t count() const { return end - begin; }
};

// The spatial Gaussian on a grid.
struct Separable {
    int32_t axes;
    const float* taps;     // of all axes one after another, each with 3 zeros on both sides
    const int64_t* radii;  // (axes,)
    const int64_t* shape;  // (axes,)

    int64_t pixels() const {
        return std::accumulate(shape, shape + axes, int64_t{1}, std::multiplies<int64_t>());
    }
};

// A normalised kernel with its penalty: one of `lattice` and `separable`, the other null.
struct Kernel {
    const float* penalty;  // P (L, L)
    const float* before;   // (BN,), or null for 1
    const float* after;    // (BN,), or null for 1
    const Lattice* lattice;
    const Separable* separable;
};

}  // namespace crfrnn
