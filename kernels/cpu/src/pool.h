// Threads that take chunks of work from a counter.
//
// A phase ends when its chunks are done, not when its threads arrive: a thread that the system
// holds back for another process delays the chunk it is at, and nobody waits for it otherwise.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace mv {

class Pool {
public:
    // The caller of `run` is one of the `threads`.
    explicit Pool(int threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int threads() const;

    // f(chunk, thread) for each chunk in [0, chunks), in any order; returns when all are done.
    template <class F> void run(int chunks, F f) {
        run(chunks, [](void* self, int chunk, int thread) { (*static_cast<F*>(self))(chunk, thread); },
            static_cast<void*>(&f));
    }

private:
    using Call = void (*)(void*, int, int);

    void run(int chunks, Call call, void* self);
    void work(int thread);
    void wait_for_work(int thread);

    // Written by `run` while no chunk is claimed; a thread reads them once it holds a chunk.
    Call call_ = nullptr;
    void* self_ = nullptr;
    uint32_t chunks_ = 0;

    alignas(64) std::atomic<uint32_t> unclaimed_{0};  // chunks, the last of which are these
    alignas(64) std::atomic<uint32_t> unfinished_{0};
    alignas(64) std::atomic<uint32_t> asleep_{0};
    std::atomic<bool> stop_{false};
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<std::thread> workers_;
};

}  // namespace mv
