// Shared by all kernels. Conventions: local_size_x_id = 0 with a local_size_x default (without one a driver may take a
// workgroup of 1); descriptor set 0, binding i = bind[i] of the dispatch; sizes and scalars in one push_constant block
// of at most 128 bytes. No loop of more than 65535 turns: lavapipe 22.3 stops there without a word.
#ifndef COMMON_GLSL
#define COMMON_GLSL

uint div_up(uint n, uint d)
{
    return (n + d - 1) / d;
}

// Workgroup number over a grid of up to three dimensions: more than max_groups[0] groups are laid out in rows.
uint group_index()
{
    return gl_WorkGroupID.x + gl_NumWorkGroups.x * (gl_WorkGroupID.y + gl_NumWorkGroups.y * gl_WorkGroupID.z);
}

uint group_count()
{
    return gl_NumWorkGroups.x * gl_NumWorkGroups.y * gl_NumWorkGroups.z;
}

// Invocation number and count of one-dimensional workgroups, for grid-stride loops. Macros, because a function that
// mentions gl_WorkGroupSize before the shader's local_size layout would be compiled for a workgroup of 1.
#define GLOBAL_INDEX (group_index() * gl_WorkGroupSize.x + gl_LocalInvocationID.x)
#define GLOBAL_SIZE (group_count() * gl_WorkGroupSize.x)

#endif
