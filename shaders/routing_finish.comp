#version 450
// From the tiles' partial sums (include/routing.glsl) to the scalars: balance loss, z-loss or router loss, load [E]
// (share of all choices), entropy of p, and the statistics: the router loss over all experts, over the winners, and
// first choices [sequences, E] as shares of a sequence. One workgroup.
layout(local_size_x = 64) in;
layout(constant_id = 1) const uint EXPERTS = 4;
layout(constant_id = 2) const uint TOP_K = 2;
layout(constant_id = 3) const bool COMPETE = false;

layout(push_constant) uniform Push
{
    uint sequences, per_sequence, tiles;
    float theta; // weight of the winners' term of the router loss
};

layout(std430, binding = 0) readonly buffer Partial { float partial[]; };
layout(std430, binding = 1) writeonly buffer Balance { float balance[]; };
layout(std430, binding = 2) writeonly buffer Second { float second[]; };
layout(std430, binding = 3) writeonly buffer Load { float load[]; };
layout(std430, binding = 4) writeonly buffer Entropy { float entropy[]; };
layout(std430, binding = 5) writeonly buffer Statistics { float statistics[]; };

const uint RECORD = 3u * EXPERTS + 4u;
const uint HEAD = 2u; // of the statistics, before the first choices

shared float sums[64];

// Sum of everyone's value, to everyone, in fixed order.
float sum_of_group(float value)
{
    uint id = gl_LocalInvocationID.x;
    barrier();
    sums[id] = value;
    for (uint step = 32u; step > 0u; step /= 2u) {
        barrier();
        if (id < step)
            sums[id] += sums[id + step];
    }
    barrier();
    return sums[0];
}

// Sum of one field over all records.
float sum_of_records(uint field)
{
    float sum = 0.0;
    for (uint r = gl_LocalInvocationID.x; r < sequences * tiles; r += 64u)
        sum += partial[r * RECORD + field];
    return sum_of_group(sum);
}

// L_B = (E / B) sum over sequences and experts of f P (3.1).
float balance_loss()
{
    float product = 0.0;
    for (uint i = gl_LocalInvocationID.x; i < sequences * EXPERTS; i += 64u) {
        uint at = i / EXPERTS * tiles * RECORD + i % EXPERTS;
        float first = 0.0, probability = 0.0;
        for (uint t = 0u; t < tiles; t++) {
            first += partial[at + t * RECORD];
            probability += partial[at + t * RECORD + EXPERTS];
        }
        first /= float(per_sequence);
        statistics[HEAD + i] = first;
        product += first * (probability / float(per_sequence));
    }
    return sum_of_group(product) * float(EXPERTS) / float(sequences);
}

void main()
{
    float tokens = float(sequences) * float(per_sequence);
    float loss = balance_loss();
    for (uint e = 0u; e < EXPERTS; e++) {
        float all = sum_of_records(2u * EXPERTS + e);
        if (gl_LocalInvocationID.x == 0u)
            load[e] = all / (tokens * float(TOP_K));
    }
    float square = sum_of_records(3u * EXPERTS) / tokens;
    float mean_entropy = sum_of_records(3u * EXPERTS + 1u) / tokens;
    float all = sum_of_records(3u * EXPERTS + 2u) / (tokens * float(EXPERTS));
    float winners = sum_of_records(3u * EXPERTS + 3u) / (tokens * float(TOP_K));
    if (gl_LocalInvocationID.x != 0u)
        return;
    balance[0] = loss;
    second[0] = COMPETE ? all + theta * winners : square;
    entropy[0] = mean_entropy;
    statistics[0] = all;
    statistics[1] = winners;
}
