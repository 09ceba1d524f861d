// Building a permutohedral lattice: the twin of `build_lattice` in lattice.py.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "resources.h"

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

// The strides of the digits in a key, or none where they do not fit into 62 bits.
struct KeyLayout {
    int32_t low[MAX_DIM];
    int64_t strides[MAX_DIM + 1];  // of the d digits, then of the image
    int64_t steps[MAX_DIM + 1];    // what a step along each of the d + 1 directions adds

    // False where theta is too small.
    bool fit(const Extent& extent, int dim, int64_t batch, int margin);
};

// Packed keys to row numbers, in the order in which they were first seen.
class VertexTable {
   public:
    explicit VertexTable(int64_t expected = 512);

    // The row of a key, a new one if need be.
    int32_t insert(int64_t key) {
        Slot& slot = slots_[place(key)];
        if (slot.key == key) return slot.row;
        slot = {key, static_cast<int32_t>(keys_.size())};
        keys_.push_back(key);
        const int32_t row = slot.row;
        if (2 * keys_.size() > slots_.size()) grow();
        return row;
    }

    // The row of a key, or -1.
    int32_t find(int64_t key) const {
        const Slot& slot = slots_[place(key)];
        return slot.key == key ? slot.row : -1;
    }

    // Ask for the place of a key, which no cache foresees.
    void prefetch(int64_t key) const { __builtin_prefetch(&slots_[first_place(key)]); }

    const std::vector<int64_t>& keys() const { return keys_; }
    void clear();

   private:
    struct Slot {
        int64_t key;  // -1: empty
        int32_t row;
    };

    uint64_t first_place(int64_t key) const {
        return (static_cast<uint64_t>(key) * 0x9E3779B97F4A7C15u) >> shift_;
    }

    // Where the key is, or the empty slot where it belongs.
    uint64_t place(int64_t key) const {
        uint64_t at = first_place(key);
        while (slots_[at].key != key && slots_[at].key != -1) at = (at + 1) & (slots_.size() - 1);
        return at;
    }
    void grow();

    std::vector<Slot> slots_;
    std::vector<int64_t> keys_;
    int shift_;
};

// Building a lattice in two steps, because only the first knows how many vertices there are.
class LatticeBuild {
   public:
    // Place the pixels, number the vertices. `slice_vertices` (BN, d + 1) is filled by `finish`.
    // Null where the features reach too far for the precision or the keys.
    static std::unique_ptr<LatticeBuild> start(const Points& points, int64_t batch,
                                               int64_t num_pixels, int margin,
                                               int32_t* slice_vertices, Team& team);

    int64_t vertices() const { return static_cast<int64_t>(table_.keys().size()); }

    // Fill the tables of `Lattice` in lattice.py; `weights` are the barycentric ones.
    void finish(const float* weights, int32_t* splat_pixels, float* splat_weights,
                int32_t* splat_offsets, int32_t* stencils, int reach, Team& team);

   private:
    // Consecutive pixels with a vertex table of their own, whatever the number of threads.
    struct Chunk {
        std::vector<int64_t> keys;   // in the order of first touch
        std::vector<int32_t> count;  // pixels around each of them
        std::vector<int32_t> row;    // their rows in the table of all
    };
    static constexpr int64_t CHUNK = 4096;

    void number_chunk(const Points& points, const KeyLayout& layout, int64_t num_pixels,
                      int64_t chunk, VertexTable& table);
    void merge_chunks();

    int size_ = 0;          // d + 1
    int64_t pixels_ = 0;    // BN
    int64_t steps_[MAX_DIM + 1] = {};
    int32_t* slice_vertices_ = nullptr;
    std::vector<Chunk> chunks_;
    VertexTable table_;
};

}  // namespace crfrnn
