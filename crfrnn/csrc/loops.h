// The kernels as crfrnn/cpu.py describes them, and the inner loops, compiled once for each
// instruction set.
#pragma once

#include <cstdint>
#include <functional>
#include <numeric>

namespace crfrnn {

// The sparse matrices of lattice.py, as pointers.
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

// Images [begin, end) of a batch.
struct Images {
    int64_t begin, end;

    int64_t count() const { return end - begin; }
};

// A penalty, as what the message of label k adds to all labels: row k of the matrix.
struct Penalty {
    const float* rows;      // (L, L)
    const float* diagonal;  // (L,), the matrix's own less `between`
    float between;          // the one number between any two labels, where ...
    bool uniform;           // ... there is one
};

// A correlation along one axis, between grids as fine as the pixels or coarser: output o is the sum
// of taps[in_step i - out_step o + shift] v_i over the inputs i.
struct Axis {
    const float* taps;  // the middle one, with zeros beyond the radius; null: nothing to do
    int64_t radius;
    int64_t in_step, out_step;  // pixels from one input, or output, to the next
    int64_t shift;
    int64_t in_size, out_size;
};

// A kernel's filtered values, on their way to the pixels. Rows of labels are padded to `stride`.
struct Term {
    const float* factor;     // (BN,), of the finished rows, or null for 1
    const Lattice* lattice;  // or null
    const float* values;     // (M + 1, stride) of a lattice, or (B, rows.in_size, width, stride)
    Axis rows, columns;      // of a grid: from its rows to those of the pixels, then along each
    int64_t width;           // sites in a row of the grid
    bool penalised;          // whether the penalty has been applied to the values
    Penalty penalty;
};

// What becomes of the pixels' rows on their way into a kernel.
struct Sink {
    const float* factor;     // (BN,), of the rows, or null for 1
    const Lattice* lattice;  // or null
    const int32_t* places;   // (BN, d + 1), rows of `sums`: of every band its own
    const int32_t* touched;  // these rows, band after band
    const int64_t* bands;    // where those of a band begin, and the end of the last
    float* sums;
    Axis columns;            // of a grid: along each row
    int64_t width;           // sites in a row of the grid
    float* lines;            // (B, height, width, stride)
};

// Rows of an image's grid that one thread does in turn, from top to bottom.
struct Band {
    int64_t number, first_pixel, size;  // of the image
    int64_t image, begin, end;
};

// Floats of a row of labels with its padding: whole blocks of registers.
inline int64_t padded_labels(int64_t labels) { return labels <= 4 ? 4 : (labels + 7) / 8 * 8; }

// What all bands have in common.
struct Pass {
    int64_t labels, stride;  // L, and the floats of a padded row of labels
    int64_t width;           // pixels of a row
    int64_t rows;            // BN
    const Term* terms;
    int num_terms;
    const Sink* sinks;
    int num_sinks;
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
    void (*correlate)(const Axis&, const float* v, int64_t length, int64_t columns, int64_t begin,
                      int64_t end, float* out, int64_t apart);
    void (*softmax)(const float* logits, int64_t labels, float* q, int64_t begin, int64_t end);
    void (*row_dots)(const float* a, const float* b, int64_t labels, float* dots, int64_t begin,
                     int64_t end);
    void (*scale)(const float* factor, int64_t labels, const float* v, float* scaled,
                  int64_t begin, int64_t end);
    void (*multiply)(const Penalty& minus, int64_t labels, const float* v, float* product,
                     int64_t begin, int64_t end);
    void (*penalise)(const Penalty&, int64_t labels, float* values, int64_t begin, int64_t end);
    void (*merge)(int64_t stride, const float* sums, const int32_t* more, const int32_t* offsets,
                  const Penalty* penalty, float* values, int64_t begin, int64_t end);
    void (*update)(const Pass&, const float* unary, float* updated, bool to_q, float* history,
                   const Band&);
    void (*update_grad)(const Pass&, const float* q, float* rows_grad, const float* grad_sum,
                        float* new_sum, float* const* penalty_grads, const Band&);
    void (*send)(const Pass&, const float* rows, const Band&);
};

extern const Loops loops_baseline, loops_avx2, loops_avx512;

// Those of this machine's best instruction set.
const Loops& loops();

}  // namespace crfrnn
