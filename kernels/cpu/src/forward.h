// One step of a dense decoder (Llama, Qwen2, Qwen3): every token of it, decoded or new.
//
// A token's numbers are computed alike whatever else is in the step, so it gets the same bits
// alone and in a batch, when it is decoded and when it is part of a prompt.
#pragma once

#include "attention.h"
#include "linear.h"

namespace MV_ISA {

inline float inverse_rms(const float* x, int n, float eps) {
    Vec squares = Vec{};
    for (int i = 0; i < n; i += LANES) squares += load(x + i) * load(x + i);
    return 1.0f / std::sqrt(sum(squares) / n + eps);
}

inline void norm(const float* x, const float* weight, float* to, int n, float eps) {
    float factor = inverse_rms(x, n, eps);
    for (int i = 0; i < n; i += LANES) store(to + i, load(x + i) * factor * load(weight + i));
}

// The first `dim` numbers of a head are turned, the lower half against the upper one.
inline void rotate(float* head, const float* table, int dim) {
    int half = dim / 2;
    for (int i = 0; i < half; i++) {
        float x = head[i], y = head[i + half], cosine = table[i], sine = table[i + half];
        head[i] = x * cosine - y * sine;
        head[i + half] = y * cosine + x * sine;
    }
}

template <class T>
inline void save(const float* from, void* base, int64_t at, int count) {
    T* to = static_cast<T*>(base) + at;
    for (int i = 0; i < count; i++) narrow(from[i], to + i);
}

struct Forward {
    mv::Pool& pool;
    const mv::Model& model;
    const mv::Step& step;
    const int tokens, hidden, width_q, width_kv, width_qkv;

    struct Memory {
        Buffer<float> x, normed, qkv, attended, inner;
        Plan plan;
    };
    Memory& m;

    Forward(mv::Pool& pool, const mv::Model& model, const mv::Step& step, Memory& memory)
        : pool(pool), model(model), step(step), tokens(step.rows.tokens), hidden(model.hidden),
          width_q(model.heads.heads * model.heads.dim), width_kv(model.heads.kv_heads * model.heads.dim),
          width_qkv(width_q + 2 * width_kv), m(memory) {}

    int32_t check() const {
        for (int t = 0; t < tokens; t++) {
            if (step.ids[t] < 0 || step.ids[t] >= model.vocabulary) return mv::BAD_ID;
            if (step.positions[t] < 0 || step.positions[t] >= model.positions) return mv::BAD_POSITION;
            if (step.slots[t] < 0) return mv::BAD_SLOT;
        }
        return mv::OK;
    }

    void run() {
        m.x.fit(size_t(tokens) * hidden);
        m.normed.fit(size_t(tokens) * hidden);
        m.qkv.fit(size_t(tokens) * width_qkv);
        m.attended.fit(size_t(tokens) * width_q);
        m.inner.fit(size_t(tokens) * model.intermediate);
        m.plan.make(step.rows, model.heads.heads / model.heads.kv_heads);
        embed();
        for (int i = 0; i < model.layers; i++) {
            const mv::Layer& layer = model.layer[i];
            normalise(layer.attention_norm, m.normed.data());
            linear(pool, layer.qkv, m.normed.data(), tokens, m.qkv.data(), false);
            place(layer);
            mv::Attention call = {model.heads, layer.cache, step.rows, m.qkv.data(), m.attended.data(),
                                  width_qkv, width_q};
            attend(pool, call, m.plan);
            linear(pool, layer.out, m.attended.data(), tokens, m.x.data(), true);
            normalise(layer.mlp_norm, m.normed.data());
            gated(pool, layer.gate_up, m.normed.data(), tokens, m.inner.data());
            linear(pool, layer.down, m.inner.data(), tokens, m.x.data(), true);
        }
        normalise(model.final_norm, step.out);
    }

    // f(token), a few tokens a chunk.
    template <class F> void each_token(F f) {
        constexpr int SOME = 4;
        pool.run((tokens + SOME - 1) / SOME, [&](int chunk, int) {
            for (int t = chunk * SOME; t < least((chunk + 1) * SOME, tokens); t++) f(t);
        });
    }

    void embed() {
        each_token([&](int t) {
            float* to = m.x.data() + int64_t(t) * hidden;
            int64_t from = step.ids[t] * hidden;
            for (int i = 0; i < hidden; i++)
                to[i] = model.embedding_kind == mv::FP32
                            ? static_cast<const float*>(model.embedding)[from + i]
                            : widen(static_cast<const bf16*>(model.embedding)[from + i]);
        });
    }

    void normalise(const float* weight, float* to) {
        each_token([&](int t) {
            int64_t at = int64_t(t) * hidden;
            norm(m.x.data() + at, weight, to + at, hidden, model.eps);
        });
    }

    // Norms and positions of queries and keys; keys and values go to their slots.
    void place(const mv::Layer& layer) {
        const int dim = model.heads.dim, heads = model.heads.heads, kv_heads = model.heads.kv_heads;
        each_token([&](int t) {
            float* q = m.qkv.data() + int64_t(t) * width_qkv;
            const float* table = model.rotary + step.positions[t] * model.rotary_dim;
            for (int h = 0; h < heads + kv_heads; h++) {
                float* head = q + h * dim;
                const float* weight = h < heads ? layer.q_norm : layer.k_norm;
                if (weight) norm(head, weight, head, dim, model.eps);
                rotate(head, table, model.rotary_dim);
            }
            const mv::Cache& cache = layer.cache;
            for (int h = 0; h < kv_heads; h++) {
                const float *k = q + width_q + h * dim, *v = k + width_kv;
                int64_t at_k = step.slots[t] * cache.k_slot_stride + h * cache.k_head_stride;
                int64_t at_v = step.slots[t] * cache.v_slot_stride + h * cache.v_head_stride;
                if (model.heads.kind == mv::FP32) {
                    save<float>(k, cache.k, at_k, dim);
                    save<float>(v, cache.v, at_v, dim);
                } else {
                    save<bf16>(k, cache.k, at_k, dim);
                    save<bf16>(v, cache.v, at_v, dim);
                }
            }
        });
    }
};

}  // namespace MV_ISA
