#include "supervisor/audit/audit_log.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "tests/supervisor/audit/audit_world.h"

namespace creel {
namespace {

namespace fs = std::filesystem;

bool Eventually(const std::function<bool()>& holds) {
  const Deadline until = After(std::chrono::seconds(20));
  while (!holds()) {
    if (std::chrono::steady_clock::now() > until) {
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

TEST_SUITE("AuditLog") {
  TEST_CASE("it goes on over restarts as one chain") {
    AuditWorld world;
    for (int i = 0; i < 3; ++i) {
      world.Open();
      CHECK(world.log->findings().empty());
      world.Fill();
      world.Close();
    }
    const VerifyReport report = world.Verify();
    CAPTURE(report.problem);
    CHECK(report.sound);
    CHECK(report.records == 1 + 3 * 21);
    CHECK(report.checkpoints == 3);
  }

  TEST_CASE("files and folder are for their owner alone") {
    AuditWorld world;
    world.Open();
    world.Fill();
    struct stat info {};
    REQUIRE(::stat(world.options.directory.c_str(), &info) == 0);
    CHECK((info.st_mode & 0777) == 0700);
    REQUIRE(::stat(world.Files()[0].path.c_str(), &info) == 0);
    CHECK((info.st_mode & 0777) == 0600);
  }

  TEST_CASE("a line is with the kernel when Append returns") {
    AuditWorld world;
    world.Open();
    REQUIRE(world.log->Append(AuditEvent("call.allowed").Text("tool", "exec")).ok());
    CHECK(world.CountOf("call.allowed") == 1);
  }

  TEST_CASE("a torn last line is told, kept aside, and the chain goes on") {
    AuditWorld world;
    world.Open();
    world.Fill();
    world.Close();
    const std::string path = world.Files()[0].path;
    const std::string whole = AuditWorld::Read(path);
    const std::string half = "{\"seq\":23,\"prev\":\"abc";
    AuditWorld::Write(path, whole + half);
    CHECK(world.Verify().sound);
    CHECK(world.Verify().notes.size() == 1);
    world.Open();
    REQUIRE(world.log->findings().size() == 1);
    world.Fill();
    world.Close();
    CHECK(world.CountOf("record.torn") == 1);
    const VerifyReport report = world.Verify();
    CAPTURE(report.problem);
    CHECK(report.sound);
    CHECK(report.notes.size() == 1);
    int kept = 0;
    for (const auto& entry : fs::directory_iterator(world.options.directory)) {
      if (entry.path().filename().string().starts_with("torn-")) {
        CHECK(AuditWorld::Read(entry.path()) == half);
        ++kept;
      }
    }
    CHECK(kept == 1);
  }

  TEST_CASE("whole lines at the end that are no records are damage, not a torn line") {
    AuditWorld world;
    world.Open();
    world.Fill();
    world.Close();
    const std::string path = world.Files()[0].path;
    AuditWorld::Write(path, AuditWorld::Read(path) + "rubbish\nmore rubbish");
    CHECK(world.Verify().bad_seq == 23);
    world.Open();
    world.Fill();
    world.Close();
    CHECK(world.CountOf("record.damaged") == 1);
    CHECK_FALSE(world.Verify().sound);
  }

  TEST_CASE("a file with nothing whole in it is set aside, and the one before goes on") {
    AuditWorld world;
    world.Open();
    world.Fill();
    world.Close();
    world.clock.Move(std::chrono::hours(24));
    const std::string empty = world.options.directory + "/" + RecordFileName(world.clock.Now(), 23);
    AuditWorld::Write(empty, "{\"seq\":23,");
    world.Open();
    world.Fill();
    world.Close();
    const VerifyReport report = world.Verify();
    CAPTURE(report.problem);
    CHECK(report.sound);
    CHECK(world.CountOf("record.torn") == 1);
  }

  TEST_CASE("a day has its file, and so has a clock that was set back") {
    AuditWorld world;
    world.Open();
    world.Fill(1);
    world.clock.Move(std::chrono::hours(12) - std::chrono::seconds(1));
    world.Fill(1);
    CHECK(world.Files().size() == 1);
    world.clock.Move(std::chrono::seconds(2));
    world.Fill(1);
    CHECK(world.Files().size() == 2);
    world.clock.Move(-std::chrono::hours(1));
    world.Fill(1);
    world.Close();
    world.Open();
    world.Fill(1);
    world.Close();
    const VerifyReport report = world.Verify();
    CAPTURE(report.problem);
    CHECK(report.sound);
  }

  TEST_CASE("a full file is followed by another of the same day") {
    AuditWorld world;
    world.options.max_file_bytes = 4096;
    world.Open();
    world.Fill(50);
    world.Close();
    CHECK(world.Files().size() > 3);
    for (const RecordFile& file : world.Files()) {
      CHECK(fs::file_size(file.path) < 8192);
    }
    CHECK(world.Verify().sound);
  }

  TEST_CASE("old files go, the record tells of it, and it still verifies") {
    AuditWorld world;
    world.options.keep = std::chrono::hours(48);
    world.options.sync_every = std::chrono::milliseconds(5);
    world.Open();
    world.Fill();
    REQUIRE(world.log->Sync().ok());
    const std::string first = world.Files()[0].path;
    // Files carry the time of their last writing, which the test's clock does not move.
    world.Close();
    fs::last_write_time(first, fs::file_time_type::clock::now() - std::chrono::hours(24 * 400));
    world.clock.Move(std::chrono::hours(24));
    world.Open();
    world.Fill();
    CHECK(Eventually([&] { return !fs::exists(first); }));
    world.Close();
    CHECK(world.CountOf("record.removed") == 1);
    const VerifyReport report = world.Verify();
    CAPTURE(report.problem);
    CHECK(report.sound);
    CHECK(report.first_seq > 1);
    CHECK(report.notes.size() == 1);
  }

  TEST_CASE("checkpoints follow after so many records, and after a time") {
    AuditWorld world;
    world.options.sync_every = std::chrono::milliseconds(5);
    world.options.checkpoint_records = 10;
    std::atomic<int> anchored = 0;
    world.options.anchor = [&](const std::string&) { ++anchored; };
    world.Open();
    world.Fill();
    CHECK(Eventually([&] { return world.CountOf("checkpoint") >= 1; }));
    CHECK(Eventually([&] { return anchored >= 1; }));
    world.options.checkpoint_records = 1'000'000;
    world.options.checkpoint_every = std::chrono::seconds(0);
    world.Open();
    const int before = world.CountOf("checkpoint");
    world.Fill(1);
    CHECK(Eventually([&] { return world.CountOf("checkpoint") > before; }));
    world.Close();
    CHECK(world.Verify().sound);
  }

  TEST_CASE("the head is told once its records are on the disk") {
    AuditWorld world;
    world.Open();
    world.Fill();
    CHECK_FALSE(world.known.has_value());
    REQUIRE(world.log->AppendDurable(AuditEvent("incident.opening")).ok());
    REQUIRE(world.known.has_value());
    CHECK(world.known->seq == 22);
    CHECK(*world.known == world.log->head());
  }

  TEST_CASE("a file that is removed while it is written is noticed, and shows") {
    AuditWorld world;
    world.options.sync_every = std::chrono::milliseconds(5);
    world.Open();
    world.Fill();
    fs::remove_all(world.options.directory);
    CHECK(Eventually([&] {
      return fs::exists(world.options.directory) && world.CountOf("record.file_gone") == 1;
    }));
    world.Fill();
    world.log->Sync().IgnoreError();
    VerifyOptions verify;
    verify.head = world.known;
    const absl::StatusOr<VerifyReport> report = VerifyRecord(world.options.directory, verify);
    REQUIRE(report.ok());
    CHECK_FALSE(report->sound);
    CHECK(report->bad_seq == 1);
  }

  TEST_CASE("many threads write one chain") {
    AuditWorld world;
    world.options.max_file_bytes = 64 << 10;
    world.options.sync_every = std::chrono::milliseconds(1);
    world.options.checkpoint_records = 50;
    world.Open();
    std::vector<std::thread> threads;
    std::atomic<int> failed = 0;
    for (int t = 0; t < 8; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 250; ++i) {
          failed += world.log->Append(AuditEvent("call.allowed").Number("call", i)).ok() ? 0 : 1;
        }
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    world.Close();
    CHECK(failed == 0);
    CHECK(world.CountOf("call.allowed") == 2000);
    const VerifyReport report = world.Verify();
    CAPTURE(report.problem);
    CHECK(report.sound);
  }

  TEST_CASE("one who waits for a record is woken by it") {
    AuditWorld world;
    world.Open();
    const uint64_t seq = world.log->head().seq;
    CHECK_FALSE(world.log->WaitBeyond(seq, After(std::chrono::milliseconds(10))));
    std::thread writer([&] { world.log->Keep(AuditEvent("x")); });
    CHECK(world.log->WaitBeyond(seq, After(std::chrono::seconds(20))));
    writer.join();
  }
}

}  // namespace
}  // namespace creel
