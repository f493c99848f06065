// A clock of its own for one process: the time of day, SKEW_SECONDS off. Everything else stays.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
  static int (*real)(clockid_t, struct timespec *);
  if (real == NULL) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(clock, time);
  const char *skew = getenv("SKEW_SECONDS");
  if (result == 0 && clock == CLOCK_REALTIME && skew != NULL) time->tv_sec += atol(skew);
  return result;
}
