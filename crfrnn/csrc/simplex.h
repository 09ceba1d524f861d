// The geometry of the permutohedral lattice: the twin of filtering/simplex.py.
#pragma once

#include <cstdint>

namespace crfrnn {

constexpr int MAX_DIM = 16;

// Features to place on the lattice, and where the places go.
struct Points {
    int32_t dim;            // d
    const float* features;  // (BN, d)
    const float* scales;    // (d,), lattice units of each rotated axis: `elevate`
    float farthest;         // |elevated| up to which a pixel is placed within its cell
    float* weights;         // (BN, d + 1), barycentric
    int8_t* rank;           // (BN, d + 1)
    int32_t* digits;        // (BN, d), of the remainder-0 vertex: `pack_keys`
};

// The range of the digits over some pixels, and whether a coordinate was too far or no number.
struct Extent {
    int32_t low[MAX_DIM], high[MAX_DIM];
    bool too_far;
};

// `enclosing_simplex` of the pixels [begin, end).
using EnclosingSimplex = void (*)(const Points&, int64_t begin, int64_t end, Extent* extent);

void enclosing_simplex_baseline(const Points&, int64_t begin, int64_t end, Extent* extent);
void enclosing_simplex_avx2(const Points&, int64_t begin, int64_t end, Extent* extent);

// That of this machine's best instruction set.
EnclosingSimplex enclosing_simplex();

}  // namespace crfrnn
