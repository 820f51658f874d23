#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "tools/commands.h"
#include "tools/cpu_driver.h"
#include "tools/options.h"

/* Results that did not reach stdout are a failure (a full disk); a reader that left early, as in `csmoe ... | head`, is
 * not. */
static int finish_output(int status)
{
    errno = 0;
    bool failed = ferror(stdout);
    failed = fflush(stdout) != 0 || failed;
    if (!failed || errno == EPIPE)
        return status;
    cs_fail("standard output: cannot write: %s", errno ? strerror(errno) : "an earlier write failed");
    return cs_failed();
}

int main(int argc, char **argv)
{
    /* A closed pipe or a full quota must not kill a training run: the write fails and is reported. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    return finish_output(cs_set_driver_threads() ? cs_main(argc, argv) : cs_failed());
}
