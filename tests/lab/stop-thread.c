/* Stops one thread, as a kernel or a disk that hangs does, until it is killed: stop-thread TID */
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

int main(int argc, char **argv) {
  pid_t thread = argc == 2 ? atoi(argv[1]) : 0;
  int status = 0;
  if (ptrace(PTRACE_SEIZE, thread, 0, 0) || ptrace(PTRACE_INTERRUPT, thread, 0, 0)) {
    perror("stop-thread");
    return 1;
  }
  do {
    if (waitpid(thread, &status, __WALL) != thread) return 1;
  } while (!WIFEXITED(status) && !WIFSIGNALED(status));
  return 0;
}
