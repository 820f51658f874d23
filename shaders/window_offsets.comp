#version 450
// Where each expert's rows begin within windows of `step` sorted rows: window w sees rows w step .. w step + step - 1.
layout(local_size_x = 64) in;
layout(local_size_x_id = 0) in;

layout(push_constant) uniform Push
{
    uint experts, step, stride, windows; // stride: from one window's list to the next
};

layout(std430, binding = 0) readonly buffer Offsets { int offsets[]; };         // [E + 1]
layout(std430, binding = 1) writeonly buffer WindowOffsets { int windowed[]; }; // [windows, stride]

void main()
{
    uint i = gl_GlobalInvocationID.x, window = i / (experts + 1u), e = i % (experts + 1u);
    if (window < windows)
        windowed[window * stride + e] = clamp(offsets[e] - int(window * step), 0, int(step));
}
