#include "tests/integration/support/supervisor.h"

#include <fmt/format.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "supervisor/base/unique_fd.h"

namespace creel::testing {
namespace {

namespace fs = std::filesystem;

std::string Env(const char* name, const std::string& otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : otherwise;
}

// Of nobody on this machine.
constexpr unsigned kDockerUser = 64321;

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<std::string> Docker(const std::string& host, std::vector<std::string> arguments) {
  std::vector<std::string> argv{"docker"};
  if (!host.empty()) {
    argv.insert(argv.end(), {"-H", host});
  }
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  std::vector<std::string> lines;
  std::istringstream out(RunProgram(argv).out);
  for (std::string line; std::getline(out, line);) {
    lines.push_back(line);
  }
  return lines;
}

bool Listens(const std::string& socket_path) {
  const UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, socket_path.c_str(), sizeof(address.sun_path) - 1);
  return connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
}

std::shared_ptr<grpc::Channel> Channel(const std::string& socket) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 20);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel("unix:" + socket, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace

std::vector<std::string> ListeningSockets(const std::string& folder) {
  constexpr char kListens[] = "00010000";
  std::vector<std::string> paths;
  std::ifstream table("/proc/net/unix");
  for (std::string line; std::getline(table, line);) {
    std::istringstream words(line);
    std::string number, references, protocol, flags, type, state, inode, path;
    words >> number >> references >> protocol >> flags >> type >> state >> inode >> path;
    if (flags == kListens && path.starts_with(folder + "/")) {
      paths.push_back(path);
    }
  }
  return paths;
}

bool Eventually(const std::function<bool()>& condition, std::chrono::milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) {
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return true;
}

Supervisor::Supervisor(SupervisorOptions options) : options_(std::move(options)) {
  signal(SIGPIPE, SIG_IGN);
  if (options_.keep_dir.empty()) {
    std::string pattern = fs::temp_directory_path().string() + "/creel-test-XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr) {
      throw std::runtime_error("no temporary folder");
    }
    dir_ = pattern;
    fs::permissions(dir_, fs::perms(0755));
  } else {
    dir_ = options_.keep_dir;
  }
  const std::string runtime =
      options_.runtime.empty() ? Env("CREEL_TEST_RUNTIME", "") : options_.runtime;
  const std::string image =
      options_.image.empty() ? Env("CREEL_TEST_IMAGE", "creel-sandbox:latest") : options_.image;
  if (options_.engine_host.empty()) {
    options_.engine_host = Env("CREEL_TEST_ENGINE", "");
  }
  std::ofstream config(dir_ + "/creel.yaml");
  config << "paths:\n  run_dir: " << run_dir() << "\n  state_dir: " << state_dir() << "\n";
  if (!options_.engine_host.empty()) {
    config << "engine:\n  host: " << options_.engine_host << "\n";
  }
  config << "sandbox:\n  image: " << image << "\n";
  if (!runtime.empty()) {
    config << "  runtime: " << runtime << "\n";
  }
  config << options_.sandbox_config << options_.extra_config;
  if (("\n" + options_.extra_config).find("\nsessions:") == std::string::npos) {
    // No containers but those that a test opens, as most of them count.
    config << "sessions:\n  opens_per_minute: 6000\n  max_per_sender: 1000\n"
           << "  warm_pool: {size: 0}\n";
  }
  if (options_.as_docker_user) {
    config << "concessions: [no-sized-workspace, no-idmap, no-blkio, gateway-is-operator]\n";
    if (::chown(dir_.c_str(), kDockerUser, kDockerUser) != 0) {
      throw std::runtime_error("the folder cannot be given away");
    }
  }
  if (runtime == "runsc") {
    config << "concessions: [no-seccomp, no-memory-limit, no-pids-limit]\n";
  }
  config.close();
  Begin(options_.shim);
}

