#include "supervisor/engine/docker_engine.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "tests/supervisor/engine/test_server.h"

namespace creel {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

Deadline Soon() { return After(seconds(10)); }

std::string Versions(std::string_view oldest, std::string_view newest) {
  return Answer(200, fmt::format(R"({{"ApiVersion":"{}","MinAPIVersion":"{}"}})", newest, oldest));
}

// Agrees on 1.41, and leaves all else to `then`.
TestServer::Handler Agreeable(TestServer::Handler then) {
  return [then = std::move(then)](const TestRequest& request, TestConnection& connection) {
    if (request.target == "/version") {
      return connection.Send(Versions("1.12", "1.41"));
    }
    return then(request, connection);
  };
}

// The same answer to everything.
TestServer::Handler Always(std::string answer) {
  return Agreeable([answer = std::move(answer)](const TestRequest&, TestConnection& connection) {
    return connection.Send(answer);
  });
}

std::unique_ptr<DockerEngine> ConnectTo(const TestServer& server) {
  auto engine = DockerEngine::Connect({.host = server.host()}, Soon());
  REQUIRE_MESSAGE(engine.ok(), engine.status().ToString());
  return *std::move(engine);
}

ContainerConfig SomeConfig() {
  ContainerConfig config;
  config.name = "c1";
  config.image = "sha256:abc";
  config.entrypoint = {"/init"};
  config.labels = {{"creel.sandbox", "s1"}};
  config.seccomp_profile = "{}";
  return config;
}

}  // namespace

