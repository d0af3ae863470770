#include "agent-shim/link/harden.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <string>

namespace creel::shim {
namespace {

// Runs in a child, since it cannot be undone.
int Hardened() {
  const int inherited = open("/dev/null", O_RDONLY);
  setenv("LD_PRELOAD", "x", 1);
  if (!Harden().ok()) {
    return 1;
  }
  rlimit core{};
  getrlimit(RLIMIT_CORE, &core);
  if (prctl(PR_GET_DUMPABLE) != 0 || prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1 ||
      getenv("LD_PRELOAD") != nullptr || core.rlim_max != 0 || fcntl(inherited, F_GETFD) != -1) {
    return 2;
  }
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    // CAP_KILL, CAP_SETGID and CAP_SETUID are bits 5 to 7.
    if (line.starts_with("CapEff:") && getuid() == 0 && !line.ends_with("00000000000000e0")) {
      return 3;
    }
    if (line.starts_with("CapInh:") && !line.ends_with("0000000000000000")) {
      return 4;
    }
  }
  return 0;
}

}  // namespace

TEST_SUITE("Harden") {
  TEST_CASE("nothing is left to inherit, trace or gain") {
    const pid_t pid = fork();
    if (pid == 0) {
      _exit(Hardened());
    }
    int status = 0;
    REQUIRE(waitpid(pid, &status, 0) == pid);
    CHECK(WEXITSTATUS(status) == 0);
  }
}

}  // namespace creel::shim
