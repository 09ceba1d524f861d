// Building a lattice in two steps, because only the first knows how many vertices there are.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "simplex.h"
#include "threads.h"
#include "vertices.h"

namespace crfrnn {

class LatticeBuild {
   public:
    // Place the pixels, number the vertices. `slice_vertices` (BN, d + 1) is filled by `finish`.
    // Null where the features reach too far for the precision or the keys.
    static std::unique_ptr<LatticeBuild> start(const Points& points, int64_t batch,
                                               int64_t num_pixels, int margin,
                                               int32_t* slice_vertices, Team& team);

    int64_t vertices() const { return static_cast<int64_t>(table_.keys().size()); }

    // Fill the tables of `Lattice` in filtering/lattice.py; `weights` are the barycentric ones.
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
