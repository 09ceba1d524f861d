// The threads and the memory that a calling thread keeps for its next call. Any number of callers may
// be here at once, and a forked child starts threads of its own. Who computes a row never changes how
// it is computed.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace crfrnn {

// The caller and up to threads - 1 others, which start with the first work that is large enough.
// Between two pieces of work they wait awake for a while, then asleep: a new thread may share its
// maker's core for milliseconds, which is longer than most calls take.
class Team {
   public:
    // That of the calling thread, which ends with it.
    static Team& of_this_thread(int threads);

    explicit Team(int threads) : threads_(std::max(threads, 1)) {}
    ~Team();
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    // work(begin, end) for parts of [0, count), none with less than `grain` rows.
    template <class Work>
    void for_rows(int64_t count, int64_t grain, const Work& work) {
        const int64_t parts = num_parts(count, grain);
        for_parts(parts, [&](int64_t part) { return count * part / parts; }, work);
    }

    // work(begin, end) likewise, where part k ends at bound(k + 1).
    template <class Bound, class Work>
    void for_parts(int64_t parts, const Bound& bound, const Work& work) {
        run(parts, [&](int64_t part) {
            const int64_t begin = bound(part), end = bound(part + 1);
            if (begin < end) work(begin, end);
        });
    }

    // As many as pay, and more than threads: who is early takes one more.
    int64_t num_parts(int64_t count, int64_t grain) const {
        const int64_t most = threads_ == 1 ? 1 : 4 * threads_;
        return std::clamp<int64_t>(count / std::max<int64_t>(grain, 1), 1, most);
    }

   private:
    using Body = std::function<void(int64_t part)>;

    void run(int64_t parts, const Body& body);
    void start();
    void serve();
    void take_parts(const Body& body, int64_t parts);

    const int threads_;
    std::vector<std::thread> others_;
    std::mutex mutex_;                   // of what follows, up to the blank line
    std::condition_variable work_, done_;
    const Body* body_ = nullptr;         // what there is to do, null between two pieces of work
    int64_t parts_ = 0;
    std::exception_ptr error_;

    std::atomic<int64_t> round_{0};      // pieces of work so far
    std::atomic<int64_t> next_{0};       // part that nobody has taken
    std::atomic<int> inside_{0};         // others that are at work
    std::atomic<bool> ends_{false};
};

// Memory for what one call leaves behind, kept by the calling thread for its next call.
//
// Pages that the system hands out afresh cost several times the arithmetic done on them.
class Scratch {
   public:
    // `count` floats, not initialised; valid until the calling thread asks for the slot again.
    static float* floats(int64_t count, int slot = 0);

    // Ask for the largest pages in memory that has none yet; a wish, nothing depends on it.
    static void ask_for_large_pages(void* memory, int64_t bytes);

    // Give back what is too large to keep; called when a call is done.
    static void release();
};

}  // namespace crfrnn
