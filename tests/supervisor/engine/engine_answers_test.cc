#include "supervisor/engine/engine_answers.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <chrono>
#include <string>

#include "supervisor/engine/line_splitter.h"

namespace creel::answers {
TEST_SUITE("engine answers") {
  TEST_CASE("memory in use leaves out what the kernel can drop, on both kinds of cgroup") {
    const struct {
      const char* memory;
      uint64_t bytes;
    } rows[] = {
        {R"({"usage":1000,"limit":5000,"stats":{"total_inactive_file":300,"inactive_file":1}})",
         700},
        {R"({"usage":1000,"limit":5000,"stats":{"inactive_file":400}})", 600},
        {R"({"usage":1000,"limit":5000,"stats":{"inactive_file":4000}})", 1000},
        {R"({"usage":1000,"limit":5000})", 1000},
    };
    for (const auto& row : rows) {
      CAPTURE(row.memory);
      const auto stats = ReadStats(
          std::string(R"({"read":"2026-11-23T23:10:51.25Z","memory_stats":)") + row.memory + "}");
      REQUIRE(stats.ok());
      CHECK(stats->memory_bytes == row.bytes);
      CHECK(stats->memory_limit_bytes == 5000);
    }
  }

  TEST_CASE("the other figures are read, and their absence is a zero") {
    const auto stats = ReadStats(R"({"read":"2026-11-23T23:10:51.106276342Z",
      "pids_stats":{"current":3,"limit":18446744073709551615},
      "cpu_stats":{"cpu_usage":{"total_usage":33652599}},
      "blkio_stats":{"io_service_bytes_recursive":[
        {"major":8,"minor":0,"op":"Read","value":10},{"major":8,"minor":0,"op":"write","value":5},
        {"major":8,"minor":16,"op":"read","value":1},{"major":8,"minor":0,"op":"Total","value":9}]}})");
    REQUIRE(stats.ok());
    CHECK(stats->pids == 3);
    CHECK(stats->pids_limit == 18446744073709551615u);
    CHECK(stats->cpu_total_ns == 33652599);
    CHECK(stats->block_read_bytes == 11);
    CHECK(stats->block_write_bytes == 5);
    CHECK(stats->memory_bytes == 0);
    CHECK(stats->at.time_since_epoch() == std::chrono::nanoseconds(1795475451106276342));
    CHECK(ReadStats(R"({"read":"2026-11-23T23:10:51Z","blkio_stats":
                        {"io_service_bytes_recursive":null},"pids_stats":null})")
              .ok());
    CHECK(absl::IsFailedPrecondition(
        ReadStats(R"({"read":"0001-01-01T00:00:00Z","pids_stats":{}})").status()));
    for (const char* bad : {"", "x", "2026-11-23", "2026-13-23T23:10:51Z", "2026-11-23T23:10:51",
                            "2026-11-23T23:10:51.x1Z", "1969-11-23T23:10:51Z"}) {
      CAPTURE(bad);
      CHECK(absl::IsInternal(ReadStats(std::string("{\"read\":\"") + bad + "\"}").status()));
    }
  }

  TEST_CASE("an image without settings is an image") {
    for (const char* body :
         {R"({"Id":"sha256:a"})", R"({"Id":"sha256:a","Config":null})",
          R"({"Id":"sha256:a","Config":{"Env":null,"Volumes":null,"Entrypoint":null}})"}) {
      const auto image = ReadImage(body);
      REQUIRE(image.ok());
      CHECK(image->env.empty());
      CHECK(image->volumes.empty());
      CHECK(image->entrypoint.empty());
    }
    CHECK(absl::IsInternal(ReadImage("{}").status()));
  }

  TEST_CASE("a container is described as the engine does") {
    const auto info = ReadContainer(R"({"Id":"abc","Name":"/n","Config":{"Image":"i","Labels":{"a":
      "b"}},"State":{"Status":"exited","Pid":0,"ExitCode":137,"OOMKilled":true,"Error":"e\u001b"}})");
    REQUIRE(info.ok());
    CHECK(info->name == "n");
    CHECK(info->labels.at("a") == "b");
    CHECK(info->state == ContainerState::kExited);
    CHECK(info->exit_code == 137);
    CHECK(info->oom_killed);
    CHECK(info->error == "e\\x1b");
    CHECK(absl::IsInternal(ReadContainer(R"({"Id":"abc","State":{"Status":"odd"}})").status()));
    CHECK(absl::IsInternal(ReadContainer(R"({"State":{"Status":"exited"}})").status()));
  }

  TEST_CASE("an exit status is never made up") {
    CHECK(*ReadExitStatus(R"({"StatusCode":3,"Error":null})") == 3);
    CHECK(absl::IsInternal(
        ReadExitStatus(R"({"StatusCode":0,"Error":{"Message":"lost"}})").status()));
    CHECK(absl::IsInternal(ReadExitStatus("{}").status()));
    CHECK(absl::IsInternal(ReadExitStatus(R"({"StatusCode":"0"})").status()));
  }

  TEST_CASE("processes are found by the titles of their columns") {
    const auto rows =
        ReadTop(R"({"Titles":["UID","COMMAND","PID"],"Processes":[["2000000","sh -c x","17"]]})");
    REQUIRE(rows.ok());
    CHECK(rows->at(0).pid == 17);
    CHECK(rows->at(0).uid == 2000000);
    CHECK(rows->at(0).command == "sh -c x");
    CHECK(ReadTop(R"({"Titles":["PID","UID","COMMAND"],"Processes":null})")->empty());
    CHECK(absl::IsInternal(ReadTop(R"({"Titles":["PID"],"Processes":[]})").status()));
    CHECK(absl::IsInternal(
        ReadTop(R"({"Titles":["PID","UID","COMMAND"],"Processes":[["x","0","c"]]})").status()));
    CHECK(absl::IsInternal(
        ReadTop(R"({"Titles":["PID","UID","COMMAND"],"Processes":[["1"]]})").status()));
  }

  TEST_CASE("changes have one of three kinds") {
    const auto changes =
        ReadChanges(R"([{"Path":"/a","Kind":0},{"Path":"/b","Kind":1},{"Path":"/c","Kind":2}])");
    REQUIRE(changes.ok());
    CHECK(changes->at(1).kind == ChangeKind::kAdded);
    CHECK(changes->at(2).path == "/c");
    CHECK(ReadChanges("null\n")->empty());
    CHECK(absl::IsInternal(ReadChanges(R"([{"Path":"/a","Kind":3}])").status()));
    CHECK(absl::IsInternal(ReadChanges("").status()));
    CHECK(absl::IsInternal(ReadChanges("{}").status()));
  }

  TEST_CASE("an event of an engine old or new is read") {
    const auto event = ReadEvent(
        R"({"Type":"container","Action":"die","Actor":{"ID":"abc","Attributes":{"exitCode":"1"}},)"
        R"("scope":"local","time":1795475451,"timeNano":1795475451106276342})");
    REQUIRE(event.ok());
    CHECK(event->id == "abc");
    CHECK(event->attributes.at("exitCode") == "1");
    CHECK(event->at.time_since_epoch() == std::chrono::nanoseconds(1795475451106276342));
    CHECK(absl::IsInternal(ReadEvent(R"({"status":"die"})").status()));
    CHECK(absl::IsInternal(ReadEvent("nonsense").status()));
  }

  TEST_CASE("values of other types than expected, however nested, do no harm") {
    for (const char* body : {"[]", "{}", "null", "1", "\"x\"", "{\"Id\":{}}", "{\"Id\":[1]}",
                             R"({"State":[],"Config":"x","Actor":7,"read":{}})", "\xff\xfe",
                             R"({"ApiVersion":{},"Titles":{"a":1},"Warnings":"x"})"}) {
      CAPTURE(body);
      ReadVersion(body).status().IgnoreError();
      ReadInfo(body).status().IgnoreError();
      ReadImage(body).status().IgnoreError();
      ReadCreated(body).status().IgnoreError();
      ReadContainer(body).status().IgnoreError();
      ReadContainerList(body).status().IgnoreError();
      ReadExitStatus(body).status().IgnoreError();
      ReadTop(body).status().IgnoreError();
      ReadStats(body).status().IgnoreError();
      ReadChanges(body).status().IgnoreError();
      ReadEvent(body).status().IgnoreError();
      ReadBuildLine(body).status().IgnoreError();
      CHECK_FALSE(ErrorFor(500, body).ok());
    }
    CHECK(absl::IsInternal(ReadVersion(std::string(1 << 20, '[')).status()));
  }

  TEST_CASE("rootless is told from the security options") {
    CHECK(ReadInfo(R"({"SecurityOptions":["name=seccomp,profile=default","name=rootless"]})")
              ->rootless);
    CHECK_FALSE(ReadInfo(R"({"SecurityOptions":["name=seccomp,profile=rootless"]})")->rootless);
  }
}

