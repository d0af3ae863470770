// The file verbs, through the whole way: what a gateway's file tools do to a real sandbox.
#include <doctest/doctest.h>

#include <chrono>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "tests/integration/support/gvisor.h"
#include "tests/integration/support/supervisor.h"

namespace creel::testing {
namespace {

namespace g = gateway::v1;
namespace s = shim::v1;

constexpr char kSession[] = "agent:main:whatsapp:group:120363";

template <class Request>
Request For() {
  Request request;
  request.mutable_context()->set_session(kSession);
  return request;
}

struct Files {
  Supervisor supervisor;

  g::Gateway::Stub& gateway() { return supervisor.gateway(); }

  template <class Request, class Response>
  grpc::Status Call(grpc::Status (g::Gateway::Stub::*method)(grpc::ClientContext*, const Request&,
                                                             Response*),
                    const Request& request, Response* response) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    return (gateway().*method)(&context, request, response);
  }

  s::FileInfo Stat(const std::string& path, bool no_follow = false) {
    auto request = For<g::StatRequest>();
    request.mutable_args()->set_path(path);
    request.mutable_args()->set_no_follow(no_follow);
    g::StatResponse response;
    static_cast<void>(Call(&g::Gateway::Stub::Stat, request, &response));
    return response.info();
  }

