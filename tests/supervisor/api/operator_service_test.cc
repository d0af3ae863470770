#include "supervisor/api/operator_service.h"

#include <doctest/doctest.h>

#include <chrono>
#include <memory>
#include <string>

#include "tests/fakes/fake_engine.h"
#include "tests/supervisor/api/gateway_house.h"

using namespace creel;  // NOLINT: a test of one room
namespace o = operator_::v1;

namespace {

// The operator's door over fakes, with one session "s" whose container the engine knows.
struct House {
  House()
      : sandbox(std::make_shared<FakeSandbox>(shim)),
        sessions(sandbox),
        service(sessions, engine, config, [this](bool /*fix*/) { return findings; }) {
    ImageInfo image;
    image.id = "sha256:1";
    engine.AddImage("image", image);
    ContainerConfig container;
    container.name = "creel-0123456789abcdef";
    container.image = "image";
    container.entrypoint = {"/.creel/creel-shim"};
    const std::string id = *engine.CreateContainer(container, After(std::chrono::seconds(1)));
    CHECK(engine.StartContainer(id, After(std::chrono::seconds(1))).ok());
    sandbox->SetContainer(id);
    OpenOptions open;
    open.session = "s";
    CHECK(sessions.Open(open, After(std::chrono::seconds(1))).ok());
    grpc::ServerBuilder builder;
    builder.RegisterService(&service);
    server = builder.BuildAndStart();
    stub = o::Operator::NewStub(ConnectTo(*server));
  }
  ~House() { server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1)); }

  ScratchFolder folder;
  LocalShim shim{folder.path()};
  std::shared_ptr<FakeSandbox> sandbox;
  FakeSessions sessions;
  FakeEngine engine;
  Config config;
  o::DiagnoseResponse findings;
  OperatorService service;
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<o::Operator::Stub> stub;
};

template <class Request, class Response>
grpc::Status Call(House& house,
                  grpc::Status (o::Operator::Stub::*method)(grpc::ClientContext*, const Request&,
                                                            Response*),
                  const Request& request, Response* response) {
  grpc::ClientContext context;
  return ((*house.stub).*method)(&context, request, response);
}

}  // namespace

