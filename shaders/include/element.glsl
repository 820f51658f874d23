// ELEMENT and TYPE: what cooperative matrices multiply, f16 or (with -DBFLOAT16) bf16, as a type of the language and as
// enum nn_dtype. Included before any code, because of its extensions.
#ifdef BFLOAT16
#extension GL_EXT_bfloat16 : require
#define ELEMENT bfloat16_t
#else
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#define ELEMENT float16_t
#endif
#include "half.glsl"

#ifdef BFLOAT16
const uint TYPE = TYPE_BF16;
#else
const uint TYPE = TYPE_F16;
#endif
