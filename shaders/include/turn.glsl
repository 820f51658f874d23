// Cosine and sine of an angle in 1/2^32 of a turn, absolute error about 1e-7 (GLSL's own promise 5e-4).
#ifndef TURN_GLSL
#define TURN_GLSL

vec2 turn_cos_sin(uint turn)
{
    // The nearest quarter turn, and what is left: at most an eighth of a turn either way.
    uint quarter = (turn + 0x20000000u) >> 30;
    float a = float(int(turn - (quarter << 30))) * 1.46291808e-9; // 2 pi / 2^32
    float z = a * a;
    // Minimax polynomials of the Cephes library's sinf and cosf (Moshier).
    float s = a + a * z * ((-1.9515295891e-4 * z + 8.3321608736e-3) * z - 1.6666654611e-1);
    float c = 1.0 - 0.5 * z + z * z * ((2.443315711809948e-5 * z - 1.388731625493765e-3) * z + 4.166664568298827e-2);
    vec2 r = (quarter & 1u) == 0u ? vec2(c, s) : vec2(-s, c);
    return (quarter & 2u) == 0u ? r : -r;
}

#endif
