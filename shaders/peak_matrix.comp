// Cooperative matrices multiplied on registers alone, CHAINS of them independent of each other: the device's peak, for
// csmoe bench. f32 sums of f16 (with -DBFLOAT16: bf16) products.
#version 460
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#include "common.glsl"
#include "element.glsl"

layout(local_size_x_id = 0, local_size_x = 128) in; // whole subgroups
layout(constant_id = 1) const uint TURNS = 256;     // of STEPS products a chain
layout(constant_id = 2) const uint MM = 16;
layout(constant_id = 3) const uint MN = 16;
layout(constant_id = 4) const uint MK = 16;

layout(set = 0, binding = 0) writeonly buffer Y
{
    float y[];
};

layout(push_constant) uniform Push
{
    float factor, term; // elements of A and B
    float never;        // a sum that does not occur, which the compiler cannot know
};

const uint STEPS = 8;
const uint CHAINS = 4;

void main()
{
    coopmat<ELEMENT, gl_ScopeSubgroup, MM, MK, gl_MatrixUseA> a =
        coopmat<ELEMENT, gl_ScopeSubgroup, MM, MK, gl_MatrixUseA>(ELEMENT(factor));
    coopmat<ELEMENT, gl_ScopeSubgroup, MK, MN, gl_MatrixUseB> b =
        coopmat<ELEMENT, gl_ScopeSubgroup, MK, MN, gl_MatrixUseB>(ELEMENT(term));
    coopmat<float, gl_ScopeSubgroup, MM, MN, gl_MatrixUseAccumulator> sums[CHAINS];
    [[unroll]] for (uint c = 0; c < CHAINS; c++)
        sums[c] = coopmat<float, gl_ScopeSubgroup, MM, MN, gl_MatrixUseAccumulator>(float(c));
    for (uint turn = 0; turn < TURNS; turn++)
        [[unroll]] for (uint step = 0; step < STEPS; step++)
            [[unroll]] for (uint c = 0; c < CHAINS; c++)
                sums[c] = coopMatMulAdd(a, b, sums[c]);
    [[unroll]] for (uint c = 1; c < CHAINS; c++)
        sums[0] += sums[c];
    if (sums[0][0] == never)
        y[0] = never;
}
