#include "resources.h"

#include <cstdlib>
#include <memory>
#include <new>
#include <utility>

#if !defined(_WIN32)
#include <unistd.h>
#endif

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace crfrnn {

namespace {

constexpr int SPINS = 2000;  // some 50 us

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Whether `ready` came true while waiting awake.
template <class Ready>
bool spin(const Ready& ready) {
    for (int k = 0; k < SPINS; ++k) {
        if (ready()) return true;
        pause();
    }
    return ready();
}

int64_t process() {
#if defined(_WIN32)
    return 0;
#else
    return getpid();
#endif
}

// The team that a thread has, in the process that made it.
struct Own {
    std::unique_ptr<Team> team;
    int threads = 0;
    int64_t maker = process();

    ~Own() { leave_to_parent(); }
    // In a forked child the others do not exist: to wait for their end would take for ever.
    void leave_to_parent() {
        if (maker != process()) static_cast<void>(team.release());
    }
};

thread_local Own own;

}  // namespace

Team& Team::of_this_thread(int threads) {
    own.leave_to_parent();
    if (own.team == nullptr || own.threads != threads) {
        own.team = std::make_unique<Team>(threads);
        own.threads = threads;
        own.maker = process();
    }
    return *own.team;
}

Team::~Team() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        ends_ = true;
    }
    work_.notify_all();
    for (std::thread& other : others_) other.join();
}

void Team::start() {
    try {
        while (static_cast<int>(others_.size()) < threads_ - 1)
            others_.emplace_back([this] { serve(); });
    } catch (const std::exception&) {
        // No thread to be had, or no memory for one: those that there are do it.
    }
}

void Team::run(int64_t parts, const Body& body) {
    if (parts == 1 || threads_ == 1) {
        for (int64_t part = 0; part < parts; ++part) body(part);
        return;
    }
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        body_ = &body;
        parts_ = parts;
        next_ = 0;
        ++round_;
    }
    if (others_.empty()) start();
    work_.notify_all();
    take_parts(body, parts);

    // Who has not come by now finds nothing left to do.
    std::unique_lock<std::mutex> lock(mutex_);
    body_ = nullptr;
    const auto alone = [this] { return inside_ == 0; };
    if (!alone()) {
        lock.unlock();
        spin(alone);
        lock.lock();
        done_.wait(lock, alone);
    }
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void Team::take_parts(const Body& body, int64_t parts) {
    try {
        for (int64_t part = next_++; part < parts; part = next_++) body(part);
    } catch (...) {
        const std::lock_guard<std::mutex> lock(mutex_);
        error_ = std::current_exception();
        next_ = parts;
    }
}

void Team::serve() {
    int64_t seen = 0;
    const auto called = [&] { return round_ != seen || ends_; };
    while (true) {
        if (!spin(called)) {
            std::unique_lock<std::mutex> lock(mutex_);
            work_.wait(lock, called);
        }
        if (ends_) return;
        std::unique_lock<std::mutex> lock(mutex_);
        seen = round_;
        if (body_ == nullptr) continue;
        const Body& body = *body_;
        const int64_t parts = parts_;
        ++inside_;
        lock.unlock();
        take_parts(body, parts);
        lock.lock();
        --inside_;
        done_.notify_one();
    }
}

namespace {

constexpr int64_t KEPT = int64_t{128} << 20;     // bytes that a thread keeps at most
constexpr int64_t HUGE_PAGE = int64_t{2} << 20;  // bytes

struct Memory {
    float* data = nullptr;
    int64_t bytes = 0;

    ~Memory() { std::free(data); }
    void resize(int64_t wanted) {
        std::free(data);
        data = nullptr;
        bytes = 0;
        if (wanted == 0) return;
        void* fresh = nullptr;
        if (posix_memalign(&fresh, HUGE_PAGE, wanted) != 0) throw std::bad_alloc();
        Scratch::ask_for_large_pages(fresh, wanted);
        data = static_cast<float*>(fresh);
        bytes = wanted;
    }
};

thread_local Memory memories[2];

}  // namespace

void Scratch::ask_for_large_pages(void* memory, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const auto begin = (reinterpret_cast<std::uintptr_t>(memory) + HUGE_PAGE - 1) / HUGE_PAGE;
    const auto end = (reinterpret_cast<std::uintptr_t>(memory) + bytes) / HUGE_PAGE;
    if (begin < end)
        madvise(reinterpret_cast<void*>(begin * HUGE_PAGE), (end - begin) * HUGE_PAGE,
                MADV_HUGEPAGE);
#else
    static_cast<void>(memory), static_cast<void>(bytes);
#endif
}

float* Scratch::floats(int64_t count, int slot) {
    Memory& memory = memories[slot];
    const int64_t bytes =
        (count * static_cast<int64_t>(sizeof(float)) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    if (bytes > memory.bytes) memory.resize(bytes);
    return memory.data;
}

void Scratch::release() {
    for (Memory& memory : memories)
        if (memory.bytes > KEPT) memory.resize(0);
}

}  // namespace crfrnn
