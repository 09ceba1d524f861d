// Building a lattice: the twin of `build_lattice` in lattice.py.
//
// Vertices are numbered in the order in which the pixels first touch them, which keeps what is
// near in the image near in memory. Each chunk of pixels finds its own vertices first; merging
// the chunks in their order gives the same numbers for any number of threads.
#include "lattice.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "simplex_lanes.h"

namespace crfrnn {

// With the instruction set that every machine of the platform has.
void enclosing_simplex_baseline(const Points& points, int64_t begin, int64_t end,
                                Extent* extent) {
    enclosing_simplex_rows(points, begin, end, extent);
}

EnclosingSimplex enclosing_simplex() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) return enclosing_simplex_avx2;
#endif
    return enclosing_simplex_baseline;
}

bool KeyLayout::fit(const Extent& extent, int dim, int64_t batch, int margin) {
    // The radix of a digit is its range with a margin: a step never carries into another digit.
    int64_t stride = 1;
    for (int k = dim - 1; k >= 0; --k) {
        low[k] = extent.low[k] - margin - 1;
        const int64_t span = int64_t{extent.high[k]} + margin + 1 - low[k] + 1;
        strides[k] = stride;
        if (span > (int64_t{1} << 62) / stride) return false;
        stride *= span;
    }
    if (batch > (int64_t{1} << 62) / stride) return false;
    strides[dim] = stride;
    steps[dim] = 0;
    for (int k = 0; k < dim; ++k) {
        steps[k] = strides[k];
        steps[dim] -= strides[k];
    }
    return true;
}

VertexTable::VertexTable(int64_t expected) {
    uint64_t size = 1024;
    while (size < 2 * static_cast<uint64_t>(expected)) size *= 2;
    slots_.assign(size, Slot{-1, 0});
    shift_ = 64 - __builtin_ctzll(size);
}

void VertexTable::clear() {
    std::fill(slots_.begin(), slots_.end(), Slot{-1, 0});
    keys_.clear();
}

void VertexTable::grow() {
    slots_.assign(2 * slots_.size(), Slot{-1, 0});
    --shift_;
    for (std::size_t row = 0; row < keys_.size(); ++row)
        slots_[place(keys_[row])] = {keys_[row], static_cast<int32_t>(row)};
}

namespace {

constexpr int64_t AHEAD = 16;  // keys between one that is asked for and its turn

Extent united(const std::vector<Extent>& extents, int dim) {
    Extent all = extents.front();
    for (const Extent& extent : extents) {
        all.too_far |= extent.too_far;
        for (int k = 0; k < dim; ++k) {
            all.low[k] = std::min(all.low[k], extent.low[k]);
            all.high[k] = std::max(all.high[k], extent.high[k]);
        }
    }
    return all;
}

}  // namespace

std::unique_ptr<LatticeBuild> LatticeBuild::start(const Points& points, int64_t batch,
                                                  int64_t num_pixels, int margin,
                                                  int32_t* slice_vertices, Team& team) {
    auto build = std::make_unique<LatticeBuild>();
    const int64_t pixels = batch * num_pixels, chunks = (pixels + CHUNK - 1) / CHUNK;
    build->size_ = points.dim + 1;
    build->pixels_ = pixels;
    build->slice_vertices_ = slice_vertices;
    build->chunks_.resize(chunks);

    std::vector<Extent> extents(chunks);
    const EnclosingSimplex place = enclosing_simplex();
    team.for_rows(chunks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t chunk = begin; chunk < end; ++chunk)
            place(points, chunk * CHUNK, std::min(pixels, (chunk + 1) * CHUNK), &extents[chunk]);
    });
    const Extent extent = united(extents, points.dim);
    KeyLayout layout;
    if (extent.too_far || !layout.fit(extent, points.dim, batch, margin)) return nullptr;
    std::copy_n(layout.steps, build->size_, build->steps_);

    team.for_rows(chunks, 1, [&](int64_t begin, int64_t end) {
        VertexTable table;
        for (int64_t chunk = begin; chunk < end; ++chunk)
            build->number_chunk(points, layout, num_pixels, chunk, table);
    });
    build->merge_chunks();
    return build;
}

