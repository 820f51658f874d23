#define _GNU_SOURCE /* sched_getaffinity, CPU_COUNT */
#include "tools/cpu_driver.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"

static long usable_cores(void)
{
#ifdef __linux__
    cpu_set_t cores;
    if (sched_getaffinity(0, sizeof cores, &cores) == 0)
        return CPU_COUNT(&cores);
#endif
    long cores_online = sysconf(_SC_NPROCESSORS_ONLN);
    return cores_online > 0 ? cores_online : 1;
}

bool cs_set_driver_threads(void)
{
    enum { PARTS_PER_CORE = 3 };
    char threads[24];
    snprintf(threads, sizeof threads, "%ld", PARTS_PER_CORE * usable_cores());
    if (setenv("LP_NUM_THREADS", threads, 0) != 0)
        return cs_fail("setting LP_NUM_THREADS for the CPU driver: %s", strerror(errno));
    return true;
}
