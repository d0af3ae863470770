#include "supervisor/web/send_file.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <optional>
#include <string>
#include <thread>

namespace creel::web {
namespace {

using boost::asio::ip::tcp;
using std::chrono::milliseconds;
namespace beast = boost::beast;
namespace http = boost::beast::http;

// A file of 16 MiB, which no socket takes at once, and the two ends of a connection.
struct SendWorld {
  SendWorld() {
    char name[] = "/tmp/creel-send-XXXXXX";
    const int fd = ::mkstemp(name);
    REQUIRE(fd >= 0);
    path = name;
    REQUIRE(::ftruncate(fd, kBytes) == 0);
    ::close(fd);
    tcp::acceptor acceptor(io, {boost::asio::ip::address_v4::loopback(), 0});
    reader.connect(acceptor.local_endpoint());
    stream.emplace(acceptor.accept());
  }
  ~SendWorld() { ::unlink(path.c_str()); }

  void Send(milliseconds piece_within) {
    http::response<http::file_body> response;
    boost::system::error_code error;
    response.body().open(path.c_str(), beast::file_mode::scan, error);
    REQUIRE_FALSE(error);
    response.prepare_payload();
    SendFile(*stream, std::move(response), piece_within,
             [this](const boost::system::error_code& end) { ended = end; });
  }
  // Takes so much, or what there is; false: nothing more comes.
  bool Take(size_t bytes) {
    std::string piece(bytes, '\0');
    boost::system::error_code error;
    taken += reader.read_some(boost::asio::buffer(piece), error);
    return !error;
  }

  static constexpr size_t kBytes = 16u << 20;
  boost::asio::io_context io;
  tcp::socket reader{io};
  std::optional<beast::tcp_stream> stream;
  std::string path;
  size_t taken = 0;
  std::optional<boost::system::error_code> ended;
};

TEST_SUITE("SendFile") {
  TEST_CASE("a reader that takes nothing ends it") {
    SendWorld world;
    world.Send(milliseconds(200));
    const auto began = std::chrono::steady_clock::now();
    world.io.run_for(std::chrono::seconds(20));
    REQUIRE(world.ended.has_value());
    CHECK(*world.ended == beast::error::timeout);
    CHECK(std::chrono::steady_clock::now() - began >= milliseconds(200));
  }

  TEST_CASE("a reader that is slow gets it all") {
    SendWorld world;
    world.Send(std::chrono::seconds(1));
    const auto began = std::chrono::steady_clock::now();
    std::thread sender([&] { world.io.run_for(std::chrono::seconds(60)); });
    // Longer on the whole than a piece may take.
    while (world.taken < SendWorld::kBytes) {
      if (!world.Take(2u << 20)) {
        break;
      }
      if (std::chrono::steady_clock::now() - began < milliseconds(1500)) {
        std::this_thread::sleep_for(milliseconds(100));
      }
    }
    sender.join();
    CHECK(world.taken > SendWorld::kBytes);
    REQUIRE(world.ended.has_value());
    CHECK_FALSE(*world.ended);
  }
}

}  // namespace
}  // namespace creel::web
