#include "supervisor/base/status.h"

#include <doctest/doctest.h>

#include <cerrno>

namespace creel {
namespace {

absl::StatusOr<int> Half(int value) {
  if (value % 2 != 0) {
    return absl::InvalidArgumentError("odd");
  }
  return value / 2;
}

absl::StatusOr<int> Quarter(int value) {
  ASSIGN_OR_RETURN(const int half, Half(value));
  return Half(half);
}

TEST_SUITE("Status") {
  TEST_CASE("an errno becomes the code that callers act on") {
    CHECK(ErrnoStatus(ENOENT, "open 'x'").code() == absl::StatusCode::kNotFound);
    CHECK(ErrnoStatus(ENOSPC, "write 'x'").code() == absl::StatusCode::kResourceExhausted);
    CHECK(ErrnoStatus(EACCES, "open 'x'").message() == "open 'x': Permission denied");
  }

  TEST_CASE("ASSIGN_OR_RETURN hands an error on and a value in") {
    CHECK(Quarter(8).value() == 2);
    CHECK(Quarter(6).status().message() == "odd");
  }

  TEST_CASE("Annotate keeps the code and leaves OK alone") {
    CHECK(Annotate(absl::OkStatus(), "x").ok());
    CHECK(Annotate(absl::NotFoundError("gone"), "image").message() == "image: gone");
  }
}

}  // namespace
}  // namespace creel