  std::set<std::string> Names(const std::string& path, bool recursive) {
    grpc::ClientContext context;
    auto request = For<g::ListDirectoryRequest>();
    request.mutable_args()->set_path(path);
    request.mutable_args()->set_recursive(recursive);
    const auto reader = gateway().ListDirectory(&context, request);
    std::set<std::string> names;
    g::ListDirectoryResponse response;
    while (reader->Read(&response)) {
      for (const auto& entry : response.batch().entries()) {
        names.insert(entry.path());
      }
    }
    CHECK(reader->Finish().ok());
    return names;
  }
};

TEST_SUITE("Files") {
  TEST_CASE("content of any bytes and any name comes back as it went, with its mode") {
    Files files;
    std::string content(3 << 20, '\0');
    std::mt19937 random(11);
    for (char& byte : content) {
      byte = static_cast<char>(random());
    }
    for (const std::string name :
         {"plain", "with space", "new\nline", "\xff\xfe not UTF-8", "-rf", "sub/dir/deep"}) {
      CAPTURE(name);
      grpc::ClientContext context;
      g::WriteFileResponse written;
      const auto writer = files.gateway().WriteFile(&context, &written);
      g::WriteFileRequest request;
      request.mutable_start()->mutable_context()->set_session(kSession);
      request.mutable_start()->mutable_args()->set_path(name);
      request.mutable_start()->mutable_args()->set_make_parents(true);
      request.mutable_start()->mutable_args()->set_mode(0751);
      writer->Write(request);
      for (size_t at = 0; at < content.size(); at += 700'000) {
        request.set_data(content.substr(at, 700'000));
        writer->Write(request);
      }
      writer->WritesDone();
      const grpc::Status status = writer->Finish();
      CAPTURE(status.error_message());
      REQUIRE(status.ok());
      CHECK(written.result().created());
      CHECK(files.supervisor.Read(kSession, name).second == content);
      CHECK(files.Stat(name).mode() == 0751);
      CHECK(files.Stat(name).size() == content.size());
    }
    // The three forms of a path name one file.
    CHECK(files.Stat("/workspace/plain").size() == files.Stat("plain").size());
    CHECK(files.Stat("./sub/../plain").size() == content.size());
    // A command sees the same.
    CHECK(files.supervisor.Shell(kSession, "wc -c < 'with space'").out == "3145728\n");
  }

  TEST_CASE("an edit replaces exactly what was named, keeps the mode, and says how often") {
    Files files;
    REQUIRE(files.supervisor.Write(kSession, "notes", "one two two three", 0640).ok());
    auto edit = For<g::EditFileRequest>();
    edit.mutable_args()->set_path("notes");
    edit.mutable_args()->set_old_text("two");
    edit.mutable_args()->set_new_text("2");
    g::EditFileResponse edited;
    const grpc::Status twice = files.Call(&g::Gateway::Stub::EditFile, edit, &edited);
    CHECK(twice.error_code() == grpc::StatusCode::FAILED_PRECONDITION);
    CHECK(twice.error_message().find('2') != std::string::npos);
    edit.mutable_args()->set_replace_all(true);
    REQUIRE(files.Call(&g::Gateway::Stub::EditFile, edit, &edited).ok());
    CHECK(edited.result().matches() == 2);
    CHECK(files.supervisor.Read(kSession, "notes").second == "one 2 2 three");
    CHECK(files.Stat("notes").mode() == 0640);
    edit.mutable_args()->set_expected_sha256(std::string(32, 'x'));
    edit.mutable_args()->set_old_text("one");
    CHECK(files.Call(&g::Gateway::Stub::EditFile, edit, &edited).error_code() ==
          grpc::StatusCode::ABORTED);
    edit.mutable_args()->clear_expected_sha256();
    edit.mutable_args()->set_old_text("absent");
    CHECK(files.Call(&g::Gateway::Stub::EditFile, edit, &edited).error_code() ==
          grpc::StatusCode::NOT_FOUND);
    CHECK(files.supervisor.Read(kSession, "notes").second == "one 2 2 three");
  }

  TEST_CASE("trees are made, moved, copied, found, searched and removed") {
    Files files;
    REQUIRE(files.supervisor
                .Shell(kSession,
                       "mkdir -p a/b/.hidden && echo 'needle here' > a/b/x.txt && echo nothing > "
                       "a/y.md && echo 'a NEEDLE' > a/b/.hidden/z.txt && ln -s x.txt a/b/link")
                .code() == 0);
    CHECK(files.Names("a", true) ==
          std::set<std::string>{"b", "b/.hidden", "b/.hidden/z.txt", "b/link", "b/x.txt", "y.md"});
    CHECK(files.Stat("a/b/link", true).link_target() == "x.txt");

    auto copy = For<g::CopyRequest>();
    copy.mutable_args()->set_source("a");
    copy.mutable_args()->set_destination("c");
    copy.mutable_args()->set_recursive(true);
    g::CopyResponse copied;
    REQUIRE(files.Call(&g::Gateway::Stub::Copy, copy, &copied).ok());
    CHECK(files.Names("c", true) == files.Names("a", true));

    auto move = For<g::MoveRequest>();
    move.mutable_args()->set_source("c/b");
    move.mutable_args()->set_destination("moved");
    g::MoveResponse moved;
    REQUIRE(files.Call(&g::Gateway::Stub::Move, move, &moved).ok());
    CHECK(files.Names("c", true) == std::set<std::string>{"y.md"});
    move.mutable_args()->set_source("a/y.md");
    move.mutable_args()->set_destination("moved/x.txt");
    move.mutable_args()->set_no_replace(true);
    CHECK(files.Call(&g::Gateway::Stub::Move, move, &moved).error_code() ==
          grpc::StatusCode::ALREADY_EXISTS);

    grpc::ClientContext globbing;
    auto glob = For<g::GlobRequest>();
    glob.mutable_args()->set_pattern("**/*.txt");
    const auto found = files.gateway().Glob(&globbing, glob);
    std::set<std::string> names;
    g::GlobResponse batch;
    while (found->Read(&batch)) {
      for (const auto& entry : batch.batch().entries()) {
        names.insert(entry.path());
      }
    }
    CHECK(found->Finish().ok());
    CHECK(names == std::set<std::string>{"a/b/x.txt", "moved/x.txt"});

    grpc::ClientContext searching;
    auto grep = For<g::GrepRequest>();
    grep.mutable_args()->set_pattern("ne+dle");
    grep.mutable_args()->set_path("a");
    grep.mutable_args()->set_ignore_case(true);
    const auto lines = files.gateway().Grep(&searching, grep);
    std::map<std::string, std::string> matches;
    g::GrepResponse matched;
    while (lines->Read(&matched)) {
      for (const auto& match : matched.batch().matches()) {
        matches[match.path()] = match.line();
      }
    }
    CHECK(lines->Finish().ok());
    CHECK(matches.at("b/x.txt") == "needle here");

    auto remove = For<g::RemoveRequest>();
    remove.mutable_args()->set_path("a");
    g::RemoveResponse removed;
    CHECK(files.Call(&g::Gateway::Stub::Remove, remove, &removed).error_code() ==
          grpc::StatusCode::FAILED_PRECONDITION);
    remove.mutable_args()->set_recursive(true);
    REQUIRE(files.Call(&g::Gateway::Stub::Remove, remove, &removed).ok());
    CHECK(files.supervisor.Shell(kSession, "test -e a").code() == 1);
  }

  TEST_CASE("a tar that goes in comes out again, and what would land outside does not") {
    Files files;
    REQUIRE(files.supervisor
                .Shell(kSession,
                       "mkdir -p t/d && echo one > t/d/f && chmod 700 t/d/f && ln -s d/f t/l && "
                       "mkfifo t/fifo")
                .code() == 0);
    std::string archive;
    {
      grpc::ClientContext context;
      auto request = For<g::TarOutRequest>();
      request.mutable_args()->set_path("t");
      const auto reader = files.gateway().TarOut(&context, request);
      g::TarOutResponse piece;
      while (reader->Read(&piece)) {
        archive += piece.data();
      }
      REQUIRE(reader->Finish().ok());
    }
    const auto put = [&](const std::string& bytes, const std::string& path) {
      grpc::ClientContext context;
      g::TarInResponse response;
      const auto writer = files.gateway().TarIn(&context, &response);
      g::TarInRequest request;
      request.mutable_start()->mutable_context()->set_session(kSession);
      request.mutable_start()->mutable_args()->set_path(path);
      request.mutable_start()->mutable_args()->set_make_parents(true);
      writer->Write(request);
      for (size_t at = 0; at < bytes.size(); at += 100'000) {
        request.set_data(bytes.substr(at, 100'000));
        if (!writer->Write(request)) {
          break;
        }
      }
      writer->WritesDone();
      return std::make_pair(writer->Finish(), response.result());
    };
    const auto [status, result] = put(archive, "back");
    CAPTURE(status.error_message());
    REQUIRE(status.ok());
    CHECK(files.supervisor.Read(kSession, "back/t/d/f").second == "one\n");
    CHECK(files.Stat("back/t/d/f").mode() == 0700);
    CHECK(files.Stat("back/t/l", true).link_target() == "d/f");
    CHECK(files.Names("back/t", false) == std::set<std::string>{"d", "l"});

    // Made by a real tar: absolute names, `..`, and a link that is then written through.
    const Outcome evil = files.supervisor.Exec(
        kSession,
        {"python3", "-c",
         "import tarfile,io,sys\n"
         "t=tarfile.open(fileobj=sys.stdout.buffer,mode='w|')\n"
         "def f(n):\n i=tarfile.TarInfo(n); i.size=4; t.addfile(i,io.BytesIO(b'evil'))\n"
         "f('../../tmp/evil1'); f('/tmp/evil2')\n"
         "l=tarfile.TarInfo('ln'); l.type=tarfile.SYMTYPE; l.linkname='/tmp'; t.addfile(l)\n"
         "f('ln/evil3')\n"
         "d=tarfile.TarInfo('dev'); d.type=tarfile.CHRTYPE; t.addfile(d)\nt.close()\n"},
        [](auto& start) { start.mutable_spec()->set_overflow(s::OVERFLOW_BLOCK); });
    REQUIRE(evil.code() == 0);
    static_cast<void>(put(evil.out, "jail"));
    CHECK(files.supervisor.Shell(kSession, "find /tmp -name '*evil*'").out.empty());
    CHECK(files.supervisor.Shell(kSession, "test -c jail/dev").code() == 1);
  }

  TEST_CASE("a watch tells of what commands do, until it is cancelled") {
    Files files;
    REQUIRE(files.supervisor.Shell(kSession, "mkdir w").code() == 0);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    auto request = For<g::WatchRequest>();
    request.mutable_args()->set_path("w");
    request.mutable_args()->set_recursive(true);
    const auto watch = files.gateway().Watch(&context, request);
    g::WatchResponse event;
    REQUIRE(watch->Read(&event));
    REQUIRE(event.event().kind() == s::WATCH_KIND_READY);
    REQUIRE(files.supervisor.Shell(kSession, "mkdir w/d; sleep 0.3; echo x > w/d/f; mv w/d/f w/g")
                .code() == 0);
    bool created = false;
    bool moved = false;
    while (!(created && moved) && watch->Read(&event)) {
      created = created ||
                (event.event().kind() == s::WATCH_KIND_CREATED && event.event().path() == "d/f");
      moved = moved || (event.event().kind() == s::WATCH_KIND_MOVED && event.event().path() == "g");
    }
    CHECK(created);
    CHECK(moved);
    context.TryCancel();
  }

  TEST_CASE("100,000 small files (5,000 under gVisor) are listed up to the bound, which is told, and removed") {
    Files files;
    const size_t many = Times(100'000, 5'000);
    const Outcome made = files.supervisor.Exec(
        kSession, {"python3", "-c",
                   "import os,sys\nos.mkdir('many')\nfor i in range(int(sys.argv[1])): "
                   "os.close(os.open('many/%d'%i, os.O_CREAT|os.O_WRONLY))",
                   std::to_string(many)});
    CAPTURE(made.err);
    REQUIRE(made.code() == 0);
    grpc::ClientContext context;
    auto request = For<g::ListDirectoryRequest>();
    request.mutable_args()->set_path("many");
    request.mutable_args()->set_max_entries(many - 1'000);
    const auto reader = files.gateway().ListDirectory(&context, request);
    size_t count = 0;
    bool truncated = false;
    g::ListDirectoryResponse response;
    while (reader->Read(&response)) {
      count += static_cast<size_t>(response.batch().entries_size());
      truncated = truncated || response.batch().truncated();
    }
    CHECK(reader->Finish().ok());
    CHECK(count == many - 1'000);
    CHECK(truncated);
    auto remove = For<g::RemoveRequest>();
    remove.mutable_args()->set_path("many");
    remove.mutable_args()->set_recursive(true);
    g::RemoveResponse removed;
    REQUIRE(files.Call(&g::Gateway::Stub::Remove, remove, &removed).ok());
    CHECK(removed.entries() == many + 1);
  }
}

}  // namespace
}  // namespace creel::testing
