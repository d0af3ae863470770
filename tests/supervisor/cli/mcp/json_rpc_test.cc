#include "supervisor/cli/mcp/json_rpc.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "supervisor/base/unique_fd.h"

using namespace creel::cli::mcp;  // NOLINT: a test of one room

namespace {

const BadMessage* Refused(const std::variant<Message, StrayResponse, BadMessage>& parsed) {
  return std::get_if<BadMessage>(&parsed);
}

}  // namespace

TEST_SUITE("JsonRpc") {
  TEST_CASE("requests, notifications and responses are told apart") {
    const auto request =
        ParseMessage(R"({"jsonrpc":"2.0","id":"a","method":"m","params":{"x":1}})");
    REQUIRE(std::holds_alternative<Message>(request));
    CHECK(std::get<Message>(request).id == Json("a"));
    CHECK(std::get<Message>(request).params["x"] == 1);
    const auto note = ParseMessage(R"({"jsonrpc":"2.0","method":"m"})");
    REQUIRE(std::holds_alternative<Message>(note));
    CHECK_FALSE(std::get<Message>(note).id.has_value());
    CHECK(std::holds_alternative<StrayResponse>(
        ParseMessage(R"({"jsonrpc":"2.0","id":1,"result":{}})")));
  }

  TEST_CASE("what is not a message is refused with the protocol's code") {
    struct Row {
      const char* line;
      ErrorCode code;
    };
    const std::vector<Row> rows = {
        {"", ErrorCode::kParseError},
        {"{", ErrorCode::kParseError},
        {"\"text\"", ErrorCode::kInvalidRequest},
        {"[]", ErrorCode::kInvalidRequest},
        {R"({"id":1,"method":"m"})", ErrorCode::kInvalidRequest},
        {R"({"jsonrpc":"2.0","id":1.5,"method":"m"})", ErrorCode::kInvalidRequest},
        {R"({"jsonrpc":"2.0","id":{},"method":"m"})", ErrorCode::kInvalidRequest},
        {R"({"jsonrpc":"2.0","id":1})", ErrorCode::kInvalidRequest},
        {R"({"jsonrpc":"2.0","id":1,"method":"m","params":"p"})", ErrorCode::kInvalidParams}};
    for (const Row& row : rows) {
      CAPTURE(row.line);
      const auto parsed = ParseMessage(row.line);
      REQUIRE(Refused(parsed) != nullptr);
      CHECK(Refused(parsed)->error.code == row.code);
    }
  }

  TEST_CASE("nesting without end neither recurses nor is taken") {
    for (const char bracket : {'[', '{'}) {
      const auto parsed = ParseMessage(std::string(5'000'000, bracket));
      REQUIRE(Refused(parsed) != nullptr);
      CHECK(Refused(parsed)->error.code == ErrorCode::kInvalidRequest);
    }
    // Brackets within a text are none.
    const std::string text(1000, '[');
    CHECK(std::holds_alternative<Message>(
        ParseMessage(R"({"jsonrpc":"2.0","method":"\")" + text + "\"}")));
  }

  TEST_CASE("a line that is too long is skipped, and the next one is read") {
    int pipe_fds[2];
    REQUIRE(pipe2(pipe_fds, O_CLOEXEC) == 0);
    const creel::UniqueFd out(pipe_fds[0]);
    creel::UniqueFd in(pipe_fds[1]);
    const std::string text = "short\n" + std::string(200, 'x') + "\nnext\nlast without an end";
    REQUIRE(write(in.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    in.reset();
    LineReader reader(out.get(), 100);
    std::string line;
    CHECK(reader.Next(line) == LineReader::Outcome::kLine);
    CHECK(line == "short");
    CHECK(reader.Next(line) == LineReader::Outcome::kTooLong);
    CHECK(reader.Next(line) == LineReader::Outcome::kLine);
    CHECK(line == "next");
    CHECK(reader.Next(line) == LineReader::Outcome::kLine);
    CHECK(line == "last without an end");
    CHECK(reader.Next(line) == LineReader::Outcome::kEnd);
  }

  TEST_CASE("output that is not UTF-8 goes out as UTF-8, a line each") {
    int pipe_fds[2];
    REQUIRE(pipe2(pipe_fds, O_CLOEXEC) == 0);
    const creel::UniqueFd out(pipe_fds[0]);
    const creel::UniqueFd in(pipe_fds[1]);
    Writer writer(in.get());
    writer.Result(1, {{"text", "a\xff\nb"}});
    std::string text(4096, '\0');
    text.resize(static_cast<size_t>(read(out.get(), text.data(), text.size())));
    CHECK(text.find('\n') == text.size() - 1);
    CHECK(Json::parse(text)["result"]["text"] == "a\xef\xbf\xbd\nb");
  }
}
