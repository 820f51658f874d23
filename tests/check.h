/* cmocka, and its check for functions that set the error. */
#ifndef TESTS_CHECK_H
#define TESTS_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"

#define check(condition) \
    do { \
        if (!(condition)) \
            fail_msg("%s: %s", #condition, cs_error()); \
    } while (0)

#endif
