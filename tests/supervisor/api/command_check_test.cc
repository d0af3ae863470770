#include "supervisor/api/command_check.h"

#include <doctest/doctest.h>

#include <string>

#include "supervisor/api/status_map.h"

using namespace creel;  // NOLINT: a test of one room

TEST_SUITE("CheckInput") {
  TEST_CASE("each kind of input has its bounds") {
    shim::v1::ProcessInput input;
    CHECK(!CheckInput(input).ok());
    input.set_stdin(std::string(1u << 20, 'x'));
    CHECK(CheckInput(input).ok());
    input.set_stdin(std::string((1u << 20) + 1, 'x'));
    CHECK(!CheckInput(input).ok());
    for (const int signal : {-1, 0, 65}) {
      CAPTURE(signal);
      input.set_signal(signal);
      CHECK(!CheckInput(input).ok());
    }
    input.set_signal(9);
    CHECK(CheckInput(input).ok());
    input.mutable_resize()->set_columns(100'000);
    CHECK(!CheckInput(input).ok());
    input.mutable_stop()->mutable_grace()->set_seconds(10'000);
    CHECK(!CheckInput(input).ok());
    input.mutable_stop()->mutable_grace()->set_seconds(10);
    CHECK(CheckInput(input).ok());
    input.mutable_close_stdin();
    CHECK(CheckInput(input).ok());
  }
}

TEST_SUITE("CheckProcessId") {
  TEST_CASE("letters, digits, dash and underscore, at most 64") {
    CHECK(CheckProcessId("", true).ok());
    CHECK(!CheckProcessId("", false).ok());
    CHECK(CheckProcessId("a-Z_9", false).ok());
    CHECK(CheckProcessId(std::string(64, 'a'), false).ok());
    CHECK(!CheckProcessId(std::string(65, 'a'), false).ok());
    CHECK(!CheckProcessId("a/b", false).ok());
    CHECK(!CheckProcessId("\xc3\xa4", false).ok());
  }
}

TEST_SUITE("Summary") {
  TEST_CASE("a command is shown on one bounded line") {
    shim::v1::CommandSpec spec;
    spec.add_argv("echo");
    spec.add_argv("a\nb");
    CHECK(Summary(spec) == "echo a\\x0ab");
    spec.add_argv(std::string(100'000, 'x'));
    CHECK(Summary(spec).size() <= 256);
  }
}

TEST_SUITE("status map") {
  TEST_CASE("a shim's error is bounded, printable, and of a known kind") {
    const grpc::Status odd =
        FromShim({static_cast<grpc::StatusCode>(15), "\x1b]0;x\x07" + std::string(5000, 'y')});
    CHECK(odd.error_code() == grpc::StatusCode::INTERNAL);
    CHECK(odd.error_message().size() < 1200);
    CHECK(odd.error_message().find('\x1b') == std::string::npos);
    CHECK(FromShim({grpc::StatusCode::NOT_FOUND, "no such file"}).error_message() ==
          "no such file");
    CHECK(FromShim({grpc::StatusCode::CANCELLED, ""}).error_code() == grpc::StatusCode::INTERNAL);
  }

  TEST_CASE("our errors keep code and text") {
    const grpc::Status status = ToGrpc(absl::ResourceExhaustedError("200 sandboxes run"));
    CHECK(status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
    CHECK(Outcome(status) == "RESOURCE_EXHAUSTED: 200 sandboxes run");
    CHECK(Outcome(ToGrpc(absl::OkStatus())) == "ok");
  }
}
