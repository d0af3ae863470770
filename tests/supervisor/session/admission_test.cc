#include "supervisor/session/admission.h"

#include <doctest/doctest.h>

#include <string>

namespace creel {
namespace {

using std::chrono::seconds;
using std::chrono::steady_clock;

TEST_SUITE("Admission") {
  const steady_clock::time_point kStart{std::chrono::hours(1)};

  TEST_CASE("each limit refuses by its name") {
    SessionsConfig limits;
    limits.max = 3;
    limits.max_per_sender = 2;
    limits.opens_per_minute = 2;
    Admission admission(limits, kStart);
    const auto refusal = [&](size_t open, size_t by_sender, const char* sender) {
      const absl::Status status = admission.Admit(open, by_sender, sender, kStart);
      CHECK(status.code() == absl::StatusCode::kResourceExhausted);
      return std::string(status.message());
    };
    CHECK(refusal(3, 0, "a").find("sessions.max ") != std::string::npos);
    CHECK(refusal(2, 2, "a").find("sessions.max_per_sender") != std::string::npos);
    CHECK(admission.Admit(2, 2, "", kStart).ok());  // an unknown sender is not counted
    CHECK(admission.Admit(2, 1, "a", kStart).ok());
    CHECK(refusal(2, 1, "a").find("try again in 30.0 s") != std::string::npos);
    // A refusal takes nothing from the rate.
    CHECK(admission.Admit(2, 1, "a", kStart + seconds(30)).ok());
    CHECK_FALSE(admission.AdmitRenewal(kStart + seconds(30)).ok());
  }

  TEST_CASE("the rate does not add up without end, and new limits count at once") {
    SessionsConfig limits;
    limits.opens_per_minute = 2;
    Admission admission(limits, kStart);
    const auto later = kStart + std::chrono::hours(10);
    CHECK(admission.AdmitRenewal(later).ok());
    CHECK(admission.AdmitRenewal(later).ok());
    CHECK_FALSE(admission.AdmitRenewal(later).ok());
    limits.max = 1;
    admission.SetLimits(limits);
    CHECK_FALSE(admission.Admit(1, 0, "", later + seconds(60)).ok());
  }
}

}  // namespace
}  // namespace creel
