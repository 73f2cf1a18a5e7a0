// Compiled once for each instruction set, with MV_ISA its name.
#include "forward.h"

#define MV_TEXT_(x) #x
#define MV_TEXT(x) MV_TEXT_(x)

namespace MV_ISA {
namespace {

void attend_once(mv::Pool& pool, const mv::Attention& call) {
    static Plan plan;
    plan.make(call.rows, call.heads.heads / call.heads.kv_heads);
    attend(pool, call, plan);
}

void linear_once(mv::Pool& pool, const mv::Linear& matrix, const float* a, int32_t rows, float* c) {
    linear(pool, matrix, a, rows, c, false);
}

int32_t forward_once(mv::Pool& pool, const mv::Model& model, const mv::Step& step) {
    static Forward::Memory memory;
    Forward forward(pool, model, step, memory);
    int32_t status = forward.check();
    if (status == mv::OK) forward.run();
    return status;
}

}  // namespace

extern const mv::Kernels kernels;
const mv::Kernels kernels = {MV_TEXT(MV_ISA), attend_once, packed_bytes, pack, linear_once, forward_once};

}  // namespace MV_ISA
