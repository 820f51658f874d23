// Shared by the attention kernels (nn/op_attention.c).
//
// Every lane owns ROWS rows (of queries; for the gradients of keys and values, of keys), so that the online softmax
// needs no exchange between lanes; the rows of the other side come in tiles of TILE rows, seen by all lanes. How a
// tile's row gets to all lanes is the only difference between the two variants of each kernel:
//   SHUFFLE   a workgroup is one subgroup; lane t reads row t and hands it out with subgroupShuffle(x, t); TILE is the
//             number of lanes. Cheapest on CPU drivers.
//   otherwise the tile lies in shared memory. No subgroup operations.
// Head widths above what registers hold are worked off in CHUNKS parts of CHUNK vec4: each workgroup makes one part of
// the output and computes the scores over all parts.
//
// CPU drivers run what stands behind a condition with lanes masked, and a loop tested at its top once more than wanted,
// with all lanes masked (a loop of one turn takes twice its time): hence loops are tested at their end or unrolled, and
// what is to be skipped is skipped by a loop (seek()).
#extension GL_EXT_control_flow_attributes : require
#ifdef WIDE
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
#endif
#ifdef SHUFFLE
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_KHR_shader_subgroup_vote : require
#endif

layout(local_size_x = 8, local_size_x_id = 0) in;
layout(constant_id = 1) const uint ROWS = 1;   // rows that a lane owns
layout(constant_id = 2) const uint TILE = 8;   // rows of the other side per tile, at most 32
layout(constant_id = 3) const uint BLOCK = 8;  // of them worked on at once; divides TILE
layout(constant_id = 4) const uint CHUNK = 4;  // vec4s of the head width per part
layout(constant_id = 5) const uint CHUNKS = 1; // parts; their product is the head width
layout(constant_id = 6) const bool SEGMENTS = false;
layout(constant_id = 7) const bool CAUSAL = false;
layout(constant_id = 8) const bool OPEN = false; // rows of the prefix see each other both ways
layout(constant_id = 9) const uint TYPE = 0; // of the rows and their gradients, enum nn_dtype
layout(constant_id = 10) const bool ACCUMULATE = false; // gradients are added to
layout(constant_id = 11) const bool PICKED = false;     // only listed rows are queries: attention_queries.glsl

#include "half.glsl"

