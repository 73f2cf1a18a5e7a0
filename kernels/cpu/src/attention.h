// Attention over paged KV, for any number of new tokens per sequence.
//
// A task is a few tokens of one sequence and one KV head: the query heads that share it are
// stacked. Keys come in tiles of `TILE` rows, counted from the sequence's first row, so a
// token's sums are added in the same order however many others are computed beside it. Where
// sequences share keys, a task is a few of them over these; what it summed up is kept, and each
// goes on from there.
#pragma once

#include "api.h"
#include "product.h"

namespace MV_ISA {

using mv::TILE;
constexpr int QUERIES = 48;                      // stacked, about
constexpr float NONE = -INFINITY;

// A thread's memory for one task.
struct Scratch {
    Buffer<float> floats;
    float *q, *keys, *scores, *out, *peak, *total;

    void fit(int queries, int dim, int dim_v) {
        const int sizes[] = {queries * dim, dim * TILE, queries * TILE, queries * dim_v, queries, queries};
        float** const parts[] = {&q, &keys, &scores, &out, &peak, &total};
        size_t all = 0;
        for (int size : sizes) all += (size + 15) / 16 * 16;
        float* at = floats.fit(all);
        for (int i = 0; i < 6; i++) {
            *parts[i] = at;
            at += (sizes[i] + 15) / 16 * 16;
        }
    }
};

struct Task {
    int sequence, token, tokens;  // `token` counts from the sequence's first query
};

// Of every token and head, what was summed up over shared keys; the sums themselves are in `out`.
struct States {
    float *peak, *total;
};

template <class T> struct Attend {
    const mv::Attention& call;
    Scratch& s;
    const States states;
    const int group, head, dim, dim_v;

    // Of the task: its tokens, query heads stacked, and where they are in their sequence.
    int token[QUERIES];
    int queries, first_row, limit;  // `limit` is where its keys end
    const int32_t* slots;
    const int32_t* hidden;
    int depth;

    Attend(const mv::Attention& call, Scratch& s, States states, int head)
        : call(call), s(s), states(states), group(call.heads.heads / call.heads.kv_heads), head(head),
          dim(call.heads.dim), dim_v(call.heads.dim_v) {}

    // A sequence's own keys.
    void alone(Task task) {
        const mv::Rows& rows = call.rows;
        int b = task.sequence, first = rows.q_begin[b] + task.token;
        for (int t = 0; t < task.tokens; t++) token[t] = first + t;
        first_row = rows.lens[b] - (rows.q_begin[b + 1] - first);
        depth = rows.depth;
        hidden = depth ? rows.hidden + int64_t(first) * depth * 2 : nullptr;
        slots = rows.table + rows.begin[b];
        int start = rows.groups ? rows.own[b] : 0, last_row = first_row + task.tokens - 1;
        limit = last_row + 1;
        begin(task.tokens, start == 0);
        for (; start < limit; start += TILE) {
            int stop = least(start + TILE, limit);
            if (!all_hidden(task.tokens, start, stop)) tile(task.tokens, start, stop);
        }
        finish();
    }

    // Keys that all sequences of a group see.
    void together(const int32_t* shared) {
        const mv::Rows& rows = call.rows;
        const int32_t* members = rows.members + shared[0];
        int tokens = shared[1] - shared[0];
        for (int t = 0; t < tokens; t++) token[t] = rows.q_begin[members[t]];
        first_row = shared[3];
        depth = 0;
        slots = rows.table + rows.begin[members[0]];
        limit = shared[3];
        begin(tokens, shared[2] == 0);
        for (int start = shared[2]; start < limit; start += TILE) tile(tokens, start, start + TILE);
        keep();
    }

    int64_t index(int i) const { return int64_t(token[i / group]) * call.heads.heads + head * group + i % group; }
    float* out(int i) const {
        return call.out + token[i / group] * call.out_stride + int64_t(head * group + i % group) * dim_v;
    }

    void begin(int tokens, bool fresh) {
        queries = tokens * group;
        s.fit(queries, dim, dim_v);
        for (int i = 0; i < queries; i++) {
            const float* from =
                call.q + token[i / group] * call.q_stride + int64_t(head * group + i % group) * dim;
            for (int d = 0; d < dim; d++) s.q[i * dim + d] = from[d] * call.heads.scale;
            s.peak[i] = fresh ? NONE : states.peak[index(i)];
            s.total[i] = fresh ? 0.0f : states.total[index(i)];
            const float* sums = out(i);
            for (int d = 0; d < dim_v; d++) s.out[i * dim_v + d] = fresh ? 0.0f : sums[d];
        }
    }

    void keep() {
        for (int i = 0; i < queries; i++) {
            states.peak[index(i)] = s.peak[i];
            states.total[index(i)] = s.total[i];
            std::memcpy(out(i), s.out + i * dim_v, sizeof(float) * dim_v);
        }
    }

    void finish() {
        for (int i = 0; i < queries; i++) {
            float factor = s.total[i] > 0 ? 1.0f / s.total[i] : 0.0f, *to = out(i);
            for (int d = 0; d < dim_v; d++) to[d] = s.out[i * dim_v + d] * factor;
        }
    }

    // Whether no token of the task sees a key of [start, stop).
    bool all_hidden(int tokens, int start, int stop) const {
        for (int t = 0; t < tokens; t++) {
            int seen = least(stop, first_row + t + 1);
            bool covered = start >= seen;
            for (int level = 0; level < depth && !covered; level++) {
                const int32_t* interval = hidden + (t * depth + level) * 2;
                covered = interval[0] <= start && seen <= interval[1];
            }
            if (!covered) return false;
        }
        return true;
    }

    // Slots are anywhere in memory: nothing but the table foretells them.
    static void fetch(const T* from, int count) {
        for (int i = 0; i < count; i += 64 / int(sizeof(T))) __builtin_prefetch(from + i);
    }

    static void fill(float* to, int count) {
        for (int i = 0; i < count; i++) to[i] = 0;
    }

    void tile(int tokens, int start, int stop) {
        const int count = stop - start;
        const T* k = static_cast<const T*>(call.cache.k) + head * call.cache.k_head_stride;
        const T* v = static_cast<const T*>(call.cache.v) + head * call.cache.v_head_stride;
        const T *key[TILE], *value[TILE];
        for (int t = 0; t < TILE; t++) {  // keys that are not there are the last one, and masked
            int64_t slot = slots[start + least(t, count - 1)];
            key[t] = k + slot * call.cache.k_slot_stride;
            value[t] = v + slot * call.cache.v_slot_stride;
            fetch(value[t], dim_v);
        }
        int wide = (count + LANES - 1) / LANES * LANES;
        for (int t = 0; t < wide; t += LANES)
            for (int d = 0; d < dim; d += LANES) {
                Vec block[LANES];
                for (int i = 0; i < LANES; i++) block[i] = load(key[t + i] + d);
                transpose(block);
                for (int i = 0; i < LANES; i++) store(s.keys + (d + i) * TILE + t, block[i]);
            }
        for (int i = 0; i < queries; i++) fill(s.scores + i * TILE, wide);
        product(queries, wide, s.q, dim, dim, [&](int d, int t) { return s.keys + d * TILE + t; },
                s.scores, TILE);
        if (call.heads.logit_cap > 0) cap(wide);
        mask(tokens, start, stop, wide);
        for (int i = 0; i < queries; i++) absorb(i, wide);
        for (int t = start + TILE; t < least(start + 2 * TILE, limit); t++)
            fetch(k + slots[t] * call.cache.k_slot_stride, dim);
        product(queries, dim_v, s.scores, TILE, count, [&](int t, int d) { return value[t] + d; }, s.out,
                dim_v);
    }

    void cap(int wide) {
        float limit = call.heads.logit_cap;
        for (int i = 0; i < queries; i++)
            for (int t = 0; t < wide; t += LANES) {
                float* at = s.scores + i * TILE + t;
                store(at, tanh(load(at) / limit) * limit);
            }
    }

    void mask(int tokens, int start, int stop, int wide) {
        auto hide = [&](int token, int from, int to) {
            from = most(from - start, 0);
            to = least(to - start, wide);
            for (int i = token * group; i < (token + 1) * group; i++)
                for (int t = from; t < to; t++) s.scores[i * TILE + t] = NONE;
        };
        for (int t = 0; t < tokens; t++) {
            int seen = least(stop, first_row + t + 1);
            hide(t, seen, start + wide);
            for (int level = 0; level < depth; level++) {
                const int32_t* interval = hidden + (t * depth + level) * 2;
                if (interval[0] < stop && interval[1] > start) hide(t, interval[0], interval[1]);
            }
        }
    }

    // Scores of query i become weights, and what was summed up so far is scaled to them.
    void absorb(int i, int wide) {
        float* scores = s.scores + i * TILE;
        Vec peaks = splat(s.peak[i]);
        for (int t = 0; t < wide; t += LANES) peaks = max(peaks, load(scores + t));
        float highest = peak(peaks), base = highest == NONE ? 0.0f : highest;
        Vec sum_of = Vec{};
        for (int t = 0; t < wide; t += LANES) {
            Vec x = load(scores + t);
            Vec weight = x > NONE ? exp(x - base) : Vec{};
            store(scores + t, weight);
            sum_of += weight;
        }
        if (highest > s.peak[i]) {
            float fade = s.peak[i] == NONE ? 0.0f : exp(splat(s.peak[i] - base))[0];
            s.total[i] *= fade;
            for (int d = 0; d < dim_v; d += LANES) {
                float* at = s.out + i * dim_v + d;
                store(at, load(at) * fade);
            }
            s.peak[i] = highest;
        }
        s.total[i] += sum(sum_of);
    }
};

// The tasks of one call, longest first where a sequence has several.
struct Plan {
    Buffer<Task> tasks;
    int count = 0;

