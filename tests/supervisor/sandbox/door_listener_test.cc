#include "supervisor/sandbox/door_listener.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "creel/shim/v1/shim.grpc.pb.h"
#include "supervisor/base/mutex.h"
#include "tests/supervisor/sandbox/raw_frames.h"

namespace creel {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Tells each caller who it is.
class WhoService final : public shim::v1::Shim::CallbackService {
 public:
  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context,
                                      const shim::v1::GetStatusRequest*,
                                      shim::v1::GetStatusResponse* response) override {
    const std::optional<PeerCredentials> caller = door->CallerOf(context->peer());
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    if (caller.has_value()) {
      response->set_processes(static_cast<uint32_t>(caller->pid));
      response->set_threads(caller->uid);
      reactor->Finish(grpc::Status::OK);
    } else {
      reactor->Finish({grpc::StatusCode::UNAUTHENTICATED, "nobody"});
    }
    return reactor;
  }

  DoorListener* door = nullptr;
};

struct House {
  explicit House(const std::function<void(DoorListener::Options&)>& change = {}) {
    std::string name = "/tmp/creel-door-XXXXXX";
    directory = mkdtemp(name.data());
    grpc::ServerBuilder builder;
    builder.RegisterService(&service);
    server = builder.BuildAndStart();
    DoorListener::Options options;
    options.address = {.directory = directory,
                       .name = "gateway.sock",
                       .mode = 0660,
                       .owner = std::nullopt,
                       .group = std::nullopt};
    options.on_dropped = [this](const PeerCredentials&, const std::string& reason) {
      MutexLock lock(mu);
      dropped.push_back(reason);
    };
    if (change) {
      change(options);
    }
    auto opened = DoorListener::Listen(*pool, server.get(), std::move(options));
    REQUIRE(opened.ok());
    door = std::move(*opened);
    service.door = door.get();
  }
  ~House() {
    door.reset();
    server->Shutdown(std::chrono::system_clock::now());
    std::filesystem::remove_all(directory);
  }

  [[nodiscard]] std::string socket() const { return directory + "/gateway.sock"; }
  bool Dropped(const std::string& text) {
    for (int i = 0; i < 300; ++i) {
      {
        MutexLock lock(mu);
        for (const std::string& reason : dropped) {
          if (reason.find(text) != std::string::npos) {
            return true;
          }
        }
      }
      std::this_thread::sleep_for(milliseconds(10));
    }
    return false;
  }

  std::string directory;
  std::unique_ptr<LinkPool> pool = *LinkPool::Start();
  WhoService service;
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<DoorListener> door;
  Mutex mu;
  std::vector<std::string> dropped ABSL_GUARDED_BY(mu);
};

std::unique_ptr<shim::v1::Shim::Stub> Client(const House& house) {
  grpc::ChannelArguments args;
  // Channels of the same target share a connection otherwise.
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return shim::v1::Shim::NewStub(grpc::CreateCustomChannel(
      "unix:" + house.socket(), grpc::InsecureChannelCredentials(), args));
}

grpc::Status Ask(shim::v1::Shim::Stub& stub, shim::v1::GetStatusResponse* response) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + seconds(5));
  return stub.GetStatus(&context, {}, response);
}

}  // namespace

