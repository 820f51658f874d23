// Multiply-adds on registers alone, CHAINS of them independent of each other: the device's peak of arithmetic, for
// csmoe bench. F16: packed pairs of halves.
#version 460
#extension GL_EXT_control_flow_attributes : require
#ifdef F16
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#define Lanes f16vec2
#define Scalar float16_t
#else
#define Lanes vec2
#define Scalar float
#endif
#include "common.glsl"

layout(local_size_x_id = 0, local_size_x = 64) in;
layout(constant_id = 1) const uint TURNS = 1024; // of STEPS multiply-adds a chain

layout(set = 0, binding = 0) writeonly buffer Y
{
    float y[];
};

layout(push_constant) uniform Push
{
    float factor, term; // every chain tends to term / (1 - factor)
    float never;        // a sum that does not occur, which the compiler cannot know
};

const uint STEPS = 16;
const uint CHAINS = 6; // 12 lanes: fills the pipes of what is known and fits 16 vector registers of a CPU

void main()
{
    Lanes a = Lanes(factor), b = Lanes(term), x[CHAINS];
    [[unroll]] for (uint c = 0; c < CHAINS; c++)
        x[c] = Lanes(Scalar(c), Scalar(gl_LocalInvocationID.x));
    for (uint turn = 0; turn < TURNS; turn++)
        [[unroll]] for (uint step = 0; step < STEPS; step++)
            [[unroll]] for (uint c = 0; c < CHAINS; c++)
                x[c] = fma(x[c], a, b);
    Lanes sum = Lanes(0);
    [[unroll]] for (uint c = 0; c < CHAINS; c++)
        sum += x[c];
    if (float(sum.x + sum.y) == never)
        y[0] = never;
}
