#include "mean_field.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "filters.h"
#include "resources.h"

namespace crfrnn {

namespace {

constexpr int64_t TOGETHER = 1 << 20;  // floats of the rows of images that are done together
constexpr int64_t BAND = 8192;         // pixels of a band

// A Gaussian on a grid of s pixels is that of two narrower ones, down and up, off by the share
// exp(-(pi sigma / s)^2 / 2) at the frequency where it is worst, by its square where q is smooth:
constexpr double SIGMAS_OF_STEP = 1.8;  // 1e-7
constexpr double LEFT_OUT = 1e-7;       // share of a Gaussian beyond its taps

// The standard deviation of taps exp(-r^2 / (2 sigma^2)), or 0 where they are something else.
double gaussian_width(const Taps& taps) {
    const int64_t radius = taps.radius;
    if (radius == 0 || taps.middle[0] != 1.0f || !(taps.middle[radius] > 0.0f)) return 0.0;
    const double precision = -std::log(taps.middle[radius]) / static_cast<double>(radius * radius);
    if (!(precision > 0.0)) return 0.0;
    for (int64_t r = -radius; r <= radius; ++r)
        if (std::abs(std::exp(-precision * r * r) - taps.middle[r]) > 1e-6) return 0.0;
    return std::sqrt(0.5 / precision);
}

// exp(-r^2 / (2 sigma^2)) up to where LEFT_OUT is left, times what makes them `sum`.
int64_t gaussian_taps(double sigma, double sum, int64_t zeros, std::vector<float>& taps) {
    std::vector<double> half;
    for (int64_t r = 0; r <= std::ceil(6 * sigma); ++r)
        half.push_back(std::exp(-0.5 * r * r / (sigma * sigma)));
    const double whole = 2 * std::accumulate(half.begin() + 1, half.end(), 0.0) + 1;
    double left_out = 0.0;
    while (half.size() > 1 && left_out + 2 * half.back() <= LEFT_OUT * whole) {
        left_out += 2 * half.back();
        half.pop_back();
    }
    const int64_t radius = static_cast<int64_t>(half.size()) - 1;
    const double scale = sum > 0.0 ? sum / (whole - left_out) : 1.0;
    taps.assign(2 * (radius + zeros) + 1, 0.0f);
    for (int64_t r = -radius; r <= radius; ++r)
        taps[radius + zeros + r] = static_cast<float>(half[std::abs(r)] * scale);
    return radius;
}

// The axes down and up of a kernel along `size` pixels; only the way up where they are no coarser.
void set_axis(const Taps& taps, int64_t size, std::vector<float>& own, Axis& down, Axis& up) {
    const double sigma = gaussian_width(taps);
    const int64_t step = static_cast<int64_t>(sigma / SIGMAS_OF_STEP);
    if (step < 2) {
        // The same, but for the far ends of the taps.
        const int64_t most = taps.radius;
        const int64_t radius =
            sigma > 0.0 ? std::min(gaussian_taps(sigma, 0.0, 0, own), most) : most;
        own.assign(2 * (radius + PADDING) + 1, 0.0f);
        std::copy_n(taps.middle - radius, 2 * radius + 1, own.begin() + PADDING);
        up = {own.data() + radius + PADDING, radius, 1, 1, 0, size, size};
        return;
    }
    // What a constant becomes is exact: the sum of all taps.
    double sum = 1.0;
    for (int64_t r = 1; r <= std::ceil(6 * sigma); ++r)
        sum += 2 * std::exp(-0.5 * r * r / (sigma * sigma));
    const int64_t zeros = PADDING * step;
    const int64_t radius = gaussian_taps(sigma / std::sqrt(2.0), std::sqrt(sum * step), zeros, own);
    const float* const middle = own.data() + radius + zeros;
    const int64_t margin = radius / step, sites = margin + (size - 1 + radius) / step + 1;
    down = {middle, radius, 1, step, step * margin, size, sites};
    up = {middle, radius, step, 1, -step * margin, sites, size};
}

// The spatial kernel whose grid is that of all.
const Separable* grid_of(const Kernel* kernels, int count) {
    const Separable* grid = nullptr;
    for (int m = 0; m < count; ++m)
        if (kernels[m].separable != nullptr) grid = kernels[m].separable;
    return grid;
}

}  // namespace

PaddedPenalty::PaddedPenalty(const float* matrix, int64_t labels, int64_t stride, bool transposed)
    : rows(stride * stride, 0.0f), diagonal(stride, 0.0f) {
    // Whether there is one number between any two labels.
    const float between = labels > 1 ? matrix[1] : 0.0f;
    bool uniform = true;
    for (int64_t l = 0; l < labels; ++l) {
        for (int64_t k = 0; k < labels; ++k) {
            rows[transposed ? k * stride + l : l * stride + k] = matrix[l * labels + k];
            if (k != l) uniform = uniform && matrix[l * labels + k] == between;
        }
        diagonal[l] = matrix[l * labels + l] - between;
    }
    penalty = {rows.data(), diagonal.data(), between, uniform};
}

SpatialAxes::SpatialAxes(const Separable& kernel, int64_t columns)
    : width(columns), height(0), taps(2) {
    if (kernel.axes > 2) {
        // The others are done between two passes.
        const Taps first = taps_of(kernel, 0);
        rows_up = {first.middle, first.radius, 1, 1, 0, kernel.shape[0], kernel.shape[0]};
        return;
    }
    set_axis(taps_of(kernel, 0), kernel.shape[0], taps[0], rows_down, rows_up);
    height = rows_down.taps != nullptr ? rows_down.out_size : 0;
    if (kernel.axes == 1) return;
    set_axis(taps_of(kernel, 1), kernel.shape[1], taps[1], columns_down, columns_up);
    if (columns_down.taps == nullptr) std::swap(columns_down, columns_up);
    width = columns_down.out_size;
}

Accumulators::Accumulators(const Lattice& lattice, const std::vector<Band>& all, int64_t width,
                           int32_t* places) {
    const int64_t first_pixel = all.front().first_pixel;
    const int64_t last_pixel = all.back().first_pixel + all.back().size;
    const Part part = part_of(lattice, first_pixel, last_pixel);
    constexpr int32_t NOBODY = -1;
    std::vector<int32_t> last_band(lattice.vertices, NOBODY), row(lattice.vertices);
    std::vector<int32_t> vertex_of_more;
    bands.push_back(0);
    for (const Band& band : all) {
        const int32_t number = static_cast<int32_t>(band.number);
        const int64_t begin = band.first_pixel + band.begin * width;
        const int64_t end = band.first_pixel + std::min(band.end * width, band.size);
        for (int64_t entry = begin * lattice.size; entry < end * lattice.size; ++entry) {
            const int32_t vertex = lattice.slice_vertices[entry];
            if (last_band[vertex] != number) {
                if (last_band[vertex] == NOBODY) {
                    row[vertex] = vertex;
                } else {
                    row[vertex] = static_cast<int32_t>(lattice.vertices + vertex_of_more.size());
                    vertex_of_more.push_back(vertex);
                }
                last_band[vertex] = number;
                touched.push_back(row[vertex]);
            }
            places[entry - first_pixel * lattice.size] = row[vertex];
        }
        bands.push_back(touched.size());
    }
    // Vertices without pixels are cleared with those of the last band.
    for (int64_t vertex = part.first; vertex < part.last; ++vertex)
        if (last_band[vertex] == NOBODY) touched.push_back(static_cast<int32_t>(vertex));
    bands.back() = touched.size();

    rows = lattice.vertices + vertex_of_more.size();
    std::vector<int32_t> counts(lattice.vertices + 1, 0);
    for (const int32_t vertex : vertex_of_more) ++counts[vertex];
    offsets.resize(counts.size());
    std::exclusive_scan(counts.begin(), counts.end(), offsets.begin(), int32_t{0});
    std::copy(offsets.begin(), offsets.end(), counts.begin());
    more.resize(vertex_of_more.size());
    for (std::size_t k = 0; k < more.size(); ++k)
        more[counts[vertex_of_more[k]]++] = static_cast<int32_t>(lattice.vertices + k);
}

MeanField::MeanField(const Kernel* kernels, int count, int64_t batch, int64_t pixels,
                     int64_t labels, Team& team)
    : kernels_(kernels), count_(count), batch_(batch), pixels_(pixels), labels_(labels),
      stride_(padded_labels(labels)), team_(team),
      together_(std::clamp<int64_t>(TOGETHER / (pixels * labels), 1, batch)) {
    const Separable* const grid = grid_of(kernels, count);
    width_ = grid == nullptr ? std::min<int64_t>(pixels, 512) : pixels / grid->shape[0];
    height_ = (pixels + width_ - 1) / width_;
    const int64_t most = std::max<int64_t>(BAND / width_, 1);
    bands_of_image_ = (height_ + most - 1) / most;
    rows_of_band_ = (height_ + bands_of_image_ - 1) / bands_of_image_;
    bands_of_image_ = (height_ + rows_of_band_ - 1) / rows_of_band_;
    for (int m = 0; m < count; ++m) {
        columns_.emplace_back(kernels[m].penalty, labels, stride_, true);
        matrices_.emplace_back(kernels[m].penalty, labels, stride_, false);
        spatial_of_.push_back(-1);
        if (kernels[m].separable == nullptr) continue;
        spatial_of_[m] = static_cast<int>(spatial_.size());
        spatial_.emplace_back(*kernels[m].separable, width_);
    }
}

// Some images, with the memory for what is between two updates.
struct MeanField::Group {
    const MeanField& of;
    const Images images;
    const int64_t first_pixel, num_pixels;
    std::vector<Band> bands;
    std::vector<Accumulators> accumulators;   // of the lattices
    std::vector<Part> parts;
    std::vector<std::vector<float*>> buffers; // of each kernel
    std::vector<int32_t*> places;
    float* extra;
    std::vector<Sink> sinks;
    std::vector<Term> terms;
    int pass_number = 0;