// The chunk's own vertices; slice_vertices counts within the chunk until `finish`.
void LatticeBuild::number_chunk(const Points& points, const KeyLayout& layout, int64_t num_pixels,
                                int64_t chunk, VertexTable& table) {
    const int size = size_, dim = size - 1;
    Chunk& own = chunks_[chunk];
    table.clear();
    int64_t last_key[MAX_DIM + 1];
    int32_t last_row[MAX_DIM + 1];
    std::fill_n(last_key, size, -1);
    const int64_t end = std::min(pixels_, (chunk + 1) * CHUNK);
    for (int64_t pixel = chunk * CHUNK; pixel < end; ++pixel) {
        int64_t key = pixel / num_pixels * layout.strides[dim];
        for (int k = 0; k < dim; ++k)
            key += (int64_t{points.digits[pixel * dim + k]} - layout.low[k]) * layout.strides[k];
        int direction_of[MAX_DIM + 1];
        for (int i = 0; i < size; ++i) direction_of[points.rank[pixel * size + i]] = i;
        int32_t* vertices = slice_vertices_ + pixel * size;
        for (int remainder = 0; remainder < size; ++remainder) {
            // Remainder r lies one step back along the directions of the r last ranks.
            if (remainder > 0) key -= layout.steps[direction_of[size - remainder]];
            // A pixel mostly shares its vertices with the one before it.
            if (key != last_key[remainder]) {
                last_key[remainder] = key;
                last_row[remainder] = table.insert(key);
                if (table.keys().size() > own.count.size()) own.count.push_back(0);
            }
            vertices[remainder] = last_row[remainder];
            ++own.count[last_row[remainder]];
        }
    }
    own.keys = table.keys();
}

void LatticeBuild::merge_chunks() {
    std::size_t keys = 0;
    for (const Chunk& chunk : chunks_) keys += chunk.keys.size();
    table_ = VertexTable(keys / 2);  // chunks share vertices
    for (Chunk& chunk : chunks_) {
        const std::size_t count = chunk.keys.size();
        chunk.row.resize(count);
        for (std::size_t k = 0; k < count; ++k) {
            if (k + AHEAD < count) table_.prefetch(chunk.keys[k + AHEAD]);
            chunk.row[k] = table_.insert(chunk.keys[k]);
        }
        chunk.keys = {};
    }
}

void LatticeBuild::finish(const float* weights, int32_t* splat_pixels, float* splat_weights,
                          int32_t* splat_offsets, int32_t* stencils, int reach, Team& team) {
    const int64_t rows = vertices();
    std::vector<int32_t> next(rows, 0);
    for (const Chunk& chunk : chunks_)
        for (std::size_t k = 0; k < chunk.row.size(); ++k) next[chunk.row[k]] += chunk.count[k];
    std::exclusive_scan(next.begin(), next.end(), splat_offsets, int32_t{0});

    // From here on `count` is where the chunk's first pixel goes in the vertex's list.
    std::copy_n(splat_offsets, rows, next.begin());
    for (Chunk& chunk : chunks_)
        for (std::size_t k = 0; k < chunk.row.size(); ++k) {
            const int32_t count = chunk.count[k];
            chunk.count[k] = next[chunk.row[k]];
            next[chunk.row[k]] += count;
        }
    team.for_rows(chunks_.size(), 1, [&](int64_t begin, int64_t end) {
        for (int64_t c = begin; c < end; ++c) {
            Chunk& chunk = chunks_[c];
            const int64_t stop = std::min(pixels_, (c + 1) * CHUNK) * size_;
            for (int64_t entry = c * CHUNK * size_; entry < stop; ++entry) {
                const int32_t own = slice_vertices_[entry];
                const int32_t at = chunk.count[own]++;
                slice_vertices_[entry] = chunk.row[own];
                splat_pixels[at] = static_cast<int32_t>(entry / size_);
                splat_weights[at] = weights[entry];
            }
        }
    });

    // `find_neighbours`: one step behind, one ahead, two behind, ..., the vertex itself.
    const std::vector<int64_t>& keys = table_.keys();
    const int width = 2 * reach + 1;
    const auto stencil_of = [&](int direction, int64_t row) {
        return stencils + (direction * (rows + 1) + row) * width;
    };
    team.for_rows(rows + 1, 1024, [&](int64_t begin, int64_t end) {
        for (int direction = 0; direction < size_; ++direction)
            for (int64_t row = begin; row < end; ++row) {
                std::fill_n(stencil_of(direction, row), width - 1, static_cast<int32_t>(rows));
                stencil_of(direction, row)[width - 1] = static_cast<int32_t>(row);
            }
    });
    // Whoever is ahead has the vertex behind it.
    team.for_rows(rows, 1024, [&](int64_t begin, int64_t end) {
        for (int direction = 0; direction < size_; ++direction)
            for (int hop = 1; hop <= reach; ++hop) {
                const int64_t step = hop * steps_[direction];
                for (int64_t row = begin; row < end; ++row) {
                    if (row + AHEAD < end) table_.prefetch(keys[row + AHEAD] + step);
                    const int32_t found = table_.find(keys[row] + step);
                    if (found < 0) continue;
                    stencil_of(direction, row)[2 * hop - 1] = found;
                    stencil_of(direction, found)[2 * hop - 2] = static_cast<int32_t>(row);
                }
            }
    });
}

}  // namespace crfrnn
