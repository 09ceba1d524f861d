// Every native function on small random problems, for `make sanitize`; 0 if all is as it should be.
#include <cmath>
#include <cstdio>
#include <random>
#include <thread>
#include <vector>

#include "filters.h"
#include "lattice.h"
#include "loops.h"

using namespace crfrnn;

extern "C" {
int crfrnn_build_start(const Points*, int64_t, int64_t, int, int32_t*, int, LatticeBuild**,
                       int64_t*);
int crfrnn_build_finish(LatticeBuild*, const float*, int32_t*, float*, int32_t*, int32_t*, int,
                        int);
int crfrnn_lattice_filter(const Lattice*, int64_t, int, const float*, float*, int);
int crfrnn_kernel_grad(const Kernel*, int64_t, int64_t, int64_t, const float*, const float*, int,
                       const KernelGrad*, int);
int crfrnn_separable_filter(const Separable*, int64_t, int64_t, const float*, float*, int);
int crfrnn_mean_field_update(const Kernel*, int, int64_t, int64_t, int64_t, int, const float*,
                             const float*, float*, float*, int);
int crfrnn_mean_field_update_grad(const Kernel*, int, int64_t, int64_t, int64_t, int, const float*,
                                  const float*, float*, float*, float*, const KernelGrad* const*,
                                  int);
int crfrnn_softmax(const float*, int64_t, int64_t, float*, int);
int crfrnn_product(const float*, int64_t, int64_t, const float*, float*, int);
}

