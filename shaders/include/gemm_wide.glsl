// Eight neighbouring columns at once in 64-bit words: on CPU drivers a load or store of a storage buffer costs per
// component, whatever its size.

mat2x4 words_to_values(u64vec4 w)
{
    return mat2x4(uintBitsToFloat(uvec4(unpackUint2x32(w.x), unpackUint2x32(w.y))),
                  uintBitsToFloat(uvec4(unpackUint2x32(w.z), unpackUint2x32(w.w))));
}

u64vec4 values_to_words(mat2x4 v)
{
    uvec4 low = floatBitsToUint(v[0]), high = floatBitsToUint(v[1]);
    return u64vec4(packUint2x32(low.xy), packUint2x32(low.zw), packUint2x32(high.xy), packUint2x32(high.zw));
}

// load_eight_NAME(at) and store_eight_NAME(at, values): elements at..at+7; `at` is a multiple of 8.
#define GEMM_LOAD_EIGHT(slot, ACCESS, NAME, TYPE) \
    layout(std430, binding = slot) ACCESS buffer NAME##_eights { u64vec4 NAME##_eight[]; }; \
    layout(std430, binding = slot) ACCESS buffer NAME##_halves { u64vec2 NAME##_half[]; }; \
    mat2x4 load_eight_##NAME(uint at) \
    { \
        if (TYPE == TYPE_F32) \
            return words_to_values(NAME##_eight[at / 8]); \
        u64vec2 w = NAME##_half[at / 8]; \
        return mat2x4(unpack_halves(TYPE, unpackUint2x32(w.x)), unpack_halves(TYPE, unpackUint2x32(w.y))); \
    }

#define GEMM_STORE_EIGHT(NAME, TYPE) \
    void store_eight_##NAME(uint at, mat2x4 v) \
    { \
        if (TYPE == TYPE_F32) \
            NAME##_eight[at / 8] = values_to_words(v); \
        else \
            NAME##_half[at / 8] = u64vec2(packUint2x32(pack_halves(TYPE, v[0])), packUint2x32(pack_halves(TYPE, v[1]))); \
    }

GEMM_LOAD_EIGHT(2, , c, C_TYPE)
GEMM_STORE_EIGHT(c, C_TYPE)
GEMM_LOAD_EIGHT(6, readonly, other, OTHER_TYPE)
GEMM_LOAD_EIGHT(7, , extra, EXTRA_TYPE)
GEMM_STORE_EIGHT(extra, EXTRA_TYPE)

// complete() of eight columns; N and all strides of outputs are multiples of 8.
void complete_eight(uint entry, uint row, uint column, vec4 low, vec4 high)
{
    uint at = entry * c_stride + row * n + column;
    if (MAY_STORE_EXTRA && (flags & STORE_EXTRA) != 0)
        store_eight_extra(at, mat2x4(low, high));
    mat2x4 other = HAS_OTHER ? load_eight_other(at) : mat2x4(0);
    mat2x4 v = mat2x4(apply_epilogue(low, other[0]), apply_epilogue(high, other[1]));
    if ((flags & ACCUMULATE) != 0)
        v += load_eight_c(at);
    store_eight_c(at, v);
}
