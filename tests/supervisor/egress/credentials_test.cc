#include "supervisor/egress/credentials.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace creel::egress {
namespace {

using Kind = EgressCredential::Kind;

struct Folder {
  Folder() {
    char name[] = "/tmp/creel-credentials-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    path = name;
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string Put(const std::string& name, const std::string& text) const {
    std::ofstream(path + "/" + name) << text;
    return path + "/" + name;
  }
  std::string path;
};

EgressService FromFile(const std::string& file) {
  EgressService service;
  service.name = "api";
  service.credential = {
      .kind = Kind::kBearer, .name = {}, .user = {}, .file = file, .env = {}, .command = {}};
  return service;
}

EgressService FromCommand(const std::string& name, const std::string& script) {
  EgressService service;
  service.name = name;
  service.credential = {.kind = Kind::kBearer,
                        .name = {},
                        .user = {},
                        .file = {},
                        .env = {},
                        .command = {"/bin/sh", "-c", script}};
  return service;
}

absl::StatusOr<std::shared_ptr<const Secret>> Get(Credentials& credentials,
                                                  const std::string& service = "api") {
  std::promise<absl::StatusOr<std::shared_ptr<const Secret>>> promise;
  credentials.Get(service, [&](auto secret) { promise.set_value(std::move(secret)); });
  return promise.get_future().get();
}

TEST_SUITE("Credentials") {
  TEST_CASE("a value comes from a file, a variable or a command, without its line's end") {
    const Folder folder;
    EgressCredential credential{.kind = Kind::kHeader, .name = "X-Key"};
    credential.file = folder.Put("key", "from-file\n");
    CHECK(FetchSecret(credential)->value == "from-file");
    credential.file.clear();
    credential.env = "CREEL_TEST_SECRET";
    CHECK_FALSE(FetchSecret(credential).ok());
    setenv("CREEL_TEST_SECRET", "from-env", 1);
    CHECK(FetchSecret(credential)->header == "from-env");
    credential.env.clear();
    credential.command = {"/bin/sh", "-c", "printf 'from-command\\r\\n'"};
    CHECK(FetchSecret(credential)->value == "from-command");
    credential.kind = Kind::kBasic;
    credential.user = "user";
    const auto basic = FetchSecret(credential);
    CHECK(basic->header == "Basic dXNlcjpmcm9tLWNvbW1hbmQ=");
    CHECK(std::find(basic->forms.begin(), basic->forms.end(), "dXNlcjpmcm9tLWNvbW1hbmQ=") !=
          basic->forms.end());
  }

  TEST_CASE("what is no credential is an error that holds nothing of it") {
    const Folder folder;
    mkfifo((folder.path + "/fifo").c_str(), 0600);
    EgressCredential credential{.kind = Kind::kBearer};
    for (const std::string& file :
         {folder.Put("two", "first-line\nsecond"), folder.Put("empty", ""),
          folder.Put("short", "abc"), folder.Put("long", std::string(9000, 'x')),
          folder.Put("control", "abc\tdefgh"), folder.path, folder.path + "/none",
          folder.path + "/fifo"}) {
      CAPTURE(file);
      credential.file = file;
      const auto secret = FetchSecret(credential);
      REQUIRE_FALSE(secret.ok());
      CHECK(absl::IsFailedPrecondition(secret.status()));
      CHECK(std::string(secret.status().message()).find("first-line") == std::string::npos);
    }
    credential.file.clear();
    for (const char* script : {"echo secret-value; exit 3", "kill -9 $$"}) {
      credential.command = {"/bin/sh", "-c", script};
      const auto secret = FetchSecret(credential);
      REQUIRE_FALSE(secret.ok());
      CHECK(std::string(secret.status().message()).find("secret-value") == std::string::npos);
    }
    credential.command = {"/does/not/exist"};
    CHECK_FALSE(FetchSecret(credential).ok());
  }

  TEST_CASE("a value is kept while it is fresh, and fetched anew when the place has changed") {
    const Folder folder;
    Credentials credentials;
    credentials.Configure({FromFile(folder.Put("key", "value-one"))});
    CHECK((*Get(credentials))->header == "Bearer value-one");
    folder.Put("key", "value-two");
    CHECK((*Get(credentials))->value == "value-one");
    credentials.Configure({FromFile(folder.Put("other", "value-three"))});
    CHECK((*Get(credentials))->value == "value-three");
    credentials.Configure({});
    CHECK_FALSE(Get(credentials).ok());
  }

  TEST_CASE("a revoked credential is given to nobody until it is restored") {
    const Folder folder;
    Credentials credentials;
    credentials.Configure({FromFile(folder.Put("key", "value-one"))});
    CHECK(Get(credentials).ok());
    CHECK_FALSE(credentials.Forms().empty());
    CHECK(credentials.Revoke("api").ok());
    CHECK(absl::IsPermissionDenied(Get(credentials).status()));
    CHECK(credentials.List().at(0).revoked);
    CHECK(credentials.List().at(0).source == "file " + folder.path + "/key");
    folder.Put("key", "value-two");
    CHECK(credentials.Restore("api").ok());
    CHECK((*Get(credentials))->value == "value-two");
    CHECK_FALSE(credentials.Restore("api").ok());
    CHECK(absl::IsNotFound(credentials.Revoke("other")));
  }

  TEST_CASE("what is revoked is written down, and a disk that fails does not keep it in use") {
    const Folder folder;
    Credentials credentials;
    std::vector<std::set<std::string>> written;
    absl::Status disk;
    credentials.SetListener({.revoked =
                                 [&](const std::set<std::string>& now) {
                                   written.push_back(now);
                                   return disk;
                                 },
                             .fetched = {}});
    credentials.Configure({FromFile(folder.Put("key", "value-one"))});
    CHECK(Get(credentials).ok());
    disk = absl::ResourceExhaustedError("no room");
    CHECK(absl::IsResourceExhausted(credentials.Revoke("api")));
    CHECK(credentials.IsRevoked("api"));
    CHECK_FALSE(Get(credentials).ok());
    // Restored it is only once that is written down.
    CHECK_FALSE(credentials.Restore("api").ok());
    CHECK_FALSE(Get(credentials).ok());
    disk = absl::OkStatus();
    CHECK(credentials.Restore("api").ok());
    CHECK(Get(credentials).ok());
    CHECK(written.back().empty());
    // From the start.
    credentials.SetRevoked({"api"});
    CHECK(absl::IsPermissionDenied(Get(credentials).status()));
    credentials.SetListener({});
  }

  TEST_CASE("a value is told of before it is used, also if nobody asked for it") {
    const Folder folder;
    Credentials credentials;
    std::promise<void> told;
    credentials.SetListener({.revoked = {}, .fetched = [&] { told.set_value(); }});
    credentials.Configure({FromFile(folder.Put("key", "value-one"))});
    credentials.FetchAll();
    told.get_future().get();
    const auto forms = credentials.NamedForms();
    CHECK(std::count(forms.begin(), forms.end(),
                     std::pair<std::string, std::string>("api", "value-one")) == 1);
    // Told once: it is the same.
    credentials.FetchAll();
    CHECK(Get(credentials).ok());
    credentials.SetListener({});
  }

  TEST_CASE("a command that takes its time holds up no other service") {
    const Folder folder;
    Credentials credentials;
    // Ends when the other has answered, which it does not if it waits for this one.
    const std::string gate = folder.path + "/gate";
    credentials.Configure(
        {FromCommand("slow", "while [ ! -e " + gate + " ]; do sleep 0.02; done; echo slow-value"),
         FromCommand("quick", "echo quick-value"), FromFile(folder.Put("key", "file-value"))});
    std::promise<std::string> slow;
    credentials.Get("slow", [&](auto secret) {
      slow.set_value(secret.ok() ? (*secret)->value : std::string(secret.status().message()));
    });
    CHECK((*Get(credentials, "quick"))->value == "quick-value");
    CHECK((*Get(credentials))->value == "file-value");
    folder.Put("gate", "");
    CHECK(slow.get_future().get() == "slow-value");
  }

  TEST_CASE("whoever waits for one value waits for one fetch of it") {
    const Folder folder;
    Credentials credentials;
    const std::string log = folder.path + "/log";
    credentials.Configure({FromCommand("api", "echo x >> " + log + "; sleep 0.2; echo the-value")});
    std::promise<void> all;
    std::atomic<int> answered{0};
    credentials.FetchAll();
    for (int i = 0; i < 10; ++i) {
      credentials.Get("api", [&](auto secret) {
        CHECK(secret.ok());
        if (++answered == 10) {
          all.set_value();
        }
      });
    }
    all.get_future().get();
    std::ifstream runs(log);
    CHECK(std::count(std::istreambuf_iterator<char>(runs), {}, 'x') == 1);
  }

  TEST_CASE("a reload and a stop find whatever is being fetched") {
    const Folder folder;
    std::atomic<int> answered{0};
    for (int round = 0; round < 20; ++round) {
      Credentials credentials;
      credentials.SetListener(
          {.revoked = {}, .fetched = [&] { static_cast<void>(credentials.NamedForms()); }});
      std::vector<EgressService> services;
      for (int i = 0; i < 8; ++i) {
        services.push_back(FromCommand("s" + std::to_string(i), "echo value-" + std::to_string(i)));
      }
      credentials.Configure(services);
      credentials.FetchAll();
      for (const EgressService& each : services) {
        credentials.Get(each.name, [&](const auto&) { ++answered; });
      }
      for (size_t i = 0; i < services.size(); i += 2) {
        services[i].credential.command.back() += "-more";
      }
      services.pop_back();
      credentials.Configure(services);
      CHECK((*Get(credentials, "s0"))->value == "value-0-more");
      CHECK((*Get(credentials, "s1"))->value == "value-1");
    }
    CHECK(answered >= 20 * 3);
  }

  TEST_CASE("a value that was being fetched when it was revoked is fetched again") {
    const Folder folder;
    Credentials credentials;
    folder.Put("key", "value-old");
    const std::string begun = folder.path + "/begun";
    credentials.Configure({FromCommand("api", "v=$(cat " + folder.path + "/key); : > " + begun +
                                                  "; while [ ! -e " + folder.path +
                                                  "/gate ]; do sleep 0.02; done; "
                                                  "echo $v")});
    std::promise<std::string> first;
    credentials.Get("api", [&](auto secret) {
      first.set_value(secret.ok() ? (*secret)->value : std::string(secret.status().message()));
    });
    while (!std::filesystem::exists(begun)) {
      usleep(5'000);
    }
    CHECK(credentials.Revoke("api").ok());
    folder.Put("key", "value-new");
    CHECK(credentials.Restore("api").ok());
    folder.Put("gate", "");
    CHECK(first.get_future().get() == "value-new");
    CHECK((*Get(credentials))->value == "value-new");
  }
}

}  // namespace
}  // namespace creel::egress
