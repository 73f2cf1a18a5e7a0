// What Python sees: plain structs behind a C interface. `library.py` mirrors them field by field.
#pragma once

#include <cstdint>

#include "pool.h"

namespace mv {

// Raised with every change of a struct or function below.
constexpr int ABI = 2;

enum Kind : int32_t { FP32 = 0, BF16 = 1, INT8 = 2 };

// KV of one layer: slot s, head h is at [s · slot_stride + h · head_stride], in elements.
struct Cache {
    void *k, *v;
    int64_t k_slot_stride, k_head_stride, v_slot_stride, v_head_stride;
};

struct Heads {
    int32_t heads, kv_heads, dim, dim_v;  // dims are multiples of 16
    int32_t kind;                         // of the cache: FP32 or BF16
    float scale, logit_cap;               // a cap of 0 is none
};

constexpr int TILE = 64;  // keys that are read at a time

// Sequence b has the queries [q_begin[b], q_begin[b + 1]), its last rows, and `lens[b]` keys in the
// slots table[begin[b] …], in row order.
struct Rows {
    int32_t tokens, sequences;
    const int32_t* q_begin;
    const int32_t* lens;
    const int32_t* table;
    const int64_t* begin;
    const int32_t* hidden;  // [tokens, depth, 2]: intervals of row indices that a query does not see
    int32_t depth;
    // Where sequences, all of one query, share keys: group g is [begin, end, start, stop, level], whose
    // sequences members[begin … end) read the rows [start, stop) together, lower levels first. What
    // sequence b reads for itself begins at own[b]. All these rows are multiples of TILE.
    int32_t groups;
    const int32_t *group, *members, *own;
};

struct Attention {
    Heads heads;
    Cache cache;
    Rows rows;
    const float* q;  // [tokens, heads, dim]
    float* out;      // [tokens, heads, dim_v]
    int64_t q_stride, out_stride;  // of a token
};

// A packed matrix [n, k]; `scale` [n] where the kind is INT8, `bias` [n] or null.
struct Linear {
    const void* weight;
    const float *scale, *bias;
    int32_t n, k, kind;
};

struct Layer {
    Linear qkv, out, gate_up, down;  // gate and up interleaved by `pack`
    const float *attention_norm, *mlp_norm;
    const float *q_norm, *k_norm;  // [dim] or null
    Cache cache;
};

struct Model {
    int32_t layers, hidden, intermediate, vocabulary, rotary_dim, positions;
    Heads heads;
    float eps;
    int32_t embedding_kind;  // FP32 or BF16
    const void* embedding;   // [vocabulary, hidden]
    const float* final_norm;
    const float* rotary;  // [positions, rotary_dim]: cosines, then sines
    const Layer* layer;
};

struct Step {
    Rows rows;
    const int64_t *ids, *positions, *slots;  // [tokens]; slots are where the KV goes
    float* out;                              // [tokens, hidden], normalised
};

enum Status : int32_t { OK = 0, BAD_ID = 1, BAD_POSITION = 2, BAD_SLOT = 3 };

// One instruction set's functions.
struct Kernels {
    const char* name;
    void (*attend)(Pool&, const Attention&);
    int64_t (*packed_bytes)(int32_t n, int32_t k, int32_t kind);
    void (*pack)(Pool&, const float* weight, int32_t n, int32_t k, int32_t kind, int32_t halves,
                 void* packed, float* scale);
    void (*linear)(Pool&, const Linear&, const float* a, int32_t rows, float* c);
    int32_t (*forward)(Pool&, const Model&, const Step&);
};

}  // namespace mv
