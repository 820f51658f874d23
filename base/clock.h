/* Time for measuring: seconds of a clock that only goes forward, from an arbitrary beginning. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

double cs_seconds(void);

#endif
