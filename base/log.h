/* The one logging call. Results go to stdout with printf; everything said on the side goes here, to stderr. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/error.h"

enum cs_log_level { CS_LOG_DEBUG, CS_LOG_INFO, CS_LOG_WARN, CS_LOG_ERROR };

/* One line to stderr, written whole (safe from several threads); warnings and errors carry a "warning: " / "error: "
 * prefix. Debug lines appear only with CSMOE_DEBUG set in the environment. A progress bar is cleared first. */
void cs_log(enum cs_log_level level, const char *fmt, ...) CS_PRINTF(2, 3);

/* Shows `line` as the terminal's live last line (rewritten by the next call, lifted out of the way by cs_log).
 * NULL ends it with a newline. Does nothing unless stderr is a terminal. */
void cs_progress(const char *line);

/* Whether stderr is a terminal, hence whether cs_progress() shows anything. */
bool cs_progress_visible(void);

#endif