TEST_SUITE("Operator") {
  TEST_CASE("it says who serves, the engine present or not") {
    House house;
    o::GetInfoResponse info;
    CHECK(Call(house, &o::Operator::Stub::GetInfo, {}, &info).ok());
    CHECK(info.version() == CREEL_VERSION);
    CHECK(info.pid() == getpid());
    CHECK(info.engine_version() == "20.10.24");
    house.engine.SetAway(true);
    info.Clear();
    CHECK(Call(house, &o::Operator::Stub::GetInfo, {}, &info).ok());
    CHECK(info.engine_version().empty());
    CHECK(!info.version().empty());
  }

  TEST_CASE("sessions are opened, listed, inspected and closed") {
    House house;
    o::OpenSessionRequest open;
    open.mutable_open()->mutable_context()->set_session("t");
    o::OpenSessionResponse opened;
    CHECK(Call(house, &o::Operator::Stub::OpenSession, open, &opened).ok());
    CHECK(opened.created());
    CHECK(opened.session().state() == gateway::v1::SESSION_STATE_RUNNING);
    CHECK(opened.session().workdir() == "/workspace");

    o::ListSessionsRequest list;
    list.set_with_usage(true);
    o::ListSessionsResponse listed;
    CHECK(Call(house, &o::Operator::Stub::ListSessions, list, &listed).ok());
    REQUIRE(listed.sessions_size() == 2);
    CHECK(listed.sessions(0).usage().memory_bytes() == 1u << 20);
    CHECK(listed.sessions(0).usage().disk_bytes() == 4096);

    o::InspectSessionRequest inspect;
    inspect.set_session("s");
    o::InspectSessionResponse inspected;
    CHECK(Call(house, &o::Operator::Stub::InspectSession, inspect, &inspected).ok());
    CHECK(inspected.engine_json() == "{}");
    CHECK(inspected.limits().at("memory") == "1 GiB");
    CHECK(inspected.mounts(0).target() == "/run/creel");
    CHECK(inspected.dropped_peers(0).reason() == "a frame of \\x1b[31m2 GiB");
    CHECK(inspected.details().usage().processes() == 1);
    house.engine.SetAway(true);
    inspected.Clear();
    CHECK(Call(house, &o::Operator::Stub::InspectSession, inspect, &inspected).ok());
    CHECK(inspected.shim_version() == "0.1.0");
    CHECK(inspected.engine_json().empty());

    o::CloseSessionRequest close;
    close.set_session("t");
    o::CloseSessionResponse closed;
    CHECK(Call(house, &o::Operator::Stub::CloseSession, close, &closed).ok());
    CHECK(Call(house, &o::Operator::Stub::CloseSession, close, &closed).error_code() ==
          grpc::StatusCode::NOT_FOUND);
  }

  TEST_CASE("settings that cannot be are refused") {
    House house;
    o::OpenSessionResponse response;
    o::OpenSessionRequest large;
    (*large.mutable_open()->mutable_env())["A"] = std::string(70'000, 'x');
    o::OpenSessionRequest name;
    (*name.mutable_open()->mutable_env())["A=B"] = "x";
    o::OpenSessionRequest access;
    access.mutable_open()->set_workspace_access(static_cast<gateway::v1::WorkspaceAccess>(9));
    for (const auto& request : {large, name, access}) {
      CHECK(Call(house, &o::Operator::Stub::OpenSession, request, &response).error_code() ==
            grpc::StatusCode::INVALID_ARGUMENT);
    }
  }

  TEST_CASE("a freeze needs a reason; what is frozen is closed by force only") {
    House house;
    o::FreezeSessionRequest freeze;
    freeze.set_session("s");
    freeze.set_reason(" \n");
    o::FreezeSessionResponse frozen;
    CHECK(Call(house, &o::Operator::Stub::FreezeSession, freeze, &frozen).error_code() ==
          grpc::StatusCode::INVALID_ARGUMENT);
    freeze.set_reason("odd mails");
    CHECK(Call(house, &o::Operator::Stub::FreezeSession, freeze, &frozen).ok());
    CHECK(frozen.method() == "engine");
    o::CloseSessionRequest close;
    close.set_session("s");
    o::CloseSessionResponse closed;
    CHECK(Call(house, &o::Operator::Stub::CloseSession, close, &closed).error_code() ==
          grpc::StatusCode::FAILED_PRECONDITION);
    o::ThawSessionRequest thaw;
    thaw.set_session("s");
    o::ThawSessionResponse thawed;
    CHECK(Call(house, &o::Operator::Stub::ThawSession, thaw, &thawed).ok());
    CHECK(Call(house, &o::Operator::Stub::ThawSession, thaw, &thawed).error_code() ==
          grpc::StatusCode::FAILED_PRECONDITION);
    CHECK(Call(house, &o::Operator::Stub::FreezeSession, freeze, &frozen).ok());
    close.set_force(true);
    CHECK(Call(house, &o::Operator::Stub::CloseSession, close, &closed).ok());
  }

  TEST_CASE("usage comes about once a second, until it is not wanted or cannot be had") {
    House house;
    grpc::ClientContext context;
    o::WatchUsageRequest request;
    request.set_session("s");
    const auto reader = house.stub->WatchUsage(&context, request);
    o::WatchUsageResponse response;
    REQUIRE(reader->Read(&response));
    const auto before = std::chrono::steady_clock::now();
    CHECK(response.processes(0).command() == "/.creel/creel-shim");
    REQUIRE(reader->Read(&response));
    CHECK(std::chrono::steady_clock::now() - before > std::chrono::milliseconds(800));
    house.engine.SetAway(true);
    CHECK(!reader->Read(&response));
    CHECK(reader->Finish().error_code() == grpc::StatusCode::UNAVAILABLE);

    grpc::ClientContext other;
    request.set_session("nobody");
    const auto none = house.stub->WatchUsage(&other, request);
    CHECK(!none->Read(&response));
    CHECK(none->Finish().error_code() == grpc::StatusCode::NOT_FOUND);
  }

  TEST_CASE("findings pass") {
    House house;
    house.findings.add_findings()->set_id("engine.seccomp");
    o::DiagnoseResponse response;
    CHECK(Call(house, &o::Operator::Stub::Diagnose, {}, &response).ok());
    CHECK(response.findings(0).id() == "engine.seccomp");
  }
}
