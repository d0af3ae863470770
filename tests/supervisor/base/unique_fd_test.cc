#include "supervisor/base/unique_fd.h"

#include <doctest/doctest.h>
#include <fcntl.h>

#include <utility>

namespace creel {
namespace {

bool IsOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }

TEST_SUITE("UniqueFd") {
  TEST_CASE("assigning closes the descriptor that was held") {
    UniqueFd a(open("/dev/null", O_RDONLY | O_CLOEXEC));
    UniqueFd b(open("/dev/null", O_RDONLY | O_CLOEXEC));
    const int old_a = a.get();
    const int old_b = b.get();
    a = std::move(b);
    CHECK_FALSE(IsOpen(old_a));
    CHECK(a.get() == old_b);
    CHECK_FALSE(b.valid());
  }

  TEST_CASE("a released descriptor stays open") {
    UniqueFd a(open("/dev/null", O_RDONLY | O_CLOEXEC));
    const int fd = a.release();
    CHECK(IsOpen(fd));
    close(fd);
  }
}

}  // namespace
}  // namespace creel
