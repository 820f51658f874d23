#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char live[512];

void cs_log(enum cs_log_level level, const char *fmt, ...)
{
    static const char *const prefix[] = {"debug: ", "", "warning: ", "error: "};
    if (level == CS_LOG_DEBUG && !getenv("CSMOE_DEBUG"))
        return;
    char text[4096];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    pthread_mutex_lock(&lock);
    fprintf(stderr, "%s%s%s\n%s", live[0] ? "\r\033[K" : "", prefix[level], text, live);
    fflush(stderr);
    pthread_mutex_unlock(&lock);
}

bool cs_progress_visible(void)
{
    return isatty(STDERR_FILENO);
}

void cs_progress(const char *line)
{
    if (!cs_progress_visible())
        return;
    pthread_mutex_lock(&lock);
    if (line) {
        snprintf(live, sizeof live, "%s", line);
        fprintf(stderr, "\r\033[K%s", live);
    } else if (live[0]) {
        live[0] = 0;
        fputc('\n', stderr);
    }
    fflush(stderr);
    pthread_mutex_unlock(&lock);
}