    void make(const mv::Rows& rows, int group) {
        int block = most(1, QUERIES / group);
        tasks.fit(rows.tokens / block + rows.sequences + 1);
        count = 0;
        for (int b = 0; b < rows.sequences; b++) {
            int tokens = rows.q_begin[b + 1] - rows.q_begin[b];
            for (int at = (tokens - 1) / block * block; tokens > 0 && at >= 0; at -= block)
                tasks.data()[count++] = {b, at, least(block, tokens - at)};
        }
    }
};

constexpr int MOST_THREADS = 256;

inline void attend(mv::Pool& pool, const mv::Attention& call, const Plan& plan) {
    static Scratch scratch[MOST_THREADS];
    static Buffer<float> peaks, totals;
    const mv::Rows& rows = call.rows;
    const int heads = call.heads.kv_heads;
    const size_t states_count = rows.groups ? size_t(rows.tokens) * call.heads.heads : 0;
    const States states = {peaks.fit(states_count), totals.fit(states_count)};
    auto each = [&](int count, auto task) {  // task(attend, number) for each number and KV head
        pool.run(count * heads, [&](int chunk, int thread) {
            if (call.heads.kind == mv::BF16) {
                Attend<bf16> one(call, scratch[thread], states, chunk % heads);
                task(one, chunk / heads);
            } else {
                Attend<float> one(call, scratch[thread], states, chunk % heads);
                task(one, chunk / heads);
            }
        });
    };
    for (int done = 0; done < rows.groups;) {
        const int32_t* first = rows.group + done * 5;
        int count = 1;
        while (done + count < rows.groups && first[count * 5 + 4] == first[4]) count++;
        each(count, [&](auto& one, int number) { one.together(first + number * 5); });
        done += count;
    }
    each(plan.count, [&](auto& one, int number) { one.alone(plan.tasks.data()[number]); });
}

}  // namespace MV_ISA