    Group(const MeanField& field, const Images& some, int64_t extra_floats)
        : of(field), images(some), first_pixel(some.begin * field.pixels_),
          num_pixels(some.count() * field.pixels_), parts(field.count_), buffers(field.count_),
          places(field.count_, nullptr), sinks(field.count_), terms(field.count_) {
        for (int64_t image = 0; image < images.count(); ++image)
            for (int64_t begin = 0; begin < of.height_; begin += of.rows_of_band_)
                bands.push_back({static_cast<int64_t>(bands.size()),
                                 first_pixel + image * of.pixels_, of.pixels_, image, begin,
                                 std::min(begin + of.rows_of_band_, of.height_)});
        set_accumulators();
        set_buffers(extra_floats);
    }

    void set_accumulators() {
        int64_t total = 0;
        for (int m = 0; m < of.count_; ++m)
            if (const Lattice* const lattice = of.kernels_[m].lattice)
                total += num_pixels * lattice->size;
        int32_t* next = reinterpret_cast<int32_t*>(Scratch::floats(total, 1));
        for (int m = 0; m < of.count_; ++m) {
            const Lattice* const lattice = of.kernels_[m].lattice;
            if (lattice == nullptr) continue;
            accumulators.emplace_back(*lattice, bands, of.width_, next);
            parts[m] = part_of(*lattice, first_pixel, first_pixel + num_pixels);
            places[m] = next;
            next += num_pixels * lattice->size;
        }
    }

