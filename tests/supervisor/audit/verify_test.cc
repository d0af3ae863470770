// Everything that can be done to a record after it was written, and that it shows.
#include "supervisor/audit/verify.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <string>

#include "tests/supervisor/audit/audit_world.h"

namespace creel {
namespace {

namespace fs = std::filesystem;

// 22 records: a beginning, ten calls of two each, and a checkpoint.
struct Written : AuditWorld {
  Written() {
    Open();
    Fill();
    Close();
    REQUIRE(Verify().sound);
    lines = Lines();
    REQUIRE(lines.size() == 22);
  }
  std::vector<std::string> lines;
};

// The line with another text in it and all hashes made anew from there on, as somebody would do
// who knows how the record is made but has not its key.
std::vector<std::string> Forge(std::vector<std::string> lines, size_t from) {
  std::string previous(ParseFrame(lines[from])->prev);
  for (size_t i = from; i < lines.size(); ++i) {
    AuditEvent event{std::string(ParseFrame(lines[i])->event)};
    for (const auto& [key, value] : FieldsOf(lines[i])) {
      if (key == "summary" || key == "session" || key == "tool" || key == "signature") {
        event.Text(key == "summary"   ? "summary"
                   : key == "session" ? "session"
                   : key == "tool"    ? "tool"
                                      : "signature",
                   i == from && key == "summary" ? "harmless" : value);
      }
      if (key == "key") {
        event.Text("key", value);
      }
    }
    LineWriter::Line line =
        LineWriter::Write(event, ParseFrame(lines[i])->seq, previous,
                          std::chrono::system_clock::time_point(), SecretMask());
    line.text.pop_back();
    lines[i] = line.text;
    previous = line.hash;
  }
  return lines;
}

TEST_SUITE("Verify") {
  TEST_CASE("what was written is sound, and the report says what it is") {
    const Written world;
    const VerifyReport report = world.Verify();
    CHECK(report.records == 22);
    CHECK(report.first_seq == 1);
    CHECK(report.last_seq == 22);
    CHECK(report.checkpoints == 1);
    CHECK(report.last_checkpoint == 22);
    CHECK(report.bad_seq == 0);
    CHECK(report.notes.empty());
  }

  TEST_CASE("a changed record is named") {
    Written world;
    for (const size_t i : {size_t{0}, size_t{9}, size_t{21}}) {
      std::vector<std::string> lines = world.lines;
      const size_t at = lines[i].find("2026");
      lines[i][at] = '1';
      world.SetLines(lines);
      const VerifyReport report = world.Verify();
      CHECK_FALSE(report.sound);
      CHECK(report.bad_seq == i + 1);
      CHECK(report.line == i + 1);
      CHECK(report.problem.find("changed") != std::string::npos);
    }
  }

  TEST_CASE("a dropped record is named") {
    Written world;
    for (const size_t i : {size_t{0}, size_t{9}}) {
      std::vector<std::string> lines = world.lines;
      lines.erase(lines.begin() + static_cast<long>(i));
      world.SetLines(lines);
      const VerifyReport report = world.Verify();
      CHECK_FALSE(report.sound);
      CHECK(report.bad_seq == i + 1);
    }
  }

  TEST_CASE("an inserted record is named, a copy and a made-up one") {
    Written world;
    std::vector<std::string> lines = world.lines;
    lines.insert(lines.begin() + 9, lines[3]);
    world.SetLines(lines);
    CHECK(world.Verify().bad_seq == 10);

    lines = world.lines;
    std::string made_up = LineWriter::Write(AuditEvent("call.allowed"), 10,
                                            ParseFrame(lines[9])->prev, {}, SecretMask())
                              .text;
    made_up.pop_back();
    lines.insert(lines.begin() + 9, made_up);
    world.SetLines(lines);
    const VerifyReport report = world.Verify();
    CHECK_FALSE(report.sound);
    // The made-up one fits what is before it; the true one, which it displaces, comes after.
    CHECK((report.bad_seq == 10 || report.bad_seq == 11));
  }

  TEST_CASE("two records that changed places are named") {
    Written world;
    std::vector<std::string> lines = world.lines;
    std::swap(lines[9], lines[10]);
    world.SetLines(lines);
    CHECK(world.Verify().bad_seq == 10);
  }

  TEST_CASE("an end that was cut off is named by where it began") {
    Written world;
    std::vector<std::string> lines = world.lines;
    lines.resize(15);
    world.SetLines(lines);
    const VerifyReport report = world.Verify();
    CHECK_FALSE(report.sound);
    CHECK(report.bad_seq == 16);
    // Files alone cannot show it, and the report says so.
    const VerifyReport alone = world.Verify(/*with_head=*/false);
    CHECK(alone.sound);
    CHECK(alone.notes.size() == 1);
    fs::remove(world.Files()[0].path);
    CHECK(world.Verify().bad_seq == 1);
  }

  TEST_CASE("a cut end is told at the next start, and still shows when the record has grown") {
    Written world;
    std::vector<std::string> lines = world.lines;
    lines.resize(15);
    world.SetLines(lines);
    world.Open();
    CHECK(world.log->findings().size() == 1);
    world.Fill(20);
    world.Close();
    CHECK(world.Verify().bad_seq == 16);
  }

  TEST_CASE("an older copy put in place of the file is named by the first record it lacks") {
    AuditWorld world;
    world.Open();
    world.Fill();
    world.Close();
    const std::string older = AuditWorld::Read(world.Files()[0].path);
    world.Open();
    world.Fill();
    world.Close();
    REQUIRE(world.Verify().sound);
    AuditWorld::Write(world.Files()[0].path, older);
    CHECK(world.Verify().bad_seq == 23);
  }

  TEST_CASE("a file that is replayed, missing or doubled among several is named") {
    AuditWorld world;
    world.Open();
    for (int day = 0; day < 3; ++day) {
      world.Fill();
      world.clock.Move(std::chrono::hours(24));
    }
    world.Close();
    REQUIRE(world.Files().size() == 4);  // the last holds the checkpoint
    REQUIRE(world.Verify().sound);
    const std::vector<RecordFile> files = world.Files();
    const std::string second = AuditWorld::Read(files[1].path);

    AuditWorld::Write(files[1].path, second.substr(0, second.size() / 2));
    CHECK(world.Verify().bad_seq > files[1].first_seq);
    fs::remove(files[1].path);
    CHECK(world.Verify().bad_seq == files[1].first_seq);
    AuditWorld::Write(files[1].path, AuditWorld::Read(files[0].path));
    CHECK(world.Verify().bad_seq == files[1].first_seq);
    AuditWorld::Write(files[1].path, second);
    REQUIRE(world.Verify().sound);
    AuditWorld::Write(world.options.directory + "/record-2026-11-30-000000000030.jsonl", second);
    CHECK(world.Verify().bad_seq == 30);
    fs::remove(world.options.directory + "/record-2026-11-30-000000000030.jsonl");
    // The oldest: nothing tells that it was removed for its age.
    fs::remove(files[0].path);
    CHECK(world.Verify().bad_seq == 1);
  }

  TEST_CASE("one changed record with a hash made anew does not fit the next") {
    Written world;
    std::vector<std::string> lines = world.lines;
    const std::vector<std::string> forged = Forge(world.lines, 9);
    lines[9] = forged[9];
    world.SetLines(lines);
    const VerifyReport report = world.Verify();
    CHECK_FALSE(report.sound);
    CHECK(report.bad_seq == 10);
  }

  TEST_CASE("a chain made anew has no signature, and another head than the one known") {
    Written world;
    world.SetLines(Forge(world.lines, 9));
    const VerifyReport signature = world.Verify(/*with_head=*/false);
    CHECK_FALSE(signature.sound);
    CHECK(signature.problem.find("signature") != std::string::npos);
    // Without the last checkpoint only the head gives it away.
    std::vector<std::string> lines = Forge(world.lines, 9);
    lines.pop_back();
    world.SetLines(lines);
    CHECK_FALSE(world.Verify().sound);
  }

  TEST_CASE("a checkpoint by another key is refused") {
    Written world;
    AuditWorld other;
    other.Open();
    VerifyOptions options;
    options.public_keys = {other.log->key().public_key()};
    const absl::StatusOr<VerifyReport> report = VerifyRecord(world.options.directory, options);
    REQUIRE(report.ok());
    CHECK_FALSE(report->sound);
    CHECK(report->problem.find("key") != std::string::npos);
  }

  TEST_CASE("an exported part is verified on its own") {
    const Written world;
    const std::string part = world.top + "/part.jsonl";
    std::string text;
    for (size_t i = 10; i < world.lines.size(); ++i) {
      text += world.lines[i] + "\n";
    }
    AuditWorld::Write(part, text);
    absl::StatusOr<VerifyReport> report = VerifyRecord(part, {});
    REQUIRE(report.ok());
    CHECK(report->sound);
    CHECK(report->first_seq == 11);
    text[text.find("exec")] = 'E';
    AuditWorld::Write(part, text);
    report = VerifyRecord(part, {});
    REQUIRE(report.ok());
    CHECK_FALSE(report->sound);
    CHECK(absl::IsNotFound(VerifyRecord(world.top + "/none", {}).status()));
  }
}

}  // namespace
}  // namespace creel
