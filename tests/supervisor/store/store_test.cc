#include "supervisor/store/store.h"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "supervisor/store/schema.h"
#include "supervisor/store/sqlite.h"

namespace creel {
namespace {

using std::chrono::microseconds;
using std::chrono::system_clock;

// A folder that is removed with all that is in it.
class TempFolder {
 public:
  TempFolder() {
    char name[] = "/tmp/creel-store-XXXXXX";
    REQUIRE(::mkdtemp(name) != nullptr);
    path_ = name;
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

SessionRecord Example(const std::string& id) {
  return {.session = "agent:main:whatsapp:group:1",
          .sender = "whatsapp:+15555550123",
          .sandbox_id = id,
          .key = std::string("\0\xff key", 6),
          .tool_uid = 4'000'000'000,
          .tool_gid = 2'000'001,
          .container_id = "c0ffee",
          .image = "creel-sandbox:latest",
          .runtime = "runc",
          .workspace = "/home/me/w",
          .access = "rw",
          .spec_hash = "abc",
          .shim_sha256 = "def",
          .workspace_bound = "sized",
          .env = {{"A", ""}, {"B", "x=y\nz"}},
          .limits_json = R"({"pids":5})",
          .state = "frozen",
          .reason = "looks odd",
          .opened_at = system_clock::time_point(microseconds(1'700'000'000'000'001)),
          .last_call_at = system_clock::time_point(microseconds(1'700'000'000'000'002))};
}

mode_t ModeOf(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 ? info.st_mode & 0777 : 0;
}

std::unique_ptr<Store> MustOpen(const std::string& path) {
  absl::StatusOr<std::unique_ptr<Store>> store = Store::Open(path);
  const std::string why(store.status().message());
  CAPTURE(why);
  REQUIRE(store.ok());
  return *std::move(store);
}

TEST_SUITE("Store") {
  TEST_CASE("a record outlives the store, byte for byte") {
    const TempFolder folder;
    const SessionRecord put = Example("0123456789abcdef");
    std::string install;
    {
      const std::unique_ptr<Store> store = MustOpen(folder.path());
      REQUIRE(store->Put(put).ok());
      install = store->install_id();
      CHECK(install.size() == 16);
    }
    const std::unique_ptr<Store> store = MustOpen(folder.path());
    CHECK(store->install_id() == install);
    CHECK(store->set_aside().empty());
    const absl::StatusOr<std::vector<SessionRecord>> records = store->List();
    REQUIRE(records.ok());
    REQUIRE(records->size() == 1);
    const SessionRecord& got = records->at(0);
    CHECK(got.session == put.session);
    CHECK(got.sender == put.sender);
    CHECK(got.sandbox_id == put.sandbox_id);
    CHECK(got.key == put.key);
    CHECK(got.tool_uid == put.tool_uid);
    CHECK(got.tool_gid == put.tool_gid);
    CHECK(got.container_id == put.container_id);
    CHECK(got.image == put.image);
    CHECK(got.runtime == put.runtime);
    CHECK(got.workspace == put.workspace);
    CHECK(got.access == put.access);
    CHECK(got.spec_hash == put.spec_hash);
    CHECK(got.shim_sha256 == put.shim_sha256);
    CHECK(got.workspace_bound == put.workspace_bound);
    CHECK(got.env == put.env);
    CHECK(got.limits_json == put.limits_json);
    CHECK(got.state == put.state);
    CHECK(got.reason == put.reason);
    CHECK(got.opened_at == put.opened_at);
    CHECK(got.last_call_at == put.last_call_at);
  }

  TEST_CASE("putting replaces, touching changes the time only, removing removes") {
    const TempFolder folder;
    const std::unique_ptr<Store> store = MustOpen(folder.path());
    SessionRecord record = Example("0000000000000001");
    REQUIRE(store->Put(record).ok());
    REQUIRE(store->Put(Example("0000000000000002")).ok());
    record.state = "running";
    REQUIRE(store->Put(record).ok());
    CHECK(store->List()->size() == 2);
    const system_clock::time_point later = record.last_call_at + std::chrono::hours(1);
    REQUIRE(store->Touch("0000000000000001", later).ok());
    const absl::StatusOr<std::vector<SessionRecord>> records = store->List();
    REQUIRE(records.ok());
    for (const SessionRecord& got : *records) {
      const bool first = got.sandbox_id == "0000000000000001";
      CHECK(got.state == (first ? "running" : "frozen"));
      CHECK(got.last_call_at == (first ? later : record.last_call_at));
    }
    REQUIRE(store->Remove("0000000000000001").ok());
    REQUIRE(store->Remove("0000000000000001").ok());
    CHECK(store->List()->size() == 1);
  }

  TEST_CASE("a state that does not exist is refused") {
    const TempFolder folder;
    const std::unique_ptr<Store> store = MustOpen(folder.path());
    SessionRecord record = Example("0000000000000001");
    record.state = "dancing";
    CHECK_FALSE(store->Put(record).ok());
    record.state = "running";
    CHECK(store->Put(record).ok());
  }

  TEST_CASE("nobody else can read what it writes, whatever the umask") {
    const TempFolder folder;
    const mode_t old = ::umask(0);
    {
      const std::unique_ptr<Store> store = MustOpen(folder.path() + "/state");
      REQUIRE(store->Put(Example("0000000000000001")).ok());
      CHECK(ModeOf(folder.path() + "/state") == 0700);
      for (const char* file : {"creel.db", "creel.db-wal", "creel.lock", "install-id"}) {
        CAPTURE(file);
        CHECK(ModeOf(folder.path() + "/state/" + file) == 0600);
      }
    }
    ::chmod((folder.path() + "/state").c_str(), 0755);
    ::chmod((folder.path() + "/state/creel.db").c_str(), 0644);
    {
      const std::unique_ptr<Store> store = MustOpen(folder.path() + "/state");
      CHECK(ModeOf(folder.path() + "/state") == 0700);
      CHECK(ModeOf(folder.path() + "/state/creel.db") == 0600);
    }
    ::umask(old);
  }

  TEST_CASE("a second supervisor is refused with the first one's pid") {
    const TempFolder folder;
    const std::unique_ptr<Store> store = MustOpen(folder.path());
    const auto refused = Store::Open(folder.path());
    CHECK(refused.status().code() == absl::StatusCode::kFailedPrecondition);
    CHECK(std::string(refused.status().message()).find(fmt::format("(pid {})", ::getpid())) !=
          std::string::npos);
  }

  TEST_CASE("a supervisor that was killed leaves no lock and no half record") {
    const TempFolder folder;
    int ready[2];
    REQUIRE(::pipe(ready) == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      const auto store = Store::Open(folder.path());
      if (store.ok()) {
        for (int i = 0;; ++i) {
          SessionRecord record = Example(fmt::format("{:016x}", i % 50));
          record.sender = std::string(5000, static_cast<char>('a' + i % 26));
          if (!(*store)->Put(record).ok()) {
            ::_exit(1);
          }
          if (i == 60 && ::write(ready[1], "x", 1) != 1) {
            ::_exit(1);
          }
        }
      }
      ::_exit(1);
    }
    char byte = 0;
    REQUIRE(::read(ready[0], &byte, 1) == 1);
    CHECK(Store::Open(folder.path()).status().code() == absl::StatusCode::kFailedPrecondition);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    ::close(ready[0]);
    ::close(ready[1]);
    const std::unique_ptr<Store> store = MustOpen(folder.path());
    CHECK(store->set_aside().empty());
    const auto records = store->List();
    REQUIRE(records.ok());
    CHECK(records->size() == 50);
    for (const SessionRecord& record : *records) {
      CHECK(record.sender.size() == 5000);
      CHECK(record.sender == std::string(5000, record.sender[0]));
    }
  }

  TEST_CASE("a damaged database is set aside, and the install stays the same") {
    const struct {
      const char* what;
      const char* bytes;
      long at;
    } kRows[] = {{"a header of something else", "this is not a database at all", 0},
                 {"pages of rubbish", nullptr, 4096}};
    for (const auto& row : kRows) {
      CAPTURE(row.what);
      const TempFolder folder;
      std::string install;
      {
        const std::unique_ptr<Store> store = MustOpen(folder.path());
        for (int i = 0; i < 100; ++i) {
          REQUIRE(store->Put(Example(fmt::format("{:016x}", i))).ok());
        }
        install = store->install_id();
      }
      const std::string file = folder.path() + "/creel.db";
      {
        std::fstream damage(file, std::ios::in | std::ios::out | std::ios::binary);
        damage.seekp(row.at);
        damage << (row.bytes != nullptr ? std::string(row.bytes) : std::string(12'288, '\xaa'));
      }
      const std::unique_ptr<Store> store = MustOpen(folder.path());
      CHECK(store->set_aside().starts_with(file + ".damaged-"));
      CHECK(std::filesystem::exists(store->set_aside()));
      CHECK(ModeOf(store->set_aside()) == 0600);
      CHECK(store->List()->empty());
      CHECK(store->install_id() == install);
      CHECK(store->Put(Example("0000000000000001")).ok());
    }
  }

  TEST_CASE("a database of a newer Creel is refused and left alone") {
    const TempFolder folder;
    { MustOpen(folder.path()); }
    {
      sqlite3* raw = nullptr;
      REQUIRE(sqlite3_open((folder.path() + "/creel.db").c_str(), &raw) == SQLITE_OK);
      const SqliteHandle db(raw);
      REQUIRE(SqliteExec(raw, "INSERT INTO migrations VALUES (999, 0)").ok());
    }
    const auto refused = Store::Open(folder.path());
    CHECK(refused.status().code() == absl::StatusCode::kFailedPrecondition);
    CHECK(std::string(refused.status().message()).find("schema 999") != std::string::npos);
    CHECK(std::filesystem::exists(folder.path() + "/creel.db"));
  }

  TEST_CASE("every schema migrates to the newest, once") {
    for (int from = 0; from <= NewestSchema(); ++from) {
      CAPTURE(from);
      sqlite3* raw = nullptr;
      REQUIRE(sqlite3_open(":memory:", &raw) == SQLITE_OK);
      const SqliteHandle db(raw);
      REQUIRE(Migrate(raw, from).ok());
      REQUIRE(Migrate(raw, NewestSchema()).ok());
      REQUIRE(Migrate(raw, NewestSchema()).ok());
      absl::StatusOr<SqliteStatement> count =
          SqliteStatement::Prepare(raw, "SELECT count(*) FROM migrations");
      REQUIRE(count.ok());
      REQUIRE(*count->Step());
      CHECK(count->Number(0) == NewestSchema());
    }
  }

  TEST_CASE("who brought a sandbox to its level is among those who reached it, after the update") {
    sqlite3* raw = nullptr;
    REQUIRE(sqlite3_open(":memory:", &raw) == SQLITE_OK);
    const SqliteHandle db(raw);
    REQUIRE(Migrate(raw, 4).ok());
    REQUIRE(SqliteExec(raw,
                       "INSERT INTO trust_levels VALUES ('s', 'friend', 'whatsapp:+1555', 7), "
                       "('t', 'friend', '', 8)")
                .ok());
    REQUIRE(Migrate(raw, NewestSchema()).ok());
    absl::StatusOr<SqliteStatement> senders =
        SqliteStatement::Prepare(raw, "SELECT name, sender, since FROM trust_senders");
    REQUIRE(senders.ok());
    REQUIRE(*senders->Step());
    CHECK(senders->Text(0) == "s");
    CHECK(senders->Text(1) == "whatsapp:+1555");
    CHECK(senders->Number(2) == 7);
    CHECK_FALSE(*senders->Step());
  }

  TEST_CASE("links in its place are not followed") {
    const TempFolder folder;
    const std::string victim = folder.path() + "/victim";
    std::ofstream(victim) << "mine";
    const std::string state = folder.path() + "/state";
    std::filesystem::create_directory(state);
    std::filesystem::create_symlink(victim, state + "/creel.db");
    CHECK_FALSE(Store::Open(state).ok());
    std::string text;
    std::ifstream(victim) >> text;
    CHECK(text == "mine");
  }

  TEST_CASE("incidents and the head of the record are there after a restart") {
    const TempFolder folder;
    {
      const std::unique_ptr<Store> store = MustOpen(folder.path());
      CHECK(store->GetRecordHead()->first == 0);
      REQUIRE(store->PutRecordHead(41, "old").ok());
      REQUIRE(store->PutRecordHead(42, "ab12").ok());
      REQUIRE(store->PutIncident({.id = "1", .state = "open", .body = "{}"}).ok());
      REQUIRE(store->PutIncident({.id = "1", .state = "thawed", .body = "{\"a\":1}"}).ok());
      REQUIRE(store->PutIncident({.id = "2", .state = "open", .body = "{}"}).ok());
    }
    const std::unique_ptr<Store> store = MustOpen(folder.path());
    CHECK(*store->GetRecordHead() == std::pair(uint64_t{42}, std::string("ab12")));
    const auto rows = store->ListIncidents();
    REQUIRE(rows.ok());
    REQUIRE(rows->size() == 2);
    CHECK((*rows)[0].state == "thawed");
    CHECK((*rows)[0].body == "{\"a\":1}");
  }

  TEST_CASE("threads use it at once") {
    const TempFolder folder;
    const std::unique_ptr<Store> store = MustOpen(folder.path());
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&store, t] {
        for (int i = 0; i < 100; ++i) {
          const std::string id = fmt::format("{:08x}{:08x}", t, i);
          const bool good = store->Put(Example(id)).ok() &&
                            store->Touch(id, system_clock::now()).ok() && store->List().ok() &&
                            (i % 2 == 0 || store->Remove(id).ok());
          CHECK(good);
        }
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    CHECK(store->List()->size() == 200);
  }
}

}  // namespace
}  // namespace creel