TEST_SUITE("DoorListener") {
  TEST_CASE("a caller is served, and known by its credentials") {
    House house;
    struct stat info;
    REQUIRE(stat(house.socket().c_str(), &info) == 0);
    CHECK((info.st_mode & 07777) == 0660);
    for (int i = 0; i < 20; ++i) {
      auto stub = Client(house);
      shim::v1::GetStatusResponse response;
      REQUIRE(Ask(*stub, &response).ok());
      CHECK(response.processes() == static_cast<uint32_t>(getpid()));
      CHECK(response.threads() == geteuid());
    }
    for (int i = 0; i < 300 && house.door->connections() > 0; ++i) {
      std::this_thread::sleep_for(milliseconds(10));
    }
    CHECK(house.door->connections() == 0);
    CHECK_FALSE(house.door->CallerOf("fd:3").has_value());
  }

  TEST_CASE("a uid that is not on the list is refused") {
    House house([](auto& options) { options.allowed_uids = {{geteuid() + 1}}; });
    auto stub = Client(house);
    shim::v1::GetStatusResponse response;
    CHECK(Ask(*stub, &response).error_code() == grpc::StatusCode::UNAVAILABLE);
    CHECK(house.Dropped("may not connect here"));
  }

  TEST_CASE("connections are bounded, in all and for each user") {
    for (const bool in_all : {true, false}) {
      House house([in_all](auto& options) {
        (in_all ? options.max_connections : options.max_connections_per_uid) = 3;
      });
      std::vector<UniqueFd> held;
      for (int i = 0; i < 3; ++i) {
        held.push_back(ConnectUnix(house.socket()));
      }
      for (int i = 0; i < 300 && house.door->connections() < 3; ++i) {
        std::this_thread::sleep_for(milliseconds(10));
      }
      const UniqueFd fourth = ConnectUnix(house.socket());
      CHECK(HangsUpWithin(fourth.get(), seconds(5)));
      CHECK(house.Dropped(in_all ? "all 3 connections" : "has 3 connections already"));
      held.clear();
      for (int i = 0; i < 300 && house.door->connections() > 0; ++i) {
        std::this_thread::sleep_for(milliseconds(10));
      }
      auto stub = Client(house);
      shim::v1::GetStatusResponse response;
      CHECK(Ask(*stub, &response).ok());
    }
  }

  TEST_CASE("a hostile client is dropped, and others are served on") {
    House house;
    auto stub = Client(house);
    shim::v1::GetStatusResponse response;
    REQUIRE(Ask(*stub, &response).ok());
    const std::string start = std::string(kPreface) + Frame(kSettings, 0, 0, 0);
    std::string streams = start;
    for (uint32_t i = 0; i < 30000; ++i) {
      streams += Frame(kHeaders, kEndHeaders, 2 * i + 1, 4);
    }
    const std::string rows[] = {
        "GET / HTTP/1.1\r\n\r\n",
        start + Frame(kHeaders, 0, 1, 10) + Repeat(Frame(kContinuation, 0, 1, 1000), 10000),
        start + Repeat(Frame(kPing, 0, 0, 8), 50000),
        start + Repeat(Frame(kRstStream, 0, 1, 4), 50000),
        streams,
    };
    for (const std::string& bytes : rows) {
      const UniqueFd hostile = ConnectUnix(house.socket());
      REQUIRE(hostile.valid());
      SendUntilRefused(hostile.get(), bytes);
      CHECK(HangsUpWithin(hostile.get(), seconds(5)));
      CHECK(Ask(*stub, &response).ok());
    }
  }

  TEST_CASE("a door that stopped listening serves those who are in") {
    House house;
    auto stub = Client(house);
    shim::v1::GetStatusResponse response;
    REQUIRE(Ask(*stub, &response).ok());
    house.door->StopListening();
    CHECK_FALSE(ConnectUnix(house.socket()).valid());
    CHECK_FALSE(std::filesystem::exists(house.socket()));
    CHECK(Ask(*stub, &response).ok());
  }

  TEST_CASE("a socket that was left behind is replaced, another file is not") {
    House house;
    UnixAddress address = {.directory = house.directory,
                           .name = "left.sock",
                           .mode = 0600,
                           .owner = std::nullopt,
                           .group = std::nullopt};
    absl::StatusOr<UniqueFd> left = ListenUnix(address, 1);
    REQUIRE(left.ok());
    left->reset();
    CHECK(std::filesystem::exists(house.directory + "/left.sock"));
    CHECK(ListenUnix(address, 1).ok());
    address.name = "file";
    UniqueFd(open((house.directory + "/file").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    CHECK(absl::IsAlreadyExists(ListenUnix(address, 1).status()));
    RemoveUnix(address);
    CHECK(std::filesystem::exists(house.directory + "/file"));
  }
}

}  // namespace creel
