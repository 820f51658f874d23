#version 450
#extension GL_KHR_cooperative_matrix : require
#extension GL_EXT_bfloat16 : require
#extension GL_KHR_memory_scope_semantics : require

shared uvec4 values[32];

void main()
{
    coopmat<bfloat16_t, gl_ScopeSubgroup, 16, 16, gl_MatrixUseA> a;
    coopMatLoad(a, values, 0, 2, gl_CooperativeMatrixLayoutRowMajor);
    coopMatStore(a, values, 0, 2, gl_CooperativeMatrixLayoutRowMajor);
}
