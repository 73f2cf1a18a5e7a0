#include "pool.h"

namespace mv {
namespace {

constexpr int SPINS = 4000;  // about 50 to 150 µs, then a thread sleeps or yields

inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

Pool::Pool(int threads) {
    for (int i = 1; i < threads; i++) workers_.emplace_back([this, i] { wait_for_work(i); });
}

Pool::~Pool() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

int Pool::threads() const { return int(workers_.size()) + 1; }

void Pool::run(int chunks, Call call, void* self) {
    if (chunks <= 1 || workers_.empty()) {
        for (int i = 0; i < chunks; i++) call(self, i, 0);
        return;
    }
    call_ = call;
    self_ = self;
    chunks_ = uint32_t(chunks);
    unfinished_.store(uint32_t(chunks), std::memory_order_relaxed);
    unclaimed_.store(uint32_t(chunks));
    if (asleep_.load() != 0) {
        std::lock_guard<std::mutex> lock(mutex_);
        wake_.notify_all();
    }
    work(0);
    for (int spins = 0; unfinished_.load(std::memory_order_acquire) != 0; spins++) {
        if (spins < SPINS)
            relax();
        else
            std::this_thread::yield();  // who holds the last chunk may wait for this core
    }
}

void Pool::work(int thread) {
    uint32_t unclaimed = unclaimed_.load(std::memory_order_acquire);
    while (unclaimed != 0) {
        // Who takes a number takes a chunk of the phase at hand, even if he saw the number before.
        if (!unclaimed_.compare_exchange_weak(unclaimed, unclaimed - 1, std::memory_order_acq_rel)) continue;
        call_(self_, int(chunks_ - unclaimed), thread);
        unfinished_.fetch_sub(1, std::memory_order_release);
        unclaimed = unclaimed_.load(std::memory_order_acquire);
    }
}

void Pool::wait_for_work(int thread) {
    int spins = 0;
    while (!stop_) {
        if (unclaimed_.load(std::memory_order_acquire) != 0) {
            work(thread);
            spins = 0;
        } else if (++spins < SPINS) {
            relax();
        } else {
            std::unique_lock<std::mutex> lock(mutex_);
            asleep_++;
            // `run` publishes its chunks and then looks who sleeps; here it is the other way round.
            if (!stop_ && unclaimed_.load() == 0) wake_.wait(lock);
            asleep_--;
            spins = 0;
        }
    }
}

}  // namespace mv
