#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[CS_ERROR_SIZE];

bool cs_fail(const char *fmt, ...)
{
    /* Formatted aside first: the arguments may point into the current message. */
    char fresh[sizeof message];
    va_list args;
    va_start(args, fmt);
    vsnprintf(fresh, sizeof fresh, fmt, args);
    va_end(args);
    memcpy(message, fresh, sizeof message);
    return false;
}

bool cs_fail_in(const char *fmt, ...)
{
    char fresh[sizeof message];
    va_list args;
    va_start(args, fmt);
    vsnprintf(fresh, sizeof fresh, fmt, args);
    va_end(args);
    strncat(fresh, ": ", sizeof fresh - strlen(fresh) - 1);
    strncat(fresh, message, sizeof fresh - strlen(fresh) - 1);
    memcpy(message, fresh, sizeof message);
    return false;
}

const char *cs_error(void)
{
    return message;
}

cs_kept_error cs_keep_error(void)
{
    cs_kept_error kept;
    memcpy(kept.message, message, sizeof message);
    return kept;
}

bool cs_restore_error(const cs_kept_error *kept)
{
    memcpy(message, kept->message, sizeof message);
    return false;
}