void Supervisor::Begin(const std::string& shim) {
  if (!shim.empty()) {
    // The path of the shim is configured beside the folders.
    std::string text = ReadAll(dir_ + "/creel.yaml");
    const size_t old = text.find("  shim:");
    if (old != std::string::npos) {
      text.erase(old, text.find('\n', old) + 1 - old);
    }
    text.insert(text.find("paths:\n") + 7, "  shim: " + shim + "\n");
    std::ofstream(dir_ + "/creel.yaml") << text;
  }
  std::vector<std::string> argv;
  if (options_.as_docker_user) {
    struct stat socket {};
    ::stat("/var/run/docker.sock", &socket);
    argv = {"setpriv", fmt::format("--reuid={}", kDockerUser),
            fmt::format("--regid={}", kDockerUser), fmt::format("--groups={}", socket.st_gid)};
  }
  argv.insert(argv.end(),
              {Env("CREEL_CREELD", CREEL_TEST_CREELD), "--config", dir_ + "/creel.yaml"});
  process_ = std::make_unique<Background>(argv, dir_ + "/creeld.log");
  // A channel that failed once waits for seconds before it tries again.
  Eventually([this] { return !process_->running() || Listens(run_dir() + "/operator.sock"); },
             std::chrono::seconds(30));
  gateway_ = gateway::v1::Gateway::NewStub(Channel(run_dir() + "/gateway.sock"));
  operator_ = operator_::v1::Operator::NewStub(Channel(run_dir() + "/operator.sock"));
  const bool up = Eventually(
      [this] {
        grpc::ClientContext context;
        context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(1));
        operator_::v1::GetInfoResponse info;
        return !process_->running() || operator_->GetInfo(&context, {}, &info).ok();
      },
      std::chrono::seconds(30));
  if (!up || !process_->running()) {
    throw std::runtime_error("creeld did not start:\n" + Log());
  }
}

Supervisor::~Supervisor() {
  if (process_ != nullptr && process_->running()) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
    operator_::v1::ListSessionsResponse sessions;
    if (operator_->ListSessions(&context, {}, &sessions).ok()) {
      for (const auto& each : sessions.sessions()) {
        grpc::ClientContext closing;
        closing.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
        operator_::v1::CloseSessionRequest request;
        request.set_session(each.session().session());
        request.set_force(true);
        operator_::v1::CloseSessionResponse response;
        static_cast<void>(operator_->CloseSession(&closing, request, &response));
      }
    }
    process_->End(SIGTERM);
  }
  process_.reset();
  for (const std::string& id : ContainersOf(*this)) {
    Docker(options_.engine_host, {"rm", "-f", id});
  }
  for (const std::string& line : MountsWith(dir_ + "/")) {
    std::istringstream words(line);
    std::string device;
    std::string target;
    words >> device >> target;
    RunProgram({"umount", "-l", target});
  }
  std::error_code ignored;
  fs::remove_all(dir_, ignored);
}

std::shared_ptr<grpc::Channel> Supervisor::OperatorChannel() const {
  return Channel(run_dir() + "/operator.sock");
}

Finished Supervisor::Creel(const std::vector<std::string>& arguments) const {
  std::vector<std::string> argv{Env("CREEL_CLI", CREEL_TEST_CLI), "--socket",
                                run_dir() + "/gateway.sock", "--operator-socket",
                                run_dir() + "/operator.sock"};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return RunProgram(argv, "", std::chrono::seconds(300));
}

std::string Supervisor::Log() const { return ReadAll(dir_ + "/creeld.log"); }

void Supervisor::Stop(int signal) { process_->End(signal); }

void Supervisor::StartAgain(const std::string& shim) { Begin(shim); }

void Supervisor::Restart(int signal, const std::string& shim) {
  Stop(signal);
  StartAgain(shim);
}

grpc::Status Supervisor::Open(const std::string& session,
                              gateway::v1::OpenSessionResponse* response,
                              const std::function<void(gateway::v1::OpenSessionRequest&)>& change) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  gateway::v1::OpenSessionRequest request;
  request.mutable_context()->set_session(session);
  if (change) {
    change(request);
  }
  gateway::v1::OpenSessionResponse unused;
  return gateway_->OpenSession(&context, request, response != nullptr ? response : &unused);
}

grpc::Status Supervisor::Close(const std::string& session) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  gateway::v1::CloseSessionRequest request;
  request.mutable_context()->set_session(session);
  gateway::v1::CloseSessionResponse response;
  return gateway_->CloseSession(&context, request, &response);
}

gateway::v1::Session Supervisor::Get(const std::string& session) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  gateway::v1::GetSessionRequest request;
  request.mutable_context()->set_session(session);
  gateway::v1::GetSessionResponse response;
  static_cast<void>(gateway_->GetSession(&context, request, &response));
  return response.session();
}

