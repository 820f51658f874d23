// main() of elementwise kernels, after their work(uint i), which is called for every unit i. An invocation takes up to
// TURNS units, a workgroup apart: on a CPU driver beginning an invocation costs about as much as a unit of work. (Such
// a driver runs a loop that is tested at its top once more than wanted.)
void main()
{
    uint i = group_index() * gl_WorkGroupSize.x * TURNS + gl_LocalInvocationIndex;
    uint turn = 0;
    if (i < rows)
        do {
            work(i);
            i += gl_WorkGroupSize.x;
        } while (++turn < TURNS && i < rows);
}
