/* What the program asks of a CPU driver before it opens one. */
#ifndef TOOLS_CPU_DRIVER_H
#define TOOLS_CPU_DRIVER_H

#include <stdbool.h>

/* Has lavapipe work with three threads for each core that this process may use, through LP_NUM_THREADS, unless that is
 * set already. The driver deals a dispatch out in as many equal parts as it has threads, and the slowest part is waited
 * for: with smaller ones, a core that is done or undisturbed takes more of them (docs/performance.md). Changes the
 * environment, so call it before there are other threads. */
bool cs_set_driver_threads(void);

#endif
