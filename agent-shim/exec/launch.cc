#include "agent-shim/exec/launch.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <utility>

namespace creel::shim {
namespace {

constexpr size_t kMaxString = 131'071;  // MAX_ARG_STRLEN less its NUL
constexpr size_t kMaxBody = 2u << 20;   // ARG_MAX with the usual stack limit
constexpr size_t kMaxSummary = 4096;
constexpr size_t kMaxNamed = 200;  // of a name in a message

bool HasNul(std::string_view text) { return text.find('\0') != std::string_view::npos; }

absl::Status CheckString(std::string_view what, std::string_view text) {
  if (HasNul(text)) {
    return absl::InvalidArgumentError(fmt::format("{} holds a NUL byte", what));
  }
  if (text.size() > kMaxString) {
    return absl::InvalidArgumentError(fmt::format("{} is {} bytes long, the kernel takes {}", what,
                                                  text.size(), kMaxString));
  }
  return absl::OkStatus();
}

// At most `bytes` of a text in UTF-8, without half a character at the end.
std::string Cut(const std::string& text, size_t bytes) {
  if (text.size() <= bytes) {
    return text;
  }
  while (bytes > 0 && (static_cast<unsigned char>(text[bytes]) & 0xC0) == 0x80) {
    --bytes;
  }
  return text.substr(0, bytes);
}

std::string WorkingDirectory(const v1::CommandSpec& spec, const CommandDefaults& defaults) {
  if (spec.cwd().empty()) {
    return defaults.workspace;
  }
  if (spec.cwd().front() == '/') {
    return spec.cwd();
  }
  return fmt::format("{}/{}", defaults.workspace, spec.cwd());
}

void AppendString(std::string& body, std::string_view text) {
  body.append(text);
  body.push_back('\0');
}

absl::Status AppendArguments(const v1::CommandSpec& spec, LaunchOrder& order) {
  if (!spec.shell().empty()) {
    if (spec.argv_size() != 0) {
      return absl::InvalidArgumentError("both 'argv' and 'shell' are set");
    }
    RETURN_IF_ERROR(CheckString("'shell'", spec.shell()));
    AppendString(order.body, "/bin/sh");
    AppendString(order.body, "-c");
    AppendString(order.body, spec.shell());
    order.header.argc = 3;
    return absl::OkStatus();
  }
  if (spec.argv_size() == 0) {
    return absl::InvalidArgumentError("the command is empty: neither 'argv' nor 'shell' is set");
  }
  for (int i = 0; i < spec.argv_size(); ++i) {
    RETURN_IF_ERROR(CheckString(fmt::format("argument {}", i), spec.argv(i)));
    AppendString(order.body, spec.argv(i));
  }
  order.header.argc = spec.argv_size();
  return absl::OkStatus();
}

absl::Status AppendEnvironment(const v1::CommandSpec& spec, const CommandDefaults& defaults,
                               LaunchOrder& order) {
  std::map<std::string_view, std::string_view> env;
  if (spec.has_terminal()) {
    env["TERM"] = "xterm-256color";
  }
  for (const auto& [name, value] : defaults.env) {
    env[name] = value;
  }
  for (const auto& [name, value] : spec.env()) {
    if (name.empty() || name.find('=') != std::string::npos) {
      return absl::InvalidArgumentError(
          fmt::format("'{}' cannot be the name of an environment variable",
                      HasNul(name) ? "" : Cut(name, kMaxNamed)));
    }
    env[name] = value;
  }
  for (const auto& [name, value] : env) {
    const std::string text = fmt::format("{}={}", name, value);
    // The value may be a secret: the message names the variable alone.
    RETURN_IF_ERROR(CheckString(
        fmt::format("environment variable '{}'",
                    HasNul(name) ? "" : Cut(std::string(name), kMaxNamed)),
        text));
    AppendString(order.body, text);
  }
  order.header.envc = env.size();
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> MakeBodyFile(const std::string& body) {
  UniqueFd file(memfd_create("creel-launch", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file.valid()) {
    return ErrnoStatus(errno, "make a memfd");
  }
  for (size_t done = 0; done < body.size();) {
    const ssize_t wrote = write(file.get(), body.data() + done, body.size() - done);
    if (wrote < 0 && errno == EINTR) {
      continue;
    }
    if (wrote <= 0) {
      return ErrnoStatus(errno, "write a memfd");
    }
    done += wrote;
  }
  if (fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) !=
      0) {
    return ErrnoStatus(errno, "seal a memfd");
  }
  return file;
}

std::string ProgramName(const v1::CommandSpec& spec) {
  return spec.shell().empty() ? Cut(spec.argv(0), kMaxNamed) : "/bin/sh";
}

std::string DescribeExec(const v1::CommandSpec& spec, int error) {
  const std::string program = ProgramName(spec);
  switch (error) {
    case ENOENT:
      return spec.shell().empty()
                 ? fmt::format("no such program: '{}'", program)
                 : "no such program: '/bin/sh': the image has no shell, give 'argv' instead";
    case ENOTDIR:
      return fmt::format("no such program: '{}'", program);
    case EACCES:
    case EPERM:
      return fmt::format("'{}' may not be executed", program);
    case ENOEXEC:
      return fmt::format("'{}' is not a program that this machine can execute", program);
    case E2BIG:
      return "arguments and environment are larger than the kernel takes";
    case ETXTBSY:
      return fmt::format("'{}' is being written to", program);
    default:
      return fmt::format("execute '{}': {}", program, strerror(error));
  }
}

}  // namespace

absl::StatusOr<LaunchOrder> MakeLaunchOrder(const v1::CommandSpec& spec,
                                            const CommandDefaults& defaults) {
  LaunchOrder order;
  const std::string cwd = WorkingDirectory(spec, defaults);
  if (HasNul(cwd)) {
    return absl::InvalidArgumentError("'cwd' holds a NUL byte");
  }
  if (cwd.size() >= PATH_MAX) {
    return absl::InvalidArgumentError(fmt::format("'cwd' is longer than {} bytes", PATH_MAX - 1));
  }
  AppendString(order.body, cwd);
  RETURN_IF_ERROR(AppendArguments(spec, order));
  RETURN_IF_ERROR(AppendEnvironment(spec, defaults, order));
  if (order.body.size() > kMaxBody) {
    return absl::InvalidArgumentError(
        fmt::format("arguments and environment are {} bytes long, the kernel takes {}",
                    order.body.size(), kMaxBody));
  }
  order.header.body_bytes = order.body.size();
  order.header.in_memfd = sizeof(LaunchHeader) + order.body.size() > kMaxLaunchPacket ? 1 : 0;
  order.header.terminal = spec.has_terminal() ? 1 : 0;
  order.header.uid = defaults.user.uid;
  order.header.gid = defaults.user.gid;
  order.header.nice = defaults.nice;
  order.header.oom_score_adj = defaults.oom_score_adj;
  order.header.open_files = defaults.open_files;
  return order;
}

absl::Status SendLaunch(int reaper, LaunchOrder order, const Stdio& stdio) {
  int fds[4] = {stdio.child_in.get(), stdio.child_out.get(), stdio.child_err.get(), -1};
  size_t fd_count = 3;
  UniqueFd file;
  if (order.header.in_memfd != 0) {
    ASSIGN_OR_RETURN(file, MakeBodyFile(order.body));
    fds[fd_count++] = file.get();
  }
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fds)] = {};
  iovec pieces[2] = {{.iov_base = &order.header, .iov_len = sizeof order.header},
                     {.iov_base = order.body.data(), .iov_len = order.body.size()}};
  msghdr message{};
  message.msg_iov = pieces;
  message.msg_iovlen = order.header.in_memfd != 0 ? 1 : 2;
  message.msg_control = control;
  message.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
  cmsghdr* rights = CMSG_FIRSTHDR(&message);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
  memcpy(CMSG_DATA(rights), fds, sizeof(int) * fd_count);
  ssize_t sent = 0;
  do {
    sent = sendmsg(reaper, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0 && (errno == EPIPE || errno == ECONNRESET)) {
    return absl::UnavailableError("the reaper has died");
  }
  if (sent < 0) {
    return ErrnoStatus(errno, "order a command");
  }
  return absl::OkStatus();
}

v1::StartFailure DescribeStartFailure(const v1::CommandSpec& spec,
                                      const CommandDefaults& defaults, v1::StartStep step,
                                      int error) {
  v1::StartFailure failure;
  failure.set_error(error);
  failure.set_step(step);
  if (step == v1::START_STEP_EXEC) {
    failure.set_message(DescribeExec(spec, error));
  } else if (step == v1::START_STEP_CWD) {
    const std::string cwd = Cut(WorkingDirectory(spec, defaults), kMaxNamed);
    if (error == ENOENT) {
      failure.set_message(fmt::format("no such directory: '{}'", cwd));
    } else if (error == ENOTDIR) {
      failure.set_message(fmt::format("not a directory: '{}'", cwd));
    } else {
      failure.set_message(fmt::format("enter directory '{}': {}", cwd, strerror(error)));
    }
  } else if (step == v1::START_STEP_FORK) {
    failure.set_message(fmt::format("make a process: {}", strerror(error)));
  } else {
    failure.set_message(fmt::format("prepare the process: {}", strerror(error)));
  }
  return failure;
}

v1::CommandSpec Summary(const v1::CommandSpec& spec) {
  if (spec.ByteSizeLong() <= kMaxSummary) {
    return spec;
  }
  v1::CommandSpec summary;
  summary.set_shell(Cut(spec.shell(), kMaxSummary / 2));
  size_t room = kMaxSummary / 2;
  for (const std::string& argument : spec.argv()) {
    if (room < 16) {
      break;
    }
    summary.add_argv(Cut(argument, room - 8));
    room -= std::min(room, summary.argv(summary.argv_size() - 1).size() + 8);
  }
  summary.set_cwd(Cut(spec.cwd(), kMaxSummary / 4));
  if (spec.has_timeout()) {
    *summary.mutable_timeout() = spec.timeout();
  }
  if (spec.has_grace()) {
    *summary.mutable_grace() = spec.grace();
  }
  if (spec.has_terminal()) {
    *summary.mutable_terminal() = spec.terminal();
  }
  summary.set_stdin(spec.stdin());
  summary.set_overflow(spec.overflow());
  return summary;
}

}  // namespace creel::shim