    void set_buffers(int64_t extra_floats) {
        // Whole cache lines each.
        const auto rounded = [](int64_t floats) { return (floats + 15) / 16 * 16; };
        std::vector<std::vector<int64_t>> sizes(of.count_);
        int64_t total = rounded(extra_floats);
        std::size_t lattices = 0;
        for (int m = 0; m < of.count_; ++m) {
            if (const Lattice* const lattice = of.kernels_[m].lattice) {
                const int64_t table = (lattice->vertices + 1) * of.stride_;
                sizes[m] = {accumulators[lattices++].rows * of.stride_, table, table};
            } else {
                const SpatialAxes& axes = of.spatial_[of.spatial_of_[m]];
                const int64_t line = images.count() * axes.width * of.stride_;
                const int64_t lines = of.height_ * line;
                if (axes.height > 0) sizes[m] = {lines, axes.height * line};
                else sizes[m] = {lines, lines, lines};
            }
            for (int64_t& size : sizes[m]) total += size = rounded(size);
        }
        extra = Scratch::floats(total);
        float* next = extra + rounded(extra_floats);
        for (int m = 0; m < of.count_; ++m)
            for (const int64_t size : sizes[m]) {
                buffers[m].push_back(next);
                next += size;
            }
    }

    // body(pass, band) for all bands, from the terms to the sinks.
    template <class Body>
    void pass(bool with_terms, bool with_sinks, bool transposed, const Body& body) {
        std::size_t lattices = 0;
        for (int m = 0; m < of.count_; ++m) {
            const Kernel& kernel = of.kernels_[m];
            Sink& sink = sinks[m];
            sink = {};
            sink.factor = transposed ? kernel.after : kernel.before;
            if (kernel.lattice != nullptr) {
                const Accumulators& own = accumulators[lattices++];
                sink.lattice = kernel.lattice;
                sink.places = places[m] - first_pixel * kernel.lattice->size;
                sink.touched = own.touched.data();
                sink.bands = own.bands.data();
                sink.sums = buffers[m][0];
            } else {
                const SpatialAxes& axes = of.spatial_[of.spatial_of_[m]];
                sink.columns = axes.columns_down;
                sink.width = axes.width;
                sink.lines = lines_of(m);
            }
        }
        const Pass all{of.labels_, of.stride_, of.width_, of.batch_ * of.pixels_,
                       terms.data(), with_terms ? of.count_ : 0,
                       sinks.data(), with_sinks ? of.count_ : 0};
        const int64_t grain = GRAIN / (of.rows_of_band_ * of.width_ * of.stride_) + 1;
        of.team_.for_rows(bands.size(), grain, [&](int64_t begin, int64_t end) {
            for (int64_t k = begin; k < end; ++k) body(all, bands[k]);
        });
        if (with_sinks) finish(transposed);
    }