namespace {

std::vector<float> random_floats(std::size_t count, float scale) {
    static thread_local std::mt19937 generator(1);
    std::uniform_real_distribution<float> uniform(0.0f, scale);
    std::vector<float> floats(count);
    for (float& x : floats) x = uniform(generator);
    return floats;
}

void demand(bool holds, const char* what) {
    if (holds) return;
    std::printf("not so: %s\n", what);
    std::exit(1);
}

void append(std::vector<float>& all, const std::vector<std::vector<float>>& more) {
    for (const auto& one : more) all.insert(all.end(), one.begin(), one.end());
}

// Two updates with kernels, and every gradient of them.
std::vector<float> update_result(const Kernel* kernels, int count, int64_t batch, int64_t num_pixels,
                                 int64_t labels, const std::vector<float>& v,
                                 const KernelGrad* const* learn, int threads) {
    const std::size_t size = v.size();
    std::vector<float> history(2 * size), all_at_once(size), updated(size);
    crfrnn_mean_field_update(kernels, count, batch, num_pixels, labels, 2, v.data(), v.data(),
                             nullptr, all_at_once.data(), threads);
    crfrnn_mean_field_update(kernels, count, batch, num_pixels, labels, 2, v.data(), v.data(),
                             history.data(), updated.data(), threads);
    demand(updated == all_at_once, "the same with and without a history");
    std::vector<float> grad(size), unary_grad(size), both(size), penalty(count * labels * labels);
    crfrnn_mean_field_update_grad(kernels, count, batch, num_pixels, labels, 2, history.data(),
                                  updated.data(), grad.data(), unary_grad.data(), penalty.data(),
                                  learn, threads);
    const KernelGrad* const fixed[] = {nullptr, nullptr};
    crfrnn_mean_field_update_grad(kernels, count, batch, num_pixels, labels, 2, history.data(),
                                  updated.data(), nullptr, both.data(), nullptr, fixed, threads);
    for (std::size_t k = 0; k < size; ++k)
        demand(both[k] == unary_grad[k] + grad[k], "the start and the unary, in one");
    append(updated, {grad, unary_grad, penalty});
    return updated;
}

// The lattice of `batch` images of `num_pixels` pixels, filtered, and in updates.
std::vector<float> lattice_result(const std::vector<float>& features, int dim, int64_t batch,
                                  int64_t num_pixels, const std::vector<float>& v, int64_t labels,
                                  int threads) {
    const int64_t pixels = batch * num_pixels;
    const int size = dim + 1;
    std::vector<float> scales(dim), weights(pixels * size), splat_weights(pixels * size);
    for (int j = 1; j <= dim; ++j)
        scales[j - 1] = std::sqrt(2.0f / 3) * size / std::sqrt(static_cast<float>(j * (j + 1)));
    std::vector<int8_t> rank(pixels * size);
    std::vector<int32_t> digits(pixels * dim), vertices(pixels * size), splat_pixels(pixels * size);
    const Points points{dim, features.data(), scales.data(), 1e5f, weights.data(), rank.data(),
                        digits.data()};
    LatticeBuild* build = nullptr;
    int64_t rows = 0;
    demand(crfrnn_build_start(&points, batch, num_pixels, 1, vertices.data(), threads, &build,
                              &rows) == 0, "the lattice fits");
    std::vector<int32_t> offsets(rows), stencils(size * (rows + 1) * 3);
    crfrnn_build_finish(build, weights.data(), splat_pixels.data(), splat_weights.data(),
                        offsets.data(), stencils.data(), 1, threads);
    const float taps[] = {0.5f, 0.5f, 1.0f};
    const Lattice lattice{pixels, rows, size, 3, vertices.data(), weights.data(),
                          splat_pixels.data(), splat_weights.data(), offsets.data(),
                          stencils.data(), taps, 0.9f};
    std::vector<float> filtered(v.size()), transposed(v.size());
    crfrnn_lattice_filter(&lattice, labels, 0, v.data(), filtered.data(), threads);
    crfrnn_lattice_filter(&lattice, labels, 1, v.data(), transposed.data(), threads);

    // With a spatial kernel along the single axis of the pixels.
    const float line[] = {0, 0, 0, 0.3f, 0.7f, 1.0f, 0.7f, 0.3f, 0, 0, 0};
    const int64_t radius = 2;
    const Separable spatial{1, line, &radius, &num_pixels};
    std::vector<float> penalty(labels * labels, 1.0f), any(labels * labels);
    for (std::size_t k = 0; k < any.size(); ++k) any[k] = std::sin(static_cast<float>(k));
    const std::vector<float> half(pixels, 0.5f);
    const Kernel kernels[] = {{penalty.data(), half.data(), nullptr, &lattice, nullptr},
                              {any.data(), nullptr, half.data(), nullptr, &spatial}};
    std::vector<float> own(features.size()), factors(2 * pixels), line_own(pixels);
    const KernelGrad to_lattice{dim, features.data(), nullptr, own.data(), factors.data()};
    const KernelGrad to_line{1, nullptr, &spatial, line_own.data(), factors.data()};
    const KernelGrad* const learn[] = {&to_lattice, &to_line};
    auto result = update_result(kernels, 2, batch, num_pixels, labels, v, learn, threads);
    for (int m = 0; m < 2; ++m)
        crfrnn_kernel_grad(&kernels[m], batch, num_pixels, labels, v.data(), filtered.data(), 1 - m,
                           learn[m], threads);
    std::vector<float> q(v.size()), product(v.size());
    crfrnn_softmax(v.data(), pixels, labels, q.data(), threads);
    crfrnn_product(v.data(), pixels, labels, any.data(), product.data(), threads);

    // The other instruction set: the same sums but for fused roundings.
    std::vector<float> values((rows + 1) * labels), plain(values.size());
    loops_baseline.splat(lattice, labels, 1, half.data(), v.data(), plain.data(), 0, rows);
    loops().splat(lattice, labels, 1, half.data(), v.data(), values.data(), 0, rows);
    for (int64_t k = 0; k < rows * labels; ++k)
        demand(std::fabs(plain[k] - values[k]) <= 1e-4f * plain[k] + 1e-6f, "baseline agrees");
    append(result, {filtered, transposed, own, factors, line_own, q, product});
    return result;
}

void lattices(int most) {
    for (int dim = 1; dim <= most; ++dim)
        for (const int64_t labels : {1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 21, 24, 31, 33, 150}) {
            const int64_t batch = 2, num_pixels = dim == 2 ? 9001 : 61;
            const auto features = random_floats(batch * num_pixels * dim, 4.0f);
            const auto v = random_floats(batch * num_pixels * labels, 1.0f);
            const auto single = lattice_result(features, dim, batch, num_pixels, v, labels, 1);
            demand(single == lattice_result(features, dim, batch, num_pixels, v, labels, 3),
                   "three threads give the bits of one");
        }
}

// A separable kernel alone: lines, patches and what is between them.
void separables() {
    const std::vector<std::vector<int64_t>> shapes{{9, 13}, {1, 1}, {200, 3}, {3, 90}, {2, 3, 40}};
    for (const auto& shape : shapes)
        for (const int64_t labels : {1, 2, 3, 5, 8, 21, 70, 150}) {
            std::vector<float> taps;
            std::vector<int64_t> radii;
            int64_t pixels = 1;
            for (const int64_t side : shape) {
                radii.push_back(std::min<int64_t>(side - 1, 7));
                taps.insert(taps.end(), 3, 0.0f);
                taps.insert(taps.end(), 2 * radii.back() + 1, 0.5f);
                taps.insert(taps.end(), 3, 0.0f);
                pixels *= side;
            }
            const auto v = random_floats(2 * pixels * labels, 1.0f);
            const Separable kernel{static_cast<int32_t>(shape.size()), taps.data(), radii.data(),
                                   shape.data()};
            std::vector<float> penalty(labels * labels);
            for (std::size_t k = 0; k < penalty.size(); ++k)
                penalty[k] = std::cos(static_cast<float>(k));
            const std::vector<float> half(2 * pixels, 0.5f);
            const Kernel alone{penalty.data(), half.data(), half.data(), nullptr, &kernel};
            std::vector<std::vector<float>> results;
            for (const int threads : {1, 4}) {
                std::vector<float> filtered(v.size()), dots(2 * pixels), factors(4 * pixels);
                crfrnn_separable_filter(&kernel, 2, labels, v.data(), filtered.data(), threads);
                // One axis is as good as several, for what is read and written.
                const KernelGrad to{1, nullptr, &kernel, dots.data(), factors.data()};
                const KernelGrad* const learn[] = {&to};
                append(filtered, {update_result(&alone, 1, 2, pixels, labels, v, learn, threads)});
                append(filtered, {dots, factors});
                results.push_back(filtered);
            }
            demand(results[0] == results[1], "four threads give the bits of one");
        }
}

}  // namespace

int main() {
    lattices(MAX_DIM);
    separables();
    // Two callers at once: what they share does not depend on the dimension.
    std::thread other(lattices, 3);
    lattices(3);
    other.join();
    std::printf("%s: all is well\n", loops().instructions);
}
