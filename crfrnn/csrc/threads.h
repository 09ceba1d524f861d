// Static ranges over threads that live for one call: nothing outlasts a fork, and any number of
// callers may be here at once. Who computes a row never changes how it is computed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace crfrnn {

// work(begin, end) for the parts of [0, count): part k ends at bound(k + 1, parts).
template <class Bound, class Work>
void parallel_parts(int parts, const Bound& bound, const Work& work) {
    std::vector<std::exception_ptr> errors(parts);
    const auto run = [&](int part) {
        try {
            if (bound(part, parts) < bound(part + 1, parts))
                work(bound(part, parts), bound(part + 1, parts));
        } catch (...) {
            errors[part] = std::current_exception();
        }
    };
    std::vector<std::thread> threads;
    threads.reserve(parts);
    int part = 1;
    try {
        for (; part < parts; ++part) threads.emplace_back(run, part);
    } catch (const std::system_error&) {
        // No thread to be had: the caller does the rest itself.
    }
    run(0);
    for (; part < parts; ++part) run(part);
    for (std::thread& thread : threads) thread.join();
    for (const std::exception_ptr& error : errors)
        if (error) std::rethrow_exception(error);
}

// Equal parts of [0, count), none with less than `grain` rows: a thread costs some 10 us.
template <class Work>
void parallel_rows(int64_t count, int64_t grain, int threads, const Work& work) {
    const int64_t parts = std::min<int64_t>(threads, count / std::max<int64_t>(grain, 1));
    const auto bound = [count](int64_t part, int64_t of) { return count * part / of; };
    parallel_parts(static_cast<int>(std::max<int64_t>(parts, 1)), bound, work);
}

}  // namespace crfrnn
