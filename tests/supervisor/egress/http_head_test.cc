#include "supervisor/egress/http_head.h"

#include <doctest/doctest.h>

#include <string>

namespace creel::egress {
namespace {

std::string Refusal(const std::string& head) {
  const auto parsed = ParseRequestHead(head);
  return parsed.ok() ? "accepted" : std::string(parsed.status().message());
}

std::string BodyRefusal(const std::string& headers, int minor = 1) {
  const auto head = ParseRequestHead("POST http://a.example/ HTTP/1." + std::to_string(minor) +
                                     "\r\n" + headers + "\r\n");
  REQUIRE(head.ok());
  const auto framing = FramingOf(*head);
  return framing.ok() ? "accepted" : std::string(framing.status().message());
}

TEST_SUITE("HttpHead") {
  TEST_CASE("a plain request is read as it was written") {
    const auto head = ParseRequestHead(
        "GET http://a.example/x?y=1 HTTP/1.1\r\nHost: a.example\r\nX-Two:\t two  \r\n\r\n");
    REQUIRE(head.ok());
    CHECK(head->method == "GET");
    CHECK(head->target == "http://a.example/x?y=1");
    CHECK(head->minor == 1);
    REQUIRE(head->headers.size() == 2);
    CHECK(head->headers[1].name == "X-Two");
    CHECK(head->headers[1].value == "two");
    CHECK(FindHeader(head->headers, "HOST")->value == "a.example");
  }

  TEST_CASE("there are so many headers that what goes on to the upstream is read there") {
    const auto with = [](size_t count) {
      std::string head = "GET http://a.example/ HTTP/1.1\r\n";
      for (size_t i = 0; i < count; ++i) {
        head += "a:\r\n";
      }
      return head + "\r\n";
    };
    CHECK(Refusal(with(kMaxRequestHeaders)) == "accepted");
    CHECK(Refusal(with(kMaxRequestHeaders + 1)) == "there are more than 90 headers");
  }

  TEST_CASE("what two readers could understand differently is refused") {
    const struct {
      const char* what;
      std::string head;
    } kRows[] = {
        {"obs-fold", "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n"},
        {"obs-fold with a tab", "GET / HTTP/1.1\r\nA: b\r\n\tc\r\n\r\n"},
        {"a fold before any header", "GET / HTTP/1.1\r\n A: b\r\n\r\n"},
        {"bare LF", "GET / HTTP/1.1\nA: b\r\n\r\n"},
        {"bare LF at a header", "GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n"},
        {"bare CR", "GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n"},
        {"bare CR before CR LF", "GET / HTTP/1.1\r\nA: b\r\r\n\r\n"},
        {"NUL", std::string("GET / HTTP/1.1\r\nA: b\0\r\n\r\n", 26)},
        {"a space before the colon", "GET / HTTP/1.1\r\nA : b\r\n\r\n"},
        {"no colon", "GET / HTTP/1.1\r\nA\r\n\r\n"},
        {"an empty name", "GET / HTTP/1.1\r\n: b\r\n\r\n"},
        {"an underscore", "GET / HTTP/1.1\r\nContent_Length: 5\r\n\r\n"},
        {"two spaces", "GET  / HTTP/1.1\r\n\r\n"},
        {"a space at the end", "GET / HTTP/1.1 \r\n\r\n"},
        {"a space in the target", "GET /a b HTTP/1.1\r\n\r\n"},
        {"a tab in the line", "GET\t/ HTTP/1.1\r\n\r\n"},
        {"no version", "GET /\r\n\r\n"},
        {"HTTP/0.9", "GET / HTTP/0.9\r\n\r\n"},
        {"HTTP/2", "GET / HTTP/2\r\n\r\n"},
        {"HTTP/1.10", "GET / HTTP/1.10\r\n\r\n"},
        {"lower case", "GET / http/1.1\r\n\r\n"},
        {"a method with a bracket", "GE(T / HTTP/1.1\r\n\r\n"},
        {"an empty line first", "\r\nGET / HTTP/1.1\r\n\r\n"},
        {"a byte above ASCII in the target", "GET /\xc3\xa9 HTTP/1.1\r\n\r\n"},
        {"two Host", "GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n"},
        {"no end", "GET / HTTP/1.1\r\nA: b\r\n"},
        {"two ends", "GET / HTTP/1.1\r\n\r\nX: y\r\n\r\n"},
    };
    for (const auto& row : kRows) {
      CAPTURE(row.what);
      CHECK(Refusal(row.head) != "accepted");
    }
  }

  TEST_CASE("the end of a head is found whatever the pieces, and not in what is no head") {
    const std::string head = "GET / HTTP/1.1\r\nA: b\r\n\r\n";
    const std::string all = head + "body\n\n";
    for (size_t cut = 0; cut <= all.size(); ++cut) {
      const auto first = FindHeadEnd(std::string_view(all).substr(0, cut), 0, 100);
      REQUIRE(first.ok());
      if (first->has_value()) {
        CHECK(**first == head.size());
        continue;
      }
      const auto second = FindHeadEnd(all, cut, 100);
      REQUIRE(second.ok());
      REQUIRE(second->has_value());
      CHECK(**second == head.size());
    }
    CHECK_FALSE(FindHeadEnd("GET / HTTP/1.1\n", 0, 100).ok());
    CHECK(absl::IsResourceExhausted(FindHeadEnd(std::string(101, 'a'), 0, 100).status()));
    CHECK(absl::IsResourceExhausted(FindHeadEnd(head, 0, head.size() - 1).status()));
  }

  TEST_CASE("the length of a body is one thing to every reader, or refused") {
    CHECK(BodyRefusal("Content-Length: 5\r\n") == "accepted");
    CHECK(BodyRefusal("Transfer-Encoding: chunked\r\n") == "accepted");
    CHECK(BodyRefusal("Transfer-Encoding: Chunked\r\n") == "accepted");
    CHECK(BodyRefusal("") == "accepted");
    for (const char* headers : {
             "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
             "Content-Length: 5\r\nContent-Length: 5\r\n",
             "Content-Length: 5\r\ncontent-length: 6\r\n",
             "Content-Length: 5, 5\r\n",
             "Content-Length: +5\r\n",
             "Content-Length: -1\r\n",
             "Content-Length: 0x5\r\n",
             "Content-Length: 5 5\r\n",
             "Content-Length:\r\n",
             "Content-Length: 99999999999999999999\r\n",
             "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
             "Transfer-Encoding: gzip, chunked\r\n",
             "Transfer-Encoding: xchunked\r\n",
             "Transfer-Encoding: chunked, identity\r\n",
             "Transfer-Encoding:\r\n",
         }) {
      CAPTURE(headers);
      CHECK(BodyRefusal(headers) != "accepted");
    }
    CHECK(BodyRefusal("Transfer-Encoding: chunked\r\n", 0) != "accepted");
  }

  TEST_CASE("a reply's body ends where HTTP says") {
    const auto kind = [](const std::string& head, const char* method) {
      const auto parsed = ParseResponseHead(head);
      REQUIRE(parsed.ok());
      const auto framing = FramingOf(*parsed, method);
      REQUIRE(framing.ok());
      return framing->kind;
    };
    CHECK(kind("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "GET") == Framing::Kind::kLength);
    CHECK(kind("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "HEAD") == Framing::Kind::kNone);
    CHECK(kind("HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", "GET") ==
          Framing::Kind::kNone);
    CHECK(kind("HTTP/1.1 204 \r\n\r\n", "GET") == Framing::Kind::kNone);
    CHECK(kind("HTTP/1.0 200\r\n\r\n", "GET") == Framing::Kind::kUntilClose);
    CHECK_FALSE(ParseResponseHead("HTTP/1.1 99 x\r\n\r\n").ok());
    CHECK_FALSE(ParseResponseHead("HTTP/1.1 2000\r\n\r\n").ok());
    CHECK_FALSE(ParseResponseHead("ICY 200 OK\r\n\r\n").ok());
  }
}

}  // namespace
}  // namespace creel::egress
