#version 450
#extension GL_EXT_bfloat16 : require
#extension GL_EXT_buffer_reference : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_NV_cooperative_matrix2 : require

layout(local_size_x = 128, local_size_x_id = 0) in;
layout(binding = 0) buffer Values { uvec4 values[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Word { uint word; };

bfloat16_t decode(const in Word place, const in uint at[2], const in uint in_block[2])
{
    return bfloat16_t(float(at[0]));
}

void main()
{
    coopmat<bfloat16_t, gl_ScopeWorkgroup, 64, 32, gl_MatrixUseA> a;
    tensorLayoutNV<2> tensor = setTensorLayoutDimensionNV(createTensorLayoutNV(2), 64, 32);
    coopMatLoadTensorNV(a, values, 0, tensor, decode);
    values[0].x = uint(float(a[0]));
}
