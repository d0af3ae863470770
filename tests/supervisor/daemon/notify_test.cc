#include "supervisor/daemon/notify.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <string>

#include "supervisor/base/unique_fd.h"

namespace creel {
namespace {

TEST_SUITE("Notify") {
  TEST_CASE("without a service manager nothing happens") {
    ::unsetenv("NOTIFY_SOCKET");
    CHECK(NotifyServiceManager("READY=1").ok());
  }
  TEST_CASE("the state arrives at a path and at an abstract address") {
    for (const bool abstract : {false, true}) {
      CAPTURE(abstract);
      const std::string path = "/tmp/creel-notify-" + std::to_string(::getpid());
      sockaddr_un address{};
      address.sun_family = AF_UNIX;
      std::memcpy(address.sun_path, path.data(), path.size());
      if (abstract) {
        address.sun_path[0] = '\0';
      }
      const UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
      const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
      REQUIRE(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) == 0);
      ::setenv("NOTIFY_SOCKET", abstract ? ("@" + path.substr(1)).c_str() : path.c_str(), 1);
      CHECK(NotifyServiceManager("READY=1").ok());
      std::array<char, 64> got{};
      CHECK(::recv(fd.get(), got.data(), got.size(), MSG_DONTWAIT) == 7);
      CHECK(std::string(got.data()) == "READY=1");
      ::unsetenv("NOTIFY_SOCKET");
      ::unlink(path.c_str());
    }
  }
  TEST_CASE("an address that cannot be is an error") {
    ::setenv("NOTIFY_SOCKET", "relative", 1);
    CHECK_FALSE(NotifyServiceManager("READY=1").ok());
    ::setenv("NOTIFY_SOCKET", ("/" + std::string(200, 'x')).c_str(), 1);
    CHECK_FALSE(NotifyServiceManager("READY=1").ok());
    ::unsetenv("NOTIFY_SOCKET");
  }
}

}  // namespace
}  // namespace creel