TEST_SUITE("LineSplitter") {
  TEST_CASE("lines are whole however they arrive") {
    for (size_t step = 1; step < 12; ++step) {
      CAPTURE(step);
      const std::string_view sent = "\x1e{a}\r\n\n  \n{bc}\nrest";
      std::string seen;
      LineSplitter splitter(8);
      const auto take = [&seen](std::string_view line) {
        seen += fmt::format("<{}>", line);
        return true;
      };
      for (size_t at = 0; at < sent.size(); at += step) {
        REQUIRE(splitter.Feed(sent.substr(at, step), take));
      }
      CHECK(seen == "<{a}><{bc}>");
      CHECK(splitter.Flush(take));
      CHECK(seen == "<{a}><{bc}><rest>");
    }
  }

  TEST_CASE("a line that is too long ends it, as does whoever takes them") {
    LineSplitter splitter(4);
    CHECK(splitter.Feed("abcd", [](std::string_view) { return true; }));
    CHECK_FALSE(splitter.Feed("e", [](std::string_view) { return true; }));
    CHECK(splitter.too_long());
    LineSplitter other(4);
    CHECK_FALSE(other.Feed("a\nb\n", [](std::string_view) { return false; }));
    CHECK_FALSE(other.too_long());
  }
}

}  // namespace creel::answers
