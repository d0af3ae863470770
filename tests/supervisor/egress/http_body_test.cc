#include "supervisor/egress/http_body.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

namespace creel::egress {
namespace {

// The content of a chunked body that comes in pieces of this size; "refused" if it is not good,
// "more" if it does not end.
std::string Read(const std::string& body, size_t piece, size_t* taken = nullptr) {
  BodyReader reader({.kind = Framing::Kind::kChunked});
  std::string out;
  size_t at = 0;
  while (at < body.size() && !reader.done()) {
    const auto got = reader.Take(std::string_view(body).substr(at, piece), out, SIZE_MAX);
    if (!got.ok()) {
      return "refused";
    }
    at += *got;
  }
  if (taken != nullptr) {
    *taken = at;
  }
  return reader.done() ? out : "more";
}

TEST_SUITE("HttpBody") {
  TEST_CASE("chunks are put together, whatever the pieces, and nothing after them is taken") {
    const std::string body = "3\r\nabc\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";
    for (size_t piece = 1; piece < body.size() + 5; ++piece) {
      CAPTURE(piece);
      size_t taken = 0;
      CHECK(Read(body + "GET /", piece, &taken) == "abc0123456789");
      CHECK(taken == body.size());
    }
  }

  TEST_CASE("chunks that are not written to the letter are refused") {
    for (const char* body : {
             "3\nabc\r\n0\r\n\r\n",
             "3\r\nabc\n0\r\n\r\n",
             "3\r\nabcd\r\n0\r\n\r\n",
             "3;ext=1\r\nabc\r\n0\r\n\r\n",
             "+3\r\nabc\r\n",
             "-3\r\nabc\r\n",
             "0x3\r\nabc\r\n",
             " 3\r\nabc\r\n",
             "3 \r\nabc\r\n",
             "\r\nabc\r\n",
             "g\r\n",
             "fffffffffffffffff\r\n",
             "3\r\rabc\r\n",
             "0\r\nA: b\nC: d\r\n\r\n",
         }) {
      CAPTURE(body);
      CHECK(Read(body, 100) == "refused");
      CHECK(Read(body, 1) == "refused");
    }
    CHECK(Read("3\r\nab", 10) == "more");
    CHECK(Read("0\r\n" + std::string(10'000, 'a') + "\r\n\r\n", 100) == "refused");
  }

  TEST_CASE("a length is kept to, and an early end is seen") {
    BodyReader reader({.kind = Framing::Kind::kLength, .length = 5});
    std::string out;
    CHECK(*reader.Take("abc", out, 100) == 3);
    CHECK_FALSE(reader.done());
    CHECK_FALSE(reader.End().ok());
    CHECK(*reader.Take("defgh", out, 1) == 1);
    CHECK(*reader.Take("efgh", out, 100) == 1);
    CHECK(reader.done());
    CHECK(out == "abcde");
    CHECK(reader.bytes() == 5);

    BodyReader endless({.kind = Framing::Kind::kUntilClose});
    CHECK(*endless.Take("abc", out, 100) == 3);
    CHECK_FALSE(endless.done());
    CHECK(endless.End().ok());
    CHECK(endless.done());
    CHECK(BodyReader({.kind = Framing::Kind::kNone}).done());
    CHECK(BodyReader({.kind = Framing::Kind::kLength, .length = 0}).done());
  }

  TEST_CASE("a chunk is written so that it is read again") {
    std::string out;
    AppendChunk("", out);
    CHECK(out.empty());
    AppendChunk("hello world, sixteen", out);
    CHECK(Read(out + "0\r\n\r\n", 7) == "hello world, sixteen");
  }
}

}  // namespace
}  // namespace creel::egress
