/* Records of the function's log: lines on fds 1 and 2 that carry their level. */
#ifndef GG_LOG_H
#define GG_LOG_H

/* Take the threshold from the environment, once; later calls do nothing. */
void log_prepare(void);

/* In a forked child, where a thread that is not there may hold the lock. */
void log_reset_lock(void);

/*
 * Write why the library can not go on and end the process with status 1. `number` is an errno, 0 for none, -1 to say
 * that `text` describes something which the core sent.
 */
_Noreturn void log_fatal(const char *text, int number);

#endif
