#include "supervisor/sandbox/output_log.h"

#include <doctest/doctest.h>

#include <atomic>
#include <filesystem>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "supervisor/base/crypto.h"

namespace creel {
namespace {

using shim::v1::Output;
using shim::v1::OutputGap;

constexpr auto kOut = shim::v1::OUTPUT_STREAM_STDOUT;
constexpr auto kErr = shim::v1::OUTPUT_STREAM_STDERR;

Output Piece(uint64_t offset, std::string data, shim::v1::OutputStream stream = kOut) {
  Output output;
  output.set_stream(stream);
  output.set_offset(offset);
  output.set_data(std::move(data));
  return output;
}

// The byte that belongs at an offset, so that a byte in the wrong place shows.
char ByteAt(uint64_t offset) { return static_cast<char>((offset * 131 + offset / 251) & 0xff); }

std::string Bytes(uint64_t offset, uint64_t size) {
  std::string data(size, '\0');
  for (uint64_t i = 0; i < size; ++i) {
    data[i] = ByteAt(offset + i);
  }
  return data;
}

struct ReadResult {
  std::string data;
  uint64_t missed = 0;
  bool ended = false;
  bool all_right = true;  // every byte is the one that belongs there
};

ReadResult ReadAll(OutputLog& log, uint64_t offset) {
  ReadResult result;
  while (true) {
    OutputLog::Next next = log.Read(offset, [] {});
    if (auto* output = std::get_if<std::shared_ptr<const Output>>(&next)) {
      result.all_right = result.all_right && (*output)->offset() == offset;
      for (const char byte : (*output)->data()) {
        result.all_right = result.all_right && byte == ByteAt(offset);
        ++offset;
      }
      result.data += (*output)->data();
    } else if (auto* gap = std::get_if<OutputGap>(&next)) {
      result.all_right = result.all_right && gap->from() == offset && gap->to() > offset;
      result.missed += gap->to() - gap->from();
      offset = gap->to();
    } else {
      result.ended = std::holds_alternative<OutputLog::End>(next);
      return result;
    }
  }
}

std::string Directory() { return std::filesystem::temp_directory_path().string(); }

// As whoever reads the shim does.
absl::Status Add(OutputLog& log, Output piece) {
  const absl::Status added = log.Append(std::move(piece));
  log.Settle();
  return added;
}

TEST_SUITE("OutputLog") {
  TEST_CASE("a reader from the start gets every byte, over memory and file, whatever the pieces") {
    OutputLog log({.directory = Directory(), .file_bytes = 1 << 20, .memory_bytes = 10'000});
    uint64_t offset = 0;
    for (int i = 0; offset < 900'000; ++i) {
      const uint64_t size = 1 + (static_cast<uint64_t>(i) * 7919) % 5000;
      REQUIRE(Add(log, Piece(offset, Bytes(offset, size), i % 3 == 0 ? kErr : kOut)).ok());
      offset += size;
    }
    log.Close();
    const ReadResult read = ReadAll(log, 0);
    CHECK(read.data.size() == offset);
    CHECK(read.missed == 0);
    CHECK(read.all_right);
    CHECK(read.ended);
    CHECK(ReadAll(log, 123'457).data.size() == offset - 123'457);
  }

  TEST_CASE("what the ring no longer holds comes as one gap, and the rest is right") {
    OutputLog log({.directory = Directory(), .file_bytes = 64 << 10, .memory_bytes = 10'000});
    for (uint64_t offset = 0; offset < 1'000'000; offset += 1000) {
      REQUIRE(Add(log, Piece(offset, Bytes(offset, 1000))).ok());
    }
    const ReadResult read = ReadAll(log, 0);
    CHECK(read.all_right);
    CHECK(read.missed + read.data.size() == 1'000'000);
    CHECK(read.data.size() >= 64 << 10);
    CHECK(read.data.size() < 100'000);
    CHECK(log.disk_bytes() <= 64 << 10);
    CHECK(log.begin() == read.missed);
  }

  TEST_CASE("without a place on the disk it keeps what memory may hold") {
    OutputLog log({.directory = "/nonexistent/creel", .memory_bytes = 20'000});
    for (uint64_t offset = 0; offset < 100'000; offset += 1000) {
      REQUIRE(Add(log, Piece(offset, Bytes(offset, 1000))).ok());
    }
    const ReadResult read = ReadAll(log, 0);
    CHECK(read.all_right);
    CHECK(read.missed + read.data.size() == 100'000);
    CHECK(read.data.size() >= 10'000);
    CHECK(read.data.size() <= 20'000);
  }

  TEST_CASE("output that comes again is not kept twice, output that is missing is a gap") {
    OutputLog log({});
    REQUIRE(Add(log, Piece(0, Bytes(0, 100))).ok());
    REQUIRE(Add(log, Piece(50, Bytes(50, 100))).ok());
    REQUIRE(Add(log, Piece(20, Bytes(20, 30))).ok());
    REQUIRE(Add(log, Piece(200, Bytes(200, 10))).ok());
    log.Close();
    const ReadResult read = ReadAll(log, 0);
    CHECK(read.data.size() == 160);
    CHECK(read.missed == 50);
    CHECK(read.all_right);
  }

  TEST_CASE("an offset that cannot be is refused and changes nothing") {
    OutputLog log({});
    CHECK_FALSE(Add(log, Piece(~0ull - 5, "0123456789")).ok());
    CHECK_FALSE(Add(log, Piece(1ull << 60, "x")).ok());
    CHECK_FALSE(log.AppendGap(~0ull).ok());
    CHECK(log.end() == 0);
  }

  TEST_CASE("a waiting reader is woken once by output and once by the end") {
    OutputLog log({});
    int woken = 0;
    CHECK(std::holds_alternative<OutputLog::Pending>(log.Read(0, [&] { ++woken; })));
    REQUIRE(Add(log, Piece(0, "x")).ok());
    CHECK(woken == 1);
    CHECK(std::holds_alternative<OutputLog::Pending>(log.Read(1, [&] { ++woken; })));
    log.Close();
    CHECK(woken == 2);
    CHECK(std::holds_alternative<OutputLog::End>(log.Read(1, [&] { ++woken; })));
    CHECK(woken == 2);
  }

  TEST_CASE("a command that alternates its streams byte by byte stays bounded") {
    OutputLog log({.directory = Directory(), .file_bytes = 8 << 20, .memory_bytes = 4096});
    for (uint64_t offset = 0; offset < 200'000; ++offset) {
      REQUIRE(Add(log, Piece(offset, Bytes(offset, 1), offset % 2 == 0 ? kOut : kErr)).ok());
    }
    const ReadResult read = ReadAll(log, 0);
    CHECK(read.all_right);
    CHECK(read.data.size() + read.missed == 200'000);
    CHECK(read.data.size() <= 20'000);
  }

  TEST_CASE("a reader would lose bytes only when it is a ring behind") {
    OutputLog log({.directory = Directory(), .file_bytes = 100'000, .memory_bytes = 4096});
    REQUIRE(Add(log, Piece(0, Bytes(0, 50'000))).ok());
    CHECK_FALSE(log.WouldLose(0, 40'000));
    CHECK(log.WouldLose(0, 60'000));
    CHECK_FALSE(log.WouldLose(50'000, 1 << 20));
  }

  TEST_CASE("what came in all is summed up: how much, its digest, and how it begins") {
    OutputLog log({.directory = "/tmp", .file_bytes = 1u << 20, .memory_bytes = 64u << 10});
    const std::string all = Bytes(0, 3u << 20);
    for (uint64_t at = 0; at < all.size(); at += 100'000) {
      REQUIRE(Add(log, Piece(at, all.substr(at, 100'000))).ok());
      // What comes twice counts once.
      REQUIRE(Add(log, Piece(at, all.substr(at, 50'000))).ok());
    }
    log.Close();
    Sha256 sum;
    sum.Update(all);
    const OutputLog::Digest digest = log.TakeDigest();
    CHECK(digest.bytes == all.size());
    CHECK(digest.missed == 0);
    CHECK(digest.sha256 == Hex(sum.Finish()));
    CHECK(digest.head.size() <= 4096);
    CHECK(all.starts_with(digest.head));
  }

  TEST_CASE("put away by whichever thread has time: the sum is of all in its order") {
    OutputLog log({.directory = "/tmp", .file_bytes = 1u << 20, .memory_bytes = 64u << 10});
    const std::string all = Bytes(0, 16u << 20);
    std::atomic<bool> done = false;
    std::vector<std::thread> settlers;
    for (int i = 0; i < 3; ++i) {
      settlers.emplace_back([&] {
        while (!done) {
          log.Settle();
        }
      });
    }
    for (uint64_t at = 0; at < all.size(); at += 10'000) {
      REQUIRE(log.Append(Piece(at, all.substr(at, 10'000))).ok());
    }
    done = true;
    for (std::thread& settler : settlers) {
      settler.join();
    }
    log.Close();
    Sha256 sum;
    sum.Update(all);
    CHECK(log.TakeDigest().sha256 == Hex(sum.Finish()));
    CHECK(ReadAll(log, all.size() - 500'000).data == Bytes(all.size() - 500'000, 500'000));
  }

  TEST_CASE("what nobody puts away is bounded, and readers see it at once") {
    OutputLog log({.directory = "", .memory_bytes = 64u << 10});
    const std::string all = Bytes(0, 16u << 20);
    for (uint64_t at = 0; at < all.size(); at += 100'000) {
      const std::string piece = all.substr(at, 100'000);
      REQUIRE(log.Append(Piece(at, piece)).ok());
      CHECK(ReadAll(log, at).data == piece);
    }
    CHECK(log.begin() >= all.size() - (3u << 20));
    log.Close();
    Sha256 sum;
    sum.Update(all);
    CHECK(log.TakeDigest().sha256 == Hex(sum.Finish()));
  }

  TEST_CASE("the sum tells of what never came") {
    OutputLog log({});
    REQUIRE(Add(log, Piece(0, "abc")).ok());
    REQUIRE(log.AppendGap(10).ok());
    REQUIRE(Add(log, Piece(10, "def")).ok());
    log.Close();
    const OutputLog::Digest digest = log.TakeDigest();
    CHECK(digest.bytes == 13);
    CHECK(digest.missed == 7);
    CHECK(digest.sha256 == "bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721");
    CHECK(digest.head == "abcdef");
  }
}

}  // namespace
}  // namespace creel
