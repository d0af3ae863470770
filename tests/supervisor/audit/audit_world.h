#pragma once

#include <doctest/doctest.h>
#include <stdlib.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "supervisor/audit/audit_log.h"
#include "supervisor/audit/line.h"
#include "supervisor/audit/record_files.h"
#include "supervisor/audit/verify.h"
#include "supervisor/base/mutex.h"

namespace creel {

class MovableClock final : public Clock {
 public:
  [[nodiscard]] std::chrono::system_clock::time_point Now() const override {
    MutexLock hold(mu_);
    return now_;
  }
  [[nodiscard]] std::chrono::steady_clock::time_point Steady() const override {
    return std::chrono::steady_clock::now();
  }
  void Move(std::chrono::seconds by) {
    MutexLock hold(mu_);
    now_ += by;
  }

 private:
  mutable Mutex mu_;
  // Noon, 2026-11-27.
  std::chrono::system_clock::time_point now_ ABSL_GUARDED_BY(mu_){
      std::chrono::seconds(1'795'780'800)};
};

// A record in a folder of its own, and what another place knows of it.
class AuditWorld {
 public:
  AuditWorld() {
    char folder[] = "/tmp/creel-audit-XXXXXX";
    REQUIRE(::mkdtemp(folder) != nullptr);
    top = folder;
    options.directory = top + "/record";
    options.install_id = "0123456789abcdef";
    // Nothing is written behind the test's back.
    options.sync_every = std::chrono::hours(1);
    options.save_head = [this](const AuditHead& head) { known = head; };
  }
  ~AuditWorld() {
    log.reset();
    std::filesystem::remove_all(top);
  }

  void Open() {
    log.reset();
    options.known_head = known;
    absl::StatusOr<std::unique_ptr<AuditLog>> opened = AuditLog::Open(options, clock);
    const std::string why(opened.status().message());
    CAPTURE(why);
    REQUIRE(opened.ok());
    log = *std::move(opened);
  }
  void Close() { log.reset(); }
  // Ten calls, each with its outcome.
  void Fill(int calls = 10) {
    for (int i = 0; i < calls; ++i) {
      REQUIRE(log->Append(AuditEvent("call.allowed")
                              .Number("call", i)
                              .Text("session", "agent:main:whatsapp:group:1")
                              .Text("tool", "exec")
                              .Text("summary", "ls " + std::to_string(i)))
                  .ok());
      log->Keep(AuditEvent("call.ended").Number("call", i).Text("outcome", "exit 0"));
    }
  }

  [[nodiscard]] std::vector<RecordFile> Files() const {
    absl::StatusOr<std::vector<RecordFile>> files = ListRecordFiles(options.directory);
    REQUIRE(files.ok());
    return *files;
  }
  [[nodiscard]] static std::string Read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
  }
  static void Write(const std::string& path, const std::string& text) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
  }
  [[nodiscard]] std::vector<std::string> Lines() const {
    std::vector<std::string> lines;
    for (const RecordFile& file : Files()) {
      std::istringstream text(Read(file.path));
      for (std::string line; std::getline(text, line);) {
        lines.push_back(line);
      }
    }
    return lines;
  }
  // Puts these lines in place of the only file's.
  void SetLines(const std::vector<std::string>& lines) const {
    REQUIRE(Files().size() == 1);
    std::string text;
    for (const std::string& line : lines) {
      text += line + "\n";
    }
    Write(Files()[0].path, text);
  }
  [[nodiscard]] VerifyReport Verify(bool with_head = true) const {
    VerifyOptions verify;
    const absl::StatusOr<std::string> key = ReadPublicKey(options.directory + "/signing-key.pub");
    REQUIRE(key.ok());
    verify.public_keys = {*key};
    if (with_head) {
      verify.head = known;
    }
    absl::StatusOr<VerifyReport> report = VerifyRecord(options.directory, verify);
    REQUIRE(report.ok());
    return *report;
  }
  [[nodiscard]] int CountOf(const std::string& event) const {
    int count = 0;
    for (const std::string& line : Lines()) {
      const std::optional<LineFrame> frame = ParseFrame(line);
      count += frame && frame->event == event ? 1 : 0;
    }
    return count;
  }

  std::string top;
  MovableClock clock;
  AuditLog::Options options;
  std::optional<AuditHead> known;
  std::unique_ptr<AuditLog> log;
};

}  // namespace creel