    // Where the pass writes the lines of a spatial kernel; it may read those of the pass before.
    float* lines_of(int m) const {
        const bool alone = of.spatial_[of.spatial_of_[m]].height > 0;
        const bool more_axes = of.kernels_[m].separable->axes > 2;
        return buffers[m][alone || more_axes ? 0 : pass_number % 2];
    }

    // From what the sinks have to the terms of the next pass.
    void finish(bool transposed) {
        std::size_t lattices = 0;
        for (int m = 0; m < of.count_; ++m) {
            const Kernel& kernel = of.kernels_[m];
            Term& term = terms[m];
            term = {};
            term.factor = transposed ? kernel.before : kernel.after;
            // Backwards, the penalty's own gradient takes the messages without it.
            term.penalty = (transposed ? of.matrices_ : of.columns_)[m].penalty;
            term.penalised = !transposed;
            if (kernel.lattice != nullptr) {
                const Accumulators& own = accumulators[lattices++];
                term.lattice = kernel.lattice;
                const Penalty* const penalty = transposed ? nullptr : &term.penalty;
                of.team_.for_rows(parts[m].last - parts[m].first, GRAIN / of.stride_ + 1,
                                  [&](int64_t begin, int64_t end) {
                                      loops().merge(of.stride_, buffers[m][0], own.more.data(),
                                                    own.offsets.data(), penalty, buffers[m][1],
                                                    parts[m].first + begin, parts[m].first + end);
                                  });
                term.values = blur_all(*kernel.lattice, parts[m], of.stride_, transposed,
                                       buffers[m][1], buffers[m][2], of.team_);
            } else {
                finish_spatial(m, term);
            }
        }
        ++pass_number;
    }