// Rows to be read: vec4 NAME_at(base, c) is the c-th vec4 from the vec4 `base` on. In 16 bits two make a texel: then
// `base` is even.
#define ROWS_IN(slot, NAME) \
    layout(binding = slot) uniform usamplerBuffer NAME##_texels; \
    vec4 NAME##_at(uint base, uint c) \
    { \
        if (TYPE == TYPE_F32) \
            return uintBitsToFloat(texelFetch(NAME##_texels, int(base + c))); \
        uvec4 texel = texelFetch(NAME##_texels, int(base / 2u + c / 2u)); \
        return unpack_halves(TYPE, c % 2u == 0u ? texel.xy : texel.zw); \
    }

// Rows to be written: store_NAME(i, v) writes (or adds to) the i-th vec4. WIDE: CPU drivers with 64-bit integers, where
// a store costs per component, whatever its size.
#ifdef WIDE
#define ROWS_OUT(slot, NAME) \
    layout(binding = slot, std430) buffer NAME##Vectors { u64vec2 NAME##_vectors[]; }; \
    layout(binding = slot, std430) buffer NAME##Halves { uint64_t NAME##_halves[]; }; \
    void store_##NAME(uint i, vec4 v) \
    { \
        if (TYPE == TYPE_F32) { \
            if (ACCUMULATE) { \
                u64vec2 old = NAME##_vectors[i]; \
                v += uintBitsToFloat(uvec4(unpackUint2x32(old.x), unpackUint2x32(old.y))); \
            } \
            uvec4 bits = floatBitsToUint(v); \
            NAME##_vectors[i] = u64vec2(packUint2x32(bits.xy), packUint2x32(bits.zw)); \
        } else { \
            if (ACCUMULATE) \
                v += unpack_halves(TYPE, unpackUint2x32(NAME##_halves[i])); \
            NAME##_halves[i] = packUint2x32(pack_halves(TYPE, v)); \
        } \
    }
#else
#define ROWS_OUT(slot, NAME) \
    layout(binding = slot, std430) buffer NAME##Vectors { vec4 NAME##_vectors[]; }; \
    layout(binding = slot, std430) buffer NAME##Halves { uvec2 NAME##_halves[]; }; \
    void store_##NAME(uint i, vec4 v) \
    { \
        if (TYPE == TYPE_F32) \
            NAME##_vectors[i] = ACCUMULATE ? NAME##_vectors[i] + v : v; \
        else \
            NAME##_halves[i] = pack_halves(TYPE, ACCUMULATE ? unpack_halves(TYPE, NAME##_halves[i]) + v : v); \
    }
#endif

const uint LANES = gl_WorkGroupSize.x;
const uint WIDTH = CHUNK * CHUNKS; // vec4s of one head

layout(push_constant) uniform Push {
    uint queries, keys;               // of each sequence
    uint past;                        // position of query 0 among the keys
    uint open;                        // positions below it are the prefix (used without SEGMENTS)
    uint heads, group;                // query heads; query heads per key head
    uint q_row, k_row, v_row;         // vec4s from one row to the next
    uint q_first, k_first, v_first;   // vec4s before head 0
    float scale;
} push;

const float LOG2E = 1.44269504088896341;
const float LN2 = 0.69314718055994531;

const int NEVER = 0x7fffffff; // beyond all positions and segments

// Segments that never match: of queries and of keys that are padding or beyond the end.
const int NO_QUERY = -1, NO_KEY = -2;

int as_query(int segment)
{
    return segment < 0 ? NO_QUERY : segment;
}

int as_key(int segment)
{
    return segment < 0 ? NO_KEY : segment;
}

// What hides keys from a query comes down to one comparison: key j is visible if j <= limit_of(...). Signed, because
// CPU vector units compare signed integers only.

// Last key that a query sees among those of segment 0 and among those of its own segment.
ivec2 limits_of(int query, int segment)
{
    int position = int(push.past) + query, last = int(push.keys) - 1;
    int own = CAUSAL ? min(position, last) : last;
    if (segment < 0)
        return ivec2(-1);
    if (OPEN && SEGMENTS && segment == 0)
        return ivec2(last, own);
    if (OPEN && !SEGMENTS && position < int(push.open))
        return ivec2(min(max(position, int(push.open) - 1), last), own);
    return ivec2(own);
}

int limit_of(int key_segment, int query_segment, ivec2 limits)
{
    if (!SEGMENTS)
        return limits.x;
    return key_segment == 0 ? limits.x : key_segment == query_segment ? limits.y : -1;
}

#ifndef SHUFFLE
shared ivec4 lane_span[LANES];
shared uint lane_any;
#endif

// Component-wise maximum over the lanes.
ivec4 workgroup_max(ivec4 own)
{
    ivec4 result = own;
#ifdef SHUFFLE
    [[unroll]] for (uint t = 0; t < LANES; t++)
        result = max(result, subgroupShuffle(own, t));
#else
    lane_span[gl_LocalInvocationID.x] = own;
    barrier();
    for (uint t = 0; t < LANES; t++)
        result = max(result, lane_span[t]);
#endif
    return result;
}

// Whether `mine` is true in any lane.
bool workgroup_any(bool mine)
{
#ifdef SHUFFLE
    return subgroupAny(mine);
#else
    barrier();
    if (gl_LocalInvocationID.x == 0)
        lane_any = 0;
    barrier();
    if (mine)
        atomicOr(lane_any, 1);
    barrier();
    return lane_any != 0;
#endif
}
