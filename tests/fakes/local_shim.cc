#include "tests/fakes/local_shim.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include "supervisor/base/unique_fd.h"

namespace creel {
namespace {

using shim::v1::CommandSpec;
using shim::v1::Exit;
using shim::v1::RunRequest;
using shim::v1::RunResponse;

struct Child {
  pid_t pid = -1;
  UniqueFd in;
  UniqueFd out;
  UniqueFd err;
  UniqueFd failure;  // holds the errno of a failed exec
};

// Everything a child needs is built before the fork.
Child Spawn(const CommandSpec& spec, const std::string& cwd) {
  std::vector<std::string> words(spec.argv().begin(), spec.argv().end());
  if (!spec.shell().empty()) {
    words = {"/bin/sh", "-c", spec.shell()};
  }
  std::map<std::string, std::string> env = {{"PATH", "/usr/local/bin:/usr/bin:/bin"},
                                            {"HOME", "/workspace"}};
  for (const auto& [name, value] : spec.env()) {
    env[name] = value;
  }
  std::vector<std::string> pairs;
  for (const auto& [name, value] : env) {
    pairs.push_back(name + "=" + value);
  }
  std::vector<char*> argv;
  for (std::string& word : words) {
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  std::vector<char*> envp;
  for (std::string& pair : pairs) {
    envp.push_back(pair.data());
  }
  envp.push_back(nullptr);

  Child child;
  std::array<std::array<int, 2>, 4> pipes{};
  for (auto& ends : pipes) {
    if (pipe2(ends.data(), O_CLOEXEC) != 0) {
      return child;
    }
  }
  // Until it has execve()d, a signal would run this program's handlers in it, among them the test
  // runner's, which take locks that nobody gives back there.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  if (spec.has_terminal()) {
    winsize size{};
    size.ws_row = static_cast<unsigned short>(spec.terminal().rows());
    size.ws_col = static_cast<unsigned short>(spec.terminal().columns());
    int master = -1;
    child.pid = forkpty(&master, nullptr, nullptr, &size);
    if (child.pid > 0) {
      fcntl(master, F_SETFD, FD_CLOEXEC);
      child.in = UniqueFd(fcntl(master, F_DUPFD_CLOEXEC, 0));
      child.out = UniqueFd(master);
    }
  } else {
    child.pid = fork();
    if (child.pid == 0) {
      setpgid(0, 0);
      dup2(pipes[0][0], 0);
      dup2(pipes[1][1], 1);
      dup2(pipes[2][1], 2);
    }
  }
  if (child.pid == 0) {
    for (int number = 1; number < NSIG; ++number) {
      signal(number, SIG_DFL);
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (chdir(cwd.c_str()) == 0) {
      execvpe(argv[0], argv.data(), envp.data());
    }
    const int error = errno;
    (void)!write(pipes[3][1], &error, sizeof(error));
    _exit(127);
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  close(pipes[0][0]);
  close(pipes[1][1]);
  close(pipes[2][1]);
  close(pipes[3][1]);
  UniqueFd in(pipes[0][1]);
  UniqueFd out(pipes[1][0]);
  child.err = UniqueFd(pipes[2][0]);
  child.failure = UniqueFd(pipes[3][0]);
  if (!spec.has_terminal()) {
    child.in = std::move(in);
    child.out = std::move(out);
  }
  return child;
}

void WriteAll(int fd, std::string_view data) {
  while (!data.empty()) {
    const ssize_t written = write(fd, data.data(), data.size());
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written <= 0) {
      return;
    }
    data.remove_prefix(static_cast<size_t>(written));
  }
}

// Before it has become a group of its own there is only the process.
void Signal(pid_t pid, int signal) {
  if (kill(-pid, signal) != 0) {
    kill(pid, signal);
  }
}

void Feed(grpc::ServerReaderWriter<RunResponse, RunRequest>& stream, Child& child) {
  RunRequest request;
  while (stream.Read(&request)) {
    const auto& input = request.input();
    if (input.has_stdin()) {
      WriteAll(child.in.get(), input.stdin());
    } else if (input.has_close_stdin()) {
      child.in.reset();
    } else if (input.has_resize()) {
      winsize size{};
      size.ws_row = static_cast<unsigned short>(input.resize().rows());
      size.ws_col = static_cast<unsigned short>(input.resize().columns());
      ioctl(child.out.get(), TIOCSWINSZ, &size);
    } else if (input.has_signal()) {
      Signal(child.pid, input.signal());
    } else if (input.has_stop()) {
      Signal(child.pid, SIGTERM);
    }
  }
}

Exit HowItEnded(Child& child, const std::string& program) {
  int status = 0;
  waitpid(child.pid, &status, 0);
  Exit exit;
  int error = 0;
  if (read(child.failure.get(), &error, sizeof(error)) == sizeof(error)) {
    exit.mutable_start_failure()->set_error(error);
    exit.mutable_start_failure()->set_step(shim::v1::START_STEP_EXEC);
    exit.mutable_start_failure()->set_message("'" + program + "': " + strerror(error));
  } else if (WIFSIGNALED(status)) {
    exit.set_signal(WTERMSIG(status));
  } else {
    exit.set_code(WEXITSTATUS(status));
  }
  return exit;
}

grpc::Status Failed(const std::string& what) {
  return {grpc::StatusCode::NOT_FOUND, what + ": " + strerror(errno)};
}

void FillInfo(const struct stat& st, shim::v1::FileInfo& info) {
  info.set_size(static_cast<uint64_t>(st.st_size));
  info.set_mode(st.st_mode & 07777);
  info.set_type(S_ISDIR(st.st_mode)   ? shim::v1::FILE_TYPE_DIRECTORY
                : S_ISREG(st.st_mode) ? shim::v1::FILE_TYPE_REGULAR
                : S_ISLNK(st.st_mode) ? shim::v1::FILE_TYPE_SYMLINK
                                      : shim::v1::FILE_TYPE_OTHER);
}

}  // namespace

LocalShim::LocalShim(std::string root) : root_(std::move(root)) {
  // A tar that ends early is an error, not the end of the test.
  signal(SIGPIPE, SIG_IGN);
}

std::string LocalShim::Resolve(const std::string& path) const {
  if (path.starts_with("/workspace")) {
    return root_ + path.substr(strlen("/workspace"));
  }
  return path.starts_with("/") ? path : root_ + "/" + path;
}

grpc::Status LocalShim::Run(grpc::ServerContext* /*context*/,
                            grpc::ServerReaderWriter<RunResponse, RunRequest>* stream) {
  RunRequest request;
  if (!stream->Read(&request) || !request.has_start()) {
    return {grpc::StatusCode::INVALID_ARGUMENT, "the first message must be `start`"};
  }
  const CommandSpec spec = request.start().spec();
  Child child = Spawn(spec, Resolve(spec.cwd()));
  if (!spec.stdin() && !spec.has_terminal()) {
    child.in.reset();
  }
  RunResponse response;
  auto& started = *response.mutable_event()->mutable_started();
  started.set_process_id(request.start().process_id());
  started.set_pid(child.pid);
  {
    // Whoever has heard of it may stop it.
    const std::lock_guard<std::mutex> lock(mu_);
    running_[request.start().process_id()] = child.pid;
  }
  stream->Write(response);

  std::atomic<bool> ended = false;
  std::thread timer;
  if (spec.has_timeout()) {
    timer = std::thread([&] {
      const auto limit = std::chrono::seconds(spec.timeout().seconds()) +
                         std::chrono::nanoseconds(spec.timeout().nanos());
      const auto until = std::chrono::steady_clock::now() + limit;
      while (!ended && std::chrono::steady_clock::now() < until) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
      if (!ended) {
        Signal(child.pid, SIGKILL);
      }
    });
  }
  std::thread feeder([&] { Feed(*stream, child); });
  uint64_t offset = 0;
  std::array<pollfd, 2> fds = {pollfd{child.out.get(), POLLIN, 0},
                               pollfd{spec.has_terminal() ? -1 : child.err.get(), POLLIN, 0}};
  std::string buffer(64u << 10, '\0');
  while (fds[0].fd >= 0 || fds[1].fd >= 0) {
    poll(fds.data(), fds.size(), -1);
    for (size_t i = 0; i < fds.size(); ++i) {
      if (fds[i].fd < 0 || fds[i].revents == 0) {
        continue;
      }
      const ssize_t got = read(fds[i].fd, buffer.data(), buffer.size());
      if (got <= 0) {
        fds[i].fd = -1;
        continue;
      }
      auto& output = *response.mutable_event()->mutable_output();
      output.set_stream(i == 0 ? shim::v1::OUTPUT_STREAM_STDOUT : shim::v1::OUTPUT_STREAM_STDERR);
      output.set_offset(offset);
      output.set_data(buffer.data(), static_cast<size_t>(got));
      offset += static_cast<uint64_t>(got);
      stream->Write(response);
    }
  }
  const std::string process_id = request.start().process_id();
  Exit exit = HowItEnded(child, spec.argv().empty() ? "sh" : spec.argv(0));
  ended = true;
  {
    const std::lock_guard<std::mutex> lock(mu_);
    running_.erase(process_id);
  }
  if (timer.joinable()) {
    timer.join();
    exit.set_timed_out(exit.signal() == SIGKILL);
  }
  exit.set_output_bytes(offset);
  *response.mutable_event()->mutable_exit() = exit;
  stream->Write(response);
  // The feeder ends when the supervisor, having seen the exit, half-closes or cancels.
  feeder.join();
  return grpc::Status::OK;
}

grpc::Status LocalShim::Stat(grpc::ServerContext* /*context*/, const shim::v1::StatRequest* request,
                             shim::v1::StatResponse* response) {
  const std::string path = Resolve(request->args().path());
  struct stat st {};
  if ((request->args().no_follow() ? lstat(path.c_str(), &st) : stat(path.c_str(), &st)) != 0) {
    return Failed("'" + request->args().path() + "'");
  }
  auto& info = *response->mutable_info();
  info.set_path(request->args().path());
  FillInfo(st, info);
  return grpc::Status::OK;
}

grpc::Status LocalShim::SendInput(grpc::ServerContext* /*context*/,
                                  const shim::v1::SendInputRequest* request,
                                  shim::v1::SendInputResponse* /*response*/) {
  const std::lock_guard<std::mutex> lock(mu_);
  const auto found = running_.find(request->process_id());
  if (found == running_.end() || !request->input().has_stop()) {
    return {grpc::StatusCode::NOT_FOUND, "no such process"};
  }
  Signal(found->second, SIGKILL);
  return grpc::Status::OK;
}

grpc::Status LocalShim::ReadFile(grpc::ServerContext* /*context*/,
                                 const shim::v1::ReadFileRequest* request,
                                 grpc::ServerWriter<shim::v1::ReadFileResponse>* writer) {
  std::ifstream file(Resolve(request->args().path()), std::ios::binary);
  if (!file) {
    return Failed("'" + request->args().path() + "'");
  }
  file.seekg(static_cast<std::streamoff>(request->args().offset()));
  uint64_t left = request->args().length() == 0 ? UINT64_MAX : request->args().length();
  std::string buffer(64u << 10, '\0');
  shim::v1::ReadFileResponse response;
  while (left > 0 && file) {
    file.read(buffer.data(), static_cast<std::streamsize>(std::min<uint64_t>(left, buffer.size())));
    const auto got = static_cast<size_t>(file.gcount());
    response.mutable_chunk()->set_data(buffer.data(), got);
    if (got == 0 || !writer->Write(response)) {
      break;
    }
    left -= got;
  }
  return grpc::Status::OK;
}

grpc::Status LocalShim::WriteFile(grpc::ServerContext* /*context*/,
                                  grpc::ServerReader<shim::v1::WriteFileRequest>* reader,
                                  shim::v1::WriteFileResponse* response) {
  shim::v1::WriteFileRequest request;
  if (!reader->Read(&request) || !request.has_args()) {
    return {grpc::StatusCode::INVALID_ARGUMENT, "the first message must hold `args`"};
  }
  const std::string path = Resolve(request.args().path());
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  if (!file) {
    return Failed("'" + request.args().path() + "'");
  }
  uint64_t bytes = 0;
  while (reader->Read(&request)) {
    bytes += request.data().size();
    file << request.data();
  }
  response->mutable_result()->mutable_info()->set_size(bytes);
  return grpc::Status::OK;
}

grpc::Status LocalShim::MakeDirectory(grpc::ServerContext* /*context*/,
                                      const shim::v1::MakeDirectoryRequest* request,
                                      shim::v1::MakeDirectoryResponse* response) {
  std::error_code failed;
  response->set_created(
      std::filesystem::create_directories(Resolve(request->args().path()), failed));
  return failed ? grpc::Status(grpc::StatusCode::NOT_FOUND, failed.message()) : grpc::Status::OK;
}

grpc::Status LocalShim::ListDirectory(grpc::ServerContext* /*context*/,
                                      const shim::v1::ListDirectoryRequest* request,
                                      grpc::ServerWriter<shim::v1::ListDirectoryResponse>* writer) {
  namespace fs = std::filesystem;
  const fs::path top = Resolve(request->args().path());
  shim::v1::ListDirectoryResponse response;
  std::error_code failed;
  for (const auto& entry : fs::recursive_directory_iterator(top, failed)) {
    struct stat st {};
    if (lstat(entry.path().c_str(), &st) != 0) {
      return Failed(entry.path());
    }
    shim::v1::FileInfo& info = *response.mutable_batch()->add_entries();
    info.set_path(entry.path().lexically_relative(top.lexically_normal()).string());
    FillInfo(st, info);
    if (S_ISLNK(st.st_mode)) {
      info.set_link_target(fs::read_symlink(entry.path()).string());
    }
  }
  if (failed) {
    return {grpc::StatusCode::NOT_FOUND, failed.message()};
  }
  writer->Write(response);
  return grpc::Status::OK;
}

grpc::Status LocalShim::TarOut(grpc::ServerContext* /*context*/,
                               const shim::v1::TarOutRequest* request,
                               grpc::ServerWriter<shim::v1::TarOutResponse>* writer) {
  std::string path = Resolve(request->args().path());
  if (access(path.c_str(), F_OK) != 0) {
    return Failed("'" + request->args().path() + "'");
  }
  while (path.size() > 1 && path.ends_with('/')) {
    path.pop_back();
  }
  const size_t slash = path.rfind('/');
  const std::string name = path.substr(slash + 1);
  const std::string root =
      request->args().rename_root().empty() ? name : request->args().rename_root();
  const std::string command = "tar --format=pax -C '" + path.substr(0, slash) +
                              "' --transform 's,^" + name + "," + root + ",S' -cf - '" + name + "'";
  FILE* pipe = popen(command.c_str(), "re");
  shim::v1::TarOutResponse response;
  std::string buffer(64u << 10, '\0');
  size_t got = 0;
  while ((got = fread(buffer.data(), 1, buffer.size(), pipe)) > 0) {
    response.set_data(buffer.data(), got);
    if (!writer->Write(response)) {
      break;
    }
  }
  pclose(pipe);
  return grpc::Status::OK;
}

grpc::Status LocalShim::TarIn(grpc::ServerContext* /*context*/,
                              grpc::ServerReader<shim::v1::TarInRequest>* reader,
                              shim::v1::TarInResponse* response) {
  shim::v1::TarInRequest request;
  if (!reader->Read(&request) || !request.has_args()) {
    return {grpc::StatusCode::INVALID_ARGUMENT, "the first message must hold `args`"};
  }
  const std::string path = Resolve(request.args().path());
  if (request.args().make_parents()) {
    mkdir(path.c_str(), 0755);
  }
  if (access(path.c_str(), F_OK) != 0) {
    return Failed("'" + request.args().path() + "'");
  }
  std::string command = "tar -C '" + path + "' -xf - --no-same-owner";
  if (!request.args().rename_root().empty()) {
    command += " --transform 's,^[^/]*," + request.args().rename_root() + ",S'";
  }
  FILE* pipe = popen(command.c_str(), "we");
  uint64_t bytes = 0;
  while (reader->Read(&request)) {
    bytes += request.data().size();
    fwrite(request.data().data(), 1, request.data().size(), pipe);
  }
  if (pclose(pipe) != 0) {
    return {grpc::StatusCode::INVALID_ARGUMENT, "not a tar stream"};
  }
  response->mutable_result()->set_bytes(bytes);
  return grpc::Status::OK;
}

}  // namespace creel
