#include "agent-shim/link/caller.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <string>
#include <thread>
#include <utility>

namespace creel::shim {
namespace {

UniqueFd Listen(const std::string& path) {
  UniqueFd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path, path.data(), path.size());
  REQUIRE(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(listen(listener.get(), 4) == 0);
  return listener;
}

}  // namespace

TEST_SUITE("Caller") {
  TEST_CASE("calls until somebody listens, again after a hang-up, and ends when told") {
    char directory[] = "/tmp/creel-caller-XXXXXX";
    REQUIRE(mkdtemp(directory) != nullptr);
    const std::string path = std::string(directory) + "/s";
    const UniqueFd stop(eventfd(0, EFD_CLOEXEC));
    std::atomic<int> connected = 0;
    std::atomic<int> ended = 0;
    UniqueFd mine;
    Caller caller({.path = path, .stop_fd = stop.get()},
                  [&](UniqueFd connection) {
                    mine = std::move(connection);
                    ++connected;
                  },
                  [&] { ++ended; });
    std::thread thread([&caller] { caller.Run(); });
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    const UniqueFd listener = Listen(path);
    UniqueFd first(accept(listener.get(), nullptr, nullptr));
    REQUIRE(first.valid());
    first.reset();
    const UniqueFd second(accept(listener.get(), nullptr, nullptr));
    REQUIRE(second.valid());
    for (int i = 0; i < 200 && connected < 2; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    CHECK(connected == 2);
    CHECK(ended == 1);
    const uint64_t one = 1;
    CHECK(write(stop.get(), &one, sizeof one) == sizeof one);
    thread.join();
    CHECK(ended == 2);
    unlink(path.c_str());
    rmdir(directory);
  }
}

}  // namespace creel::shim