Outcome Supervisor::Exec(const std::string& session, const std::vector<std::string>& argv,
                         const std::function<void(gateway::v1::ExecStart&)>& change,
                         const std::string& input, std::chrono::seconds timeout) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + timeout);
  const auto stream = gateway_->Exec(&context);
  gateway::v1::ExecRequest request;
  gateway::v1::ExecStart& start = *request.mutable_start();
  start.mutable_context()->set_session(session);
  for (const std::string& each : argv) {
    start.mutable_spec()->add_argv(each);
  }
  start.mutable_spec()->set_stdin(!input.empty());
  if (change) {
    change(start);
  }
  stream->Write(request);
  std::thread feeder;
  if (!input.empty()) {
    feeder = std::thread([&] {
      // A key typed before the command has its terminal is nobody's.
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      for (size_t at = 0; at < input.size(); at += 256 << 10) {
        gateway::v1::ExecRequest piece;
        piece.mutable_input()->set_stdin(input.substr(at, 256 << 10));
        if (!stream->Write(piece)) {
          return;
        }
      }
      gateway::v1::ExecRequest end;
      end.mutable_input()->mutable_close_stdin();
      stream->Write(end);
    });
  }
  Outcome outcome;
  uint64_t expected = 0;
  gateway::v1::ExecResponse response;
  while (stream->Read(&response)) {
    auto& event = *response.mutable_event();
    if (event.has_started()) {
      outcome.process_id = event.started().process_id();
    } else if (event.has_output()) {
      const auto& output = event.output();
      if (output.offset() != expected) {
        outcome.missed += output.offset() - expected;
      }
      expected = output.offset() + output.data().size();
      (output.stream() == shim::v1::OUTPUT_STREAM_STDERR ? outcome.err : outcome.out) +=
          output.data();
    } else if (event.has_exit()) {
      outcome.exit = event.exit();
      outcome.has_exit = true;
    }
  }
  outcome.status = stream->Finish();
  if (feeder.joinable()) {
    feeder.join();
  }
  return outcome;
}

Outcome Supervisor::Shell(const std::string& session, const std::string& line,
                          std::chrono::seconds timeout) {
  return Exec(
      session, {}, [&](auto& start) { start.mutable_spec()->set_shell(line); }, "", timeout);
}

grpc::Status Supervisor::Write(const std::string& session, const std::string& path,
                               const std::string& data, uint32_t mode) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  gateway::v1::WriteFileResponse response;
  const auto writer = gateway_->WriteFile(&context, &response);
  gateway::v1::WriteFileRequest request;
  request.mutable_start()->mutable_context()->set_session(session);
  request.mutable_start()->mutable_args()->set_path(path);
  request.mutable_start()->mutable_args()->set_mode(mode);
  bool open = writer->Write(request);
  for (size_t at = 0; open && at < data.size(); at += 256 << 10) {
    request.set_data(data.substr(at, 256 << 10));
    open = writer->Write(request);
  }
  writer->WritesDone();
  return writer->Finish();
}

std::pair<grpc::Status, std::string> Supervisor::Read(const std::string& session,
                                                      const std::string& path) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  gateway::v1::ReadFileRequest request;
  request.mutable_context()->set_session(session);
  request.mutable_args()->set_path(path);
  const auto reader = gateway_->ReadFile(&context, request);
  std::string data;
  gateway::v1::ReadFileResponse response;
  while (reader->Read(&response)) {
    data += response.chunk().data();
  }
  return {reader->Finish(), std::move(data)};
}

std::string Supervisor::PutProgram(const std::string& session, const std::string& name) {
  const std::string binary = ReadAll(std::string(CREEL_TEST_PROGRAMS) + "/" + name);
  const grpc::Status status = Write(session, name, binary, 0755);
  if (binary.empty() || !status.ok()) {
    throw std::runtime_error("cannot put " + name + ": " + status.error_message());
  }
  return "./" + name;
}

std::vector<std::string> ContainersOf(const Supervisor& supervisor) {
  // The container's first mount is a folder of this supervisor's.
  std::vector<std::string> ours;
  const std::string& host = supervisor.engine_host();
  for (const std::string& id :
       Docker(host, {"ps", "-aq", "--no-trunc", "--filter", "label=creel.sandbox"})) {
    const auto mounts = Docker(host, {"inspect", "-f", "{{json .Mounts}}", id});
    if (!mounts.empty() && mounts[0].find(supervisor.dir() + "/") != std::string::npos) {
      ours.push_back(id);
    }
  }
  return ours;
}

std::vector<std::string> MountsWith(const std::string& text) {
  std::vector<std::string> found;
  std::ifstream mounts("/proc/self/mounts");
  for (std::string line; std::getline(mounts, line);) {
    if (line.find(text) != std::string::npos) {
      found.push_back(line);
    }
  }
  return found;
}

}  // namespace creel::testing
