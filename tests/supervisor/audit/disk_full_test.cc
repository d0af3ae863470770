// A file system that is really full, or really read-only: a small tmpfs of the test's own.
#include <doctest/doctest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "tests/supervisor/audit/audit_world.h"

namespace creel {
namespace {

namespace fs = std::filesystem;

struct SmallDisk : AuditWorld {
  SmallDisk() {
    disk = top + "/disk";
    fs::create_directory(disk);
    REQUIRE_MESSAGE(::mount("creel-test", disk.c_str(), "tmpfs", MS_NOSUID | MS_NODEV,
                            "size=128k,mode=0700") == 0,
                    "this test mounts, and needs root");
    options.directory = disk + "/record";
  }
  ~SmallDisk() {
    Close();
    ::umount2(disk.c_str(), MNT_DETACH);
  }
  void FillDisk() const {
    std::ofstream file(disk + "/ballast", std::ios::binary);
    const std::string piece(1024, 'x');
    while (file.write(piece.data(), static_cast<long>(piece.size())) && file.flush()) {
    }
  }
  // Appends until it fails.
  absl::Status Exhaust() {
    for (int i = 0; i < 10'000; ++i) {
      const absl::Status status = log->Append(AuditEvent("call.allowed").Number("call", i));
      if (!status.ok()) {
        return status;
      }
    }
    return absl::OkStatus();
  }
  std::string disk;
};

TEST_SUITE("DiskFull") {
  TEST_CASE("a record that finds no room is refused, and goes on by itself when there is some") {
    SmallDisk world;
    world.Open();
    world.Fill();
    world.FillDisk();
    const absl::Status refused = world.Exhaust();
    CHECK(absl::IsResourceExhausted(refused));
    CHECK(std::string(refused.message()).find("No space left") != std::string::npos);
    CHECK_FALSE(world.log->Health().ok());
    CHECK_FALSE(world.log->Append(AuditEvent("call.allowed")).ok());
    // What has happened all the same is kept.
    world.log->Keep(AuditEvent("call.ended").Text("outcome", "while the disk was full"));
    // No half line stands in the file.
    CHECK(world.Verify().sound);

    fs::remove(world.disk + "/ballast");
    CHECK(world.log->Append(AuditEvent("call.allowed").Text("tool", "after")).ok());
    CHECK(world.log->Health().ok());
    world.Close();
    const VerifyReport report = world.Verify();
    CAPTURE(report.problem);
    CHECK(report.sound);
    CHECK(world.CountOf("record.resumed") == 1);
    const std::vector<std::string> lines = world.Lines();
    size_t outcome = 0;
    size_t after = 0;
    for (size_t i = 0; i < lines.size(); ++i) {
      outcome = lines[i].find("while the disk was full") != std::string::npos ? i : outcome;
      after = lines[i].find("\"tool\":\"after\"") != std::string::npos ? i : after;
    }
    CHECK(outcome > 0);
    CHECK(after > outcome);
  }

  TEST_CASE("the timer writes what was kept, though nobody asks") {
    SmallDisk world;
    world.options.sync_every = std::chrono::milliseconds(5);
    world.Open();
    world.FillDisk();
    REQUIRE_FALSE(world.Exhaust().ok());
    world.log->Keep(AuditEvent("call.ended").Text("outcome", "kept"));
    fs::remove(world.disk + "/ballast");
    const Deadline until = After(std::chrono::seconds(20));
    while (!world.log->Health().ok() && std::chrono::steady_clock::now() < until) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    CHECK(world.log->Health().ok());
    CHECK(world.CountOf("call.ended") == 1);
  }

  TEST_CASE("a file system that turns read-only stops the record, and coming back lets it go on") {
    SmallDisk world;
    world.Open();
    world.Fill();
    world.clock.Move(std::chrono::hours(24));  // the next record needs a new file
    REQUIRE(::mount(nullptr, world.disk.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr) != 0);
    world.Close();
    REQUIRE(::mount(nullptr, world.disk.c_str(), nullptr,
                    MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, nullptr) == 0);
    const absl::StatusOr<std::unique_ptr<AuditLog>> refused =
        AuditLog::Open(world.options, world.clock);
    CHECK_FALSE(refused.ok());
    REQUIRE(::mount(nullptr, world.disk.c_str(), nullptr, MS_REMOUNT | MS_NOSUID | MS_NODEV,
                    nullptr) == 0);
    world.Open();
    world.Fill();
    world.Close();
    CHECK(world.Verify().sound);
  }
}

}  // namespace
}  // namespace creel