TEST_SUITE("DockerEngine") {
  TEST_CASE("the newest version that both speak is agreed on and used") {
    const struct {
      const char* oldest;
      const char* newest;
      const char* agreed;
    } rows[] = {{"1.12", "1.41", "1.41"},
                {"1.24", "1.47", "1.47"},
                {"1.44", "1.52", "1.52"},
                {"1.44", "1.60", "1.52"},
                {"1.52", "2.0", "1.52"}};
    for (const auto& row : rows) {
      CAPTURE(row.newest);
      TestServer server([&row](const TestRequest& request, TestConnection& connection) {
        return connection.Send(request.target == "/version" ? Versions(row.oldest, row.newest)
                                                            : Answer(200, "OK"));
      });
      CHECK(ConnectTo(server)->Ping(Soon()).ok());
      CHECK(server.Requests().back().target == fmt::format("/v{}/_ping", row.agreed));
    }
  }

  TEST_CASE("an engine that is too old or too new is refused with both ranges") {
    const struct {
      const char* oldest;
      const char* newest;
      const char* word;
    } rows[] = {{"1.12", "1.40", "too old"}, {"1.53", "1.60", "too new"}};
    for (const auto& row : rows) {
      TestServer server([&row](const TestRequest&, TestConnection& connection) {
        return connection.Send(Versions(row.oldest, row.newest));
      });
      const auto engine = DockerEngine::Connect({.host = server.host()}, Soon());
      REQUIRE(absl::IsFailedPrecondition(engine.status()));
      const std::string message(engine.status().message());
      for (const char* part : {row.oldest, row.newest, row.word, "1.41", "1.52"}) {
        CAPTURE(message);
        CHECK(message.find(part) != std::string::npos);
      }
    }
  }

  TEST_CASE("what answers and is no engine is refused") {
    for (const char* body : {"", "hello", "{}", "[]", R"({"ApiVersion":"x"})", "{\"a\":"}) {
      CAPTURE(body);
      TestServer server([body](const TestRequest&, TestConnection& connection) {
        return connection.Send(Answer(200, body));
      });
      const auto engine = DockerEngine::Connect({.host = server.host()}, Soon());
      CHECK(engine.status().code() == absl::StatusCode::kInternal);
    }
    TestServer noise([](const TestRequest&, TestConnection& connection) {
      connection.Send("SSH-2.0-OpenSSH\r\n");
      return false;
    });
    CHECK_FALSE(DockerEngine::Connect({.host = noise.host()}, Soon()).ok());
  }

  TEST_CASE("an address where nothing answers is unavailable, and named") {
    const auto engine = DockerEngine::Connect({.host = "unix:///tmp/creel-no-engine.sock"}, Soon());
    REQUIRE(absl::IsUnavailable(engine.status()));
    CHECK(engine.status().message() ==
          "no engine answers at unix:///tmp/creel-no-engine.sock: No such file or directory");
  }

  TEST_CASE("the environment's proxy is not asked") {
    ::setenv("http_proxy", "http://127.0.0.1:1", 1);
    ::setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
    TestServer server(Always(Answer(200, "OK")));
    CHECK(ConnectTo(server)->Ping(Soon()).ok());
    ::unsetenv("http_proxy");
    ::unsetenv("ALL_PROXY");
  }

  TEST_CASE("calls share a connection, but those that must not be repeated have their own") {
    TestServer server(Always(Answer(200, "OK")));
    const auto engine = ConnectTo(server);
    for (int i = 0; i < 20; ++i) {
      CHECK(engine->Ping(Soon()).ok());
    }
    CHECK(server.connections() == 1);
    CHECK(engine->PauseContainer("a", Soon()).ok());
    CHECK(server.connections() == 2);
    CHECK(engine->Ping(Soon()).ok());
    CHECK(server.connections() == 2);
  }

  TEST_CASE("a connection that was closed meanwhile is made anew") {
    // Closed at rest, and closed with the question already on its way.
    for (const bool late : {false, true}) {
      CAPTURE(late);
      std::atomic<int> pings = 0;
      TestServer server(Agreeable([&, late](const TestRequest&, TestConnection& connection) {
        ++pings;
        if (late && pings == 2) {
          return false;
        }
        connection.Send(Answer(200, "OK"));
        return late;
      }));
      const auto engine = ConnectTo(server);
      CHECK(engine->Ping(Soon()).ok());
      std::this_thread::sleep_for(milliseconds(50));
      CHECK(engine->Ping(Soon()).ok());
      CHECK(pings == (late ? 3 : 2));
    }
  }

  TEST_CASE("a call that must not be repeated is not") {
    std::atomic<int> starts = 0;
    TestServer server(Agreeable([&](const TestRequest&, TestConnection&) {
      ++starts;
      return false;
    }));
    const auto engine = ConnectTo(server);
    CHECK(absl::IsUnavailable(engine->StartContainer("a", Soon())));
    CHECK(starts == 1);
  }

  TEST_CASE("an engine that comes back as another version is agreed with anew") {
    std::atomic<bool> updated = false;
    const TestServer::Handler handler = [&](const TestRequest& request,
                                            TestConnection& connection) {
      if (request.target == "/version") {
        return connection.Send(updated ? Versions("1.44", "1.52") : Versions("1.12", "1.41"));
      }
      if (updated && request.target.starts_with("/v1.41/")) {
        return connection.Send(
            Answer(400, R"({"message":"client version 1.41 is too old. Minimum supported API )"
                        R"(version is 1.44"})"));
      }
      return connection.Send(Answer(200, "OK"));
    };
    TestServer server(handler);
    const auto engine = ConnectTo(server);
    updated = true;
    CHECK(engine->Ping(Soon()).ok());
    CHECK(server.Requests().back().target == "/v1.52/_ping");

    updated = false;
    server.Stop();
    CHECK(absl::IsUnavailable(engine->Ping(Soon())));
    server.Start();
    CHECK(engine->Ping(Soon()).ok());
    CHECK(server.Requests().back().target == "/v1.41/_ping");
  }

  TEST_CASE("an answer that never comes ends with the deadline") {
    TestServer server(Agreeable(
        [](const TestRequest&, TestConnection& connection) { return connection.Hang(); }));
    const auto engine = ConnectTo(server);
    const auto begin = std::chrono::steady_clock::now();
    CHECK(absl::IsDeadlineExceeded(engine->Ping(After(milliseconds(100)))));
    CHECK(absl::IsDeadlineExceeded(engine->WaitContainer("a", After(milliseconds(100))).status()));
    CHECK(std::chrono::steady_clock::now() - begin < seconds(5));
    CHECK(absl::IsDeadlineExceeded(engine->Ping(After(seconds(-1)))));
  }

  TEST_CASE("an answer that breaks off is no answer") {
    const std::string whole = Answer(200, R"([{"Id":"a","State":"running"}])");
    const std::string chunked =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n";  // no last chunk
    for (const std::string& sent :
         {whole.substr(0, whole.size() - 1), whole.substr(0, 20), chunked, std::string()}) {
      CAPTURE(sent);
      TestServer server(Agreeable([&sent](const TestRequest&, TestConnection& connection) {
        connection.Send(sent);
        return false;
      }));
      CHECK(absl::IsUnavailable(ConnectTo(server)->ListContainers("l", Soon()).status()));
    }
  }

  TEST_CASE("an answer without end is given up") {
    TestServer server(Agreeable([](const TestRequest& request, TestConnection& connection) {
      const bool header = request.target.find("_ping") != std::string::npos;
      const std::string junk(1 << 16, 'x');
      connection.Send(header ? "HTTP/1.1 200 OK\r\n" : "HTTP/1.1 200 OK\r\n\r\n");
      for (int i = 0; i < 4000; ++i) {
        if (!connection.Send(header ? "X-" + junk.substr(0, 1000) + ": y\r\n" : junk)) {
          break;
        }
      }
      return false;
    }));
    const auto engine = ConnectTo(server);
    const auto list = engine->ListContainers("l", After(seconds(60)));
    CHECK(list.status().code() == absl::StatusCode::kInternal);
    CHECK(list.status().message().find("too large") != std::string::npos);
    CHECK(engine->Ping(Soon()).code() == absl::StatusCode::kInternal);
  }

  TEST_CASE("the engine's errors keep their kind and their words") {
    const struct {
      int status;
      absl::StatusCode code;
    } rows[] = {
        {400, absl::StatusCode::kInvalidArgument}, {403, absl::StatusCode::kPermissionDenied},
        {404, absl::StatusCode::kNotFound},        {409, absl::StatusCode::kFailedPrecondition},
        {500, absl::StatusCode::kInternal},        {503, absl::StatusCode::kUnavailable},
        {302, absl::StatusCode::kInternal}};
    for (const auto& row : rows) {
      CAPTURE(row.status);
      TestServer server(Always(Answer(row.status, R"({"message":"bad \u001b[31m thing\n"})")));
      const absl::Status status = ConnectTo(server)->PauseContainer("a", Soon());
      CHECK(status.code() == row.code);
      CHECK(status.message().find("bad") != std::string::npos);
      CHECK(status.message().find('\x1b') == std::string::npos);
    }
    TestServer plain(Always(Answer(500, "plain words\n")));
    CHECK(ConnectTo(plain)->PauseContainer("a", Soon()).message() == "plain words");
    TestServer silent(Always(Answer(500, "")));
    CHECK(ConnectTo(silent)->PauseContainer("a", Soon()).message() ==
          "the engine answers with status 500 and no reason");
  }

  TEST_CASE("an id or name that is none never reaches the engine") {
    TestServer server(Always(Answer(200, "{}")));
    const auto engine = ConnectTo(server);
    const size_t before = server.Requests().size();
    for (const std::string& id : {std::string(), std::string("a/b"), std::string(".."),
                                  std::string("a?x=1"), std::string("a\0b", 3), std::string("a b"),
                                  std::string("a%2fb"), std::string("-a"), std::string(300, 'a')}) {
      CAPTURE(id);
      CHECK(absl::IsInvalidArgument(engine->StartContainer(id, Soon())));
      CHECK(absl::IsInvalidArgument(engine->RemoveContainer(id, Soon())));
      CHECK(absl::IsInvalidArgument(engine->InspectContainer(id, Soon()).status()));
    }
    for (const char* image : {"", "../x", "a//b", "a/", "/a", "a?b", "a#b", "a b", "-x"}) {
      CAPTURE(image);
      CHECK(absl::IsInvalidArgument(engine->InspectImage(image, Soon()).status()));
    }
    CHECK(absl::IsInvalidArgument(engine->KillContainer("a", "SIG KILL&x", Soon())));
    CHECK(absl::IsInvalidArgument(engine->GetArchive("a", "etc", {}, Soon())));
    CHECK(server.Requests().size() == before);
  }

  TEST_CASE("starting what runs is no error, nor is removing what is gone") {
    TestServer server(Agreeable([](const TestRequest& request, TestConnection& connection) {
      return connection.Send(request.method == "DELETE"
                                 ? Answer(404, R"({"message":"No such container"})")
                                 : "HTTP/1.1 304 Not Modified\r\n\r\n");
    }));
    const auto engine = ConnectTo(server);
    CHECK(engine->StartContainer("a", Soon()).ok());
    CHECK(engine->RemoveContainer("a", Soon()).ok());
  }

  TEST_CASE("a removal that is under way is waited for, and one that fails tried again") {
    std::atomic<int> asked = 0;
    TestServer server(Agreeable([&](const TestRequest&, TestConnection& connection) {
      switch (++asked) {
        case 1:
          return connection.Send(Answer(409, R"({"message":"removal is already in progress"})"));
        case 2:
          return connection.Send(Answer(500, R"({"message":"device or resource busy"})"));
        default:
          return connection.Send("HTTP/1.1 204 No Content\r\n\r\n");
      }
    }));
    const auto engine = ConnectTo(server);
    CHECK(engine->RemoveContainer("a", Soon()).ok());
    CHECK(asked == 3);
    CHECK(server.Requests().back().target == "/v1.41/containers/a?force=1&v=1");

    TestServer broken(Always(Answer(500, R"({"message":"driver failed"})")));
    CHECK(ConnectTo(broken)->RemoveContainer("a", Soon()).message() == "driver failed");
    TestServer busy(Always(Answer(409, R"({"message":"removal is already in progress"})")));
    CHECK(
        absl::IsDeadlineExceeded(ConnectTo(busy)->RemoveContainer("a", After(milliseconds(300)))));
  }

  TEST_CASE("a container that the engine warns about is not kept") {
    TestServer server(Agreeable([](const TestRequest& request, TestConnection& connection) {
      return connection.Send(
          request.method == "DELETE"
              ? "HTTP/1.1 204 No Content\r\n\r\n"
              : Answer(201, R"({"Id":"abc","Warnings":["no swap limit","Limitation discarded"]})"));
    }));
    const auto engine = ConnectTo(server);
    ContainerConfig config = SomeConfig();
    config.accepted_warnings = {"swap limit"};
    const auto id = engine->CreateContainer(config, Soon());
    CHECK(absl::IsFailedPrecondition(id.status()));
    CHECK(id.status().message().find("Limitation discarded") != std::string::npos);
    CHECK(id.status().message().find("swap") == std::string::npos);
    CHECK(server.Requests().back().method == "DELETE");
    CHECK(server.Requests().back().target.find("/containers/abc?") != std::string::npos);

    config.accepted_warnings.emplace_back("discarded");
    const auto kept = engine->CreateContainer(config, Soon());
    REQUIRE(kept.ok());
    CHECK(*kept == "abc");
  }

  TEST_CASE("what a creation made without an answer is removed, and nobody else's") {
    const struct {
      const char* state;
      const char* label;
      bool removed;
    } rows[] = {{"created", "s1", true}, {"running", "s1", false}, {"created", "other", false}};
    for (const auto& row : rows) {
      CAPTURE(row.state);
      std::atomic<bool> removed = false;
      TestServer server(Agreeable([&](const TestRequest& request, TestConnection& connection) {
        if (request.method == "POST") {
          return connection.Hang();
        }
        removed = removed || request.method == "DELETE";
        return connection.Send(
            Answer(200, fmt::format(R"({{"Id":"abc","State":{{"Status":"{}"}},)"
                                    R"("Config":{{"Labels":{{"creel.sandbox":"{}"}}}}}})",
                                    row.state, row.label)));
      }));
      const auto id = ConnectTo(server)->CreateContainer(SomeConfig(), After(milliseconds(200)));
      CHECK(absl::IsDeadlineExceeded(id.status()));
      CHECK(removed == row.removed);
    }
  }

  TEST_CASE("a name that is taken already exists") {
    TestServer server(Always(Answer(409, R"({"message":"Conflict. The name is in use"})")));
    CHECK(absl::IsAlreadyExists(ConnectTo(server)->CreateContainer(SomeConfig(), Soon()).status()));
  }

  TEST_CASE("a build ends with the engine's own error line") {
    TestServer server(Agreeable([](const TestRequest& request, TestConnection& connection) {
      CHECK(request.body == "tar");
      CHECK(request.headers.find("Content-Type: application/x-tar") != std::string::npos);
      return connection.Send(Answer(200,
                                    "{\"stream\":\"Step 1\\n\"}\r\n{\"stream\":\"\\n\"}\r\n"
                                    "{\"error\":\"no space\",\"errorDetail\":{}}\r\n"));
    }));
    std::vector<std::string> lines;
    const absl::Status status = ConnectTo(server)->BuildImage(
        "tar", "a:1", [&](std::string_view line) { lines.emplace_back(line); }, Soon());
    CHECK(status.code() == absl::StatusCode::kInternal);
    CHECK(status.message() == "building 'a:1': no space");
    CHECK(lines == std::vector<std::string>{"Step 1"});

    TestServer endless(Agreeable([](const TestRequest&, TestConnection& connection) {
      connection.Send("HTTP/1.1 200 OK\r\n\r\n");
      while (connection.Send(std::string(65536, ' ') + "x")) {
      }
      return false;
    }));
    CHECK(ConnectTo(endless)->BuildImage("tar", "a:1", {}, Soon()).code() ==
          absl::StatusCode::kInternal);
  }

  TEST_CASE("TCP is taken with TLS, or to a loopback address") {
    const struct {
      EngineOptions options;
      bool ok;
    } rows[] = {
        {{.host = "tcp://127.0.0.1:2375"}, true},
        {{.host = "tcp://localhost:2375/"}, true},
        {{.host = "tcp://[::1]:2375"}, true},
        {{.host = "tcp://10.0.0.1:2375"}, false},
        {{.host = "tcp://127.0.0.1.example:2375"}, false},
        {{.host = "tcp://10.0.0.1:2376", .tls_ca = "a", .tls_cert = "b", .tls_key = "c"}, true},
        {{.host = "tcp://10.0.0.1:2376", .tls_ca = "a"}, false},
        {{.host = "tcp://u:p@localhost:2375"}, false},
        {{.host = "tcp://localhost:2375/x"}, false},
        {{.host = "tcp://localhost"}, false},
        {{.host = "tcp://localhost:0"}, false},
        {{.host = "tcp://localhost:99999"}, false},
        {{.host = "unix:///run/x.sock"}, true},
        {{.host = "unix://x.sock"}, false},
        {{.host = "unix:///" + std::string(120, 'x')}, false},
        {{.host = "unix:///x", .tls_ca = "a", .tls_cert = "b", .tls_key = "c"}, false},
        {{.host = "/run/x.sock"}, false},
        {{.host = "ssh://host"}, false},
        {{.host = "http://localhost:2375"}, false},
    };
    for (const auto& row : rows) {
      CAPTURE(row.options.host);
      const auto address = ResolveEngineAddress(row.options);
      CHECK(address.ok() == row.ok);
      if (!row.ok) {
        CHECK(absl::IsInvalidArgument(address.status()));
      }
    }
  }

  TEST_CASE("without an address the environment's is taken") {
    const char* const before = std::getenv("DOCKER_HOST");
    const std::string kept = before == nullptr ? "" : before;
    ::unsetenv("DOCKER_HOST");
    CHECK(ResolveEngineAddress({})->socket_path == "/var/run/docker.sock");
    ::setenv("DOCKER_HOST", "unix:///run/other.sock", 1);
    CHECK(ResolveEngineAddress({})->socket_path == "/run/other.sock");
    ::setenv("DOCKER_HOST", "tcp://engine.example:2376", 1);
    CHECK_FALSE(ResolveEngineAddress({}).ok());
    ::setenv("DOCKER_CERT_PATH", "/certs", 1);
    CHECK(ResolveEngineAddress({})->tls_cert == "/certs/cert.pem");
    ::unsetenv("DOCKER_CERT_PATH");
    ::unsetenv("DOCKER_HOST");
    if (before != nullptr) {
      ::setenv("DOCKER_HOST", kept.c_str(), 1);
    }
  }
}

}  // namespace creel