    void finish_spatial(int m, Term& term) {
        const Separable& kernel = *of.kernels_[m].separable;
        const SpatialAxes& axes = of.spatial_[of.spatial_of_[m]];
        const float* const lines = lines_of(m);
        const int64_t length = axes.width * of.stride_;
        term.rows = axes.rows_up;
        term.columns = axes.columns_up;
        term.width = axes.width;
        term.values = lines;
        if (kernel.axes > 2) {
            term.penalised = false;
            int64_t repeats = num_pixels, row = of.stride_;
            float* to = buffers[m][1];
            float* other = buffers[m][2];
            for (int axis = kernel.axes - 1; axis > 0; --axis) {
                const int64_t size = kernel.shape[axis];
                repeats /= size;
                correlate_axis(axis_of(kernel, axis), repeats, row, term.values, to, of.team_);
                row *= size;
                term.values = to;
                std::swap(to, other);
            }
            return;
        }
        if (axes.height == 0) {
            term.penalised = false;
            return;
        }
        float* const coarse = buffers[m][1];
        term.values = coarse;
        const Penalty* const penalty = term.penalised ? &term.penalty : nullptr;
        // A few rows of the coarse grid, as wide as what they read stays in the cache.
        constexpr int64_t ROWS = 6;
        const int64_t sites = std::clamp<int64_t>(2048 / of.stride_, 1, axes.width);
        const int64_t across = (axes.width + sites - 1) / sites;
        const int64_t down = (axes.height + ROWS - 1) / ROWS;
        const int64_t grain = GRAIN / (ROWS * sites * of.stride_) + 1;
        of.team_.for_rows(images.count() * down * across, grain, [&](int64_t begin, int64_t end) {
            for (int64_t unit = begin; unit < end; ++unit) {
                const int64_t image = unit / across / down, top = unit / across % down * ROWS;
                const int64_t bottom = std::min(top + ROWS, axes.height);
                const int64_t site = unit % across * sites;
                const int64_t some = std::min(sites, axes.width - site);
                float* const out =
                    coarse + (image * axes.height + top) * length + site * of.stride_;
                loops().correlate(axes.rows_down,
                                  lines + image * of.height_ * length + site * of.stride_, length,
                                  some * of.stride_, top, bottom, out, length);
                if (penalty != nullptr)
                    for (int64_t row = 0; row < bottom - top; ++row)
                        loops().penalise(*penalty, of.stride_, out + row * length, 0, some);
            }
        });
    }
};

template <class Body>
void MeanField::by_groups_of_images(int64_t extra, const Body& body) const {
    for (int64_t first = 0; first < batch_; first += together_) {
        Group group(*this, {first, std::min(first + together_, batch_)}, extra);
        body(group);
    }
}

void MeanField::update(int iterations, const float* start, const float* unary, float* history,
                       float* updated) {
    const int64_t rows = batch_ * pixels_ * labels_;
    by_groups_of_images(0, [&](Group& group) {
        group.pass(false, true, false, [&](const Pass& pass, const Band& band) {
            loops().update(pass, start, nullptr, true, history, band);
        });
        for (int t = 1; t <= iterations; ++t) {
            const bool last = t == iterations;
            float* const q = history == nullptr || last ? nullptr : history + t * rows;
            group.pass(true, !last, false, [&](const Pass& pass, const Band& band) {
                loops().update(pass, unary, last ? updated : nullptr, !last, q, band);
            });
        }
    });
}

void MeanField::update_grad(int iterations, const float* history, const float* grad,
                            float* start_grad, float* unary_grad, float* penalty_grads,
                            const KernelGrad* const* kernel_grads) {
    const int64_t some_rows = together_ * pixels_ * labels_;
    int64_t to_kernels = 0;
    for (int m = 0; m < count_; ++m)
        if (const KernelGrad* const to = kernel_grads[m])
            to_kernels = std::max(
                to_kernels, kernel_grad_floats(kernels_[m], *to, batch_, pixels_, labels_));
    // The rows sent and received, which only the kernels' own gradients need.
    const int64_t rows_between = to_kernels > 0 ? some_rows : 0;
    const int64_t matrix = labels_ * stride_, matrices = count_ * matrix;
    if (penalty_grads != nullptr)
        std::fill_n(penalty_grads, count_ * labels_ * labels_, 0.0f);
    // On rows without padding.
    std::vector<PaddedPenalty> minus;
    for (int m = 0; m < count_; ++m)
        minus.emplace_back(kernels_[m].penalty, labels_, labels_, true);
    by_groups_of_images(to_kernels + 3 * rows_between, [&](Group& group) {
        const int64_t at = group.first_pixel * labels_;
        float* const sent = group.extra + to_kernels - at;
        // Each band sums for itself, and the bands are added in their order.
        std::vector<float> sums(penalty_grads != nullptr ? group.bands.size() * matrices : 0);
        const float* received = grad;
        const float* grad_sum = grad;
        group.pass(false, true, true, [&](const Pass& pass, const Band& band) {
            loops().send(pass, grad, band);
        });
        for (int t = iterations - 1; t >= 0; --t) {
            const float* const q = history + t * batch_ * pixels_ * labels_;
            for (int m = 0; m < count_; ++m) {
                const KernelGrad* const to = kernel_grads[m];
                if (to == nullptr) continue;
                team_.for_rows(group.num_pixels, GRAIN / labels_ + 1,
                               [&](int64_t begin, int64_t end) {
                                   loops().multiply(minus[m].penalty, labels_, q, sent,
                                                    group.first_pixel + begin,
                                                    group.first_pixel + end);
                               });
                const Message message{sent, kernels_[m].before, received, kernels_[m].after};
                add_kernel_grad(kernels_[m], group.images, pixels_, batch_, labels_, message,
                                false, *to, group.extra, team_);
            }
            const bool to_start = t == 0 && start_grad != nullptr;
            float* next = to_start ? start_grad : nullptr;
            if (next == nullptr && rows_between > 0) next = sent + (1 + t % 2) * some_rows;
            float* const new_sum = to_start ? nullptr : unary_grad;
            std::fill(sums.begin(), sums.end(), 0.0f);
            group.pass(true, t > 0, true, [&](const Pass& pass, const Band& band) {
                std::vector<float*> to(count_, nullptr);
                if (penalty_grads != nullptr)
                    for (int m = 0; m < count_; ++m)
                        to[m] = sums.data() + band.number * matrices + m * matrix;
                loops().update_grad(pass, q, next, grad_sum, new_sum, to.data(), band);
            });
            for (std::size_t row = 0; row < sums.size() / stride_; ++row) {
                float* const to = penalty_grads + row % (count_ * labels_) * labels_;
                for (int64_t l = 0; l < labels_; ++l) to[l] += sums[row * stride_ + l];
            }
            received = next;
            grad_sum = unary_grad;
        }
    });
}

}  // namespace crfrnn
