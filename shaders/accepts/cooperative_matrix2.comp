#version 450
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_NV_cooperative_matrix2 : require

layout(local_size_x = 128, local_size_x_id = 0) in;
layout(constant_id = 1) const int CLAMP = gl_CooperativeMatrixClampModeConstantNV;
layout(binding = 0) buffer Values { uvec4 values[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Word { uint word; };

float16_t decode(const in Word place, const in uint at[2], const in uint in_block[2])
{
    return float16_t(at[0]);
}

float16_t put(const in uint row, const in uint column, const in float16_t v)
{
    values[row].x = column;
    return v;
}

void main()
{
    coopmat<float16_t, gl_ScopeWorkgroup, 64, 32, gl_MatrixUseAccumulator> c;
    tensorLayoutNV<2, CLAMP> tensor = createTensorLayoutNV(2, CLAMP);
    tensor = setTensorLayoutStrideNV(setTensorLayoutDimensionNV(tensor, 40, 50), 50, 1);
    coopMatLoadTensorNV(c, values, 0, sliceTensorLayoutNV(tensor, 0, 32, 0, 64), createTensorViewNV(2, false, 1, 0));
    coopMatLoadTensorNV(c, values, 0, sliceTensorLayoutNV(tensor, 0, 64, 0, 32), decode);
    coopMatPerElementNV(c, c, put);
}
