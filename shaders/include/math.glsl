// exp, log and log1p within about 2 units in the last place, whatever the driver. GLSL allows exp an error of 3 + 2|x|
// ulp, and some CPU drivers replace it by a short polynomial. After the Cephes library's expf and logf (Moshier).
#ifndef MATH_GLSL
#define MATH_GLSL

// By its bits: a compiler may take it that all numbers are.
bool finite(float v)
{
    return (floatBitsToUint(v) & 0x7f800000u) != 0x7f800000u;
}

// e^(x - n ln 2) for the integer n next to x / ln 2.
float exp_remainder(float x, float n)
{
    // ln 2 in two parts, the first of few bits, so that n times it is exact. `precise` keeps the order.
    precise float high = x - n * 0.693359375;
    precise float r = high - n * -2.12194440e-4;
    float p = 1.9875691500e-4;
    p = p * r + 1.3981999507e-3;
    p = p * r + 8.3334519073e-3;
    p = p * r + 4.1665795894e-2;
    p = p * r + 1.6666665459e-1;
    p = p * r + 5.0000001201e-1;
    return p * r * r + r + 1.0;
}

// e^x: below -87.33 (the least normal number) 0, above 88.72 infinity.
float accurate_exp(float x)
{
    float n = roundEven(clamp(x, -127.0, 129.0) * 1.44269504);
    float p = exp_remainder(x, n);
    // 2^n in two factors: n = 128 has no exponent of its own.
    int half_n = int(n) >> 1;
    float scaled = p * intBitsToFloat((half_n + 127) << 23) * intBitsToFloat((int(n) - half_n + 127) << 23);
    return x < -87.33654 ? 0.0 : x > 88.72283 ? intBitsToFloat(0x7f800000) : scaled;
}

// The same for -87.33 <= x <= 0; else anything.
float accurate_exp_normal(float x)
{
    float n = roundEven(x * 1.44269504);
    return exp_remainder(x, n) * intBitsToFloat((int(n) + 127) << 23);
}

// The same for x <= 0.
float accurate_exp_falling(float x)
{
    return x < -87.33654 ? 0.0 : accurate_exp_normal(x);
}

// Natural logarithm of a positive normal number.
float accurate_log(float x)
{
    // x = m 2^e with m in [sqrt(1/2), sqrt(2)).
    int e = (floatBitsToInt(x) - 0x3f3504f3) >> 23;
    float m = intBitsToFloat(floatBitsToInt(x) - (e << 23)) - 1.0;
    float p = 7.0376836292e-2;
    p = p * m - 1.1514610310e-1;
    p = p * m + 1.1676998740e-1;
    p = p * m - 1.2420140846e-1;
    p = p * m + 1.4249322787e-1;
    p = p * m - 1.6668057665e-1;
    p = p * m + 2.0000714765e-1;
    p = p * m - 2.4999993993e-1;
    p = p * m + 3.3333331174e-1;
    precise float small = p * m * m * m + float(e) * -2.12194440e-4 - 0.5 * m * m;
    precise float result = m + small + float(e) * 0.693359375;
    return result;
}

// log(1 + x) for x >= 0, accurate for small x: what rounding adds to 1 + x is divided out again (Kahan).
float accurate_log1p(float x)
{
    precise float w = 1.0 + x;
    precise float rounded = w - 1.0;
    return rounded == 0.0 ? x : accurate_log(w) * (x / rounded);
}

#endif
