#pragma once

#include <grpcpp/create_channel_posix.h>
#include <grpcpp/grpcpp.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>

#include "creel/shim/v1/shim.grpc.pb.h"
#include "supervisor/base/crypto.h"
#include "supervisor/base/unique_fd.h"

namespace creel::shim {

// A creel-shim as a child of the test, and the supervisor's end of its link.
class ShimClient {
 public:
  explicit ShimClient(const std::string& binary) {
    char directory[] = "/tmp/creel-shim-XXXXXX";
    if (mkdtemp(directory) == nullptr) {
      throw std::runtime_error("mkdtemp");
    }
    directory_ = directory;
    path_ = directory_ + "/shim.sock";
    Listen();
    const char* argv[] = {binary.c_str(), "--connect", path_.c_str(), nullptr};
    char* envp[] = {nullptr};
    if (posix_spawn(&pid_, binary.c_str(), nullptr, nullptr, const_cast<char**>(argv), envp) != 0) {
      throw std::runtime_error("start " + binary);
    }
    Accept();
  }
  ~ShimClient() {
    stub_.reset();
    channel_.reset();
    kill(pid_, SIGTERM);
    waitpid(pid_, nullptr, 0);
    unlink(path_.c_str());
    rmdir(directory_.c_str());
  }
  ShimClient(const ShimClient&) = delete;
  ShimClient& operator=(const ShimClient&) = delete;

  v1::Shim::Stub& stub() { return *stub_; }
  [[nodiscard]] pid_t pid() const { return pid_; }

  // Drops the link and takes the shim's next call.
  void Reconnect() {
    stub_.reset();
    channel_.reset();
    shutdown(copy_.get(), SHUT_RDWR);
    Accept();
  }

  grpc::Status Hello(bool with_key, v1::HelloResponse* response) {
    v1::HelloRequest request;
    nonce_ = RandomBytes(32);
    request.set_version("0.1.0");
    request.set_nonce(nonce_);
    if (with_key) {
      request.set_key(key_);
      v1::SandboxSetup& setup = *request.mutable_setup();
      setup.set_sandbox_id("test");
      setup.set_tool_uid(getuid());
      setup.set_tool_gid(getgid());
      setup.set_workspace("/tmp");
      (*setup.mutable_env())["PATH"] = "/usr/local/bin:/usr/bin:/bin";
    }
    grpc::ClientContext context;
    return stub_->Hello(&context, request, response);
  }
  [[nodiscard]] bool Proves(const v1::HelloResponse& response) const {
    return response.proof() == HmacSha256(key_, "creel-hello-1" + nonce_);
  }

 private:
  void Listen() {
    listener_.reset(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, path_.data(), path_.size());
    if (bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
        listen(listener_.get(), 4) != 0) {
      throw std::runtime_error("listen");
    }
  }
  void Accept() {
    pollfd ready{.fd = listener_.get(), .events = POLLIN, .revents = 0};
    if (poll(&ready, 1, 10'000) != 1) {
      throw std::runtime_error("the shim does not call");
    }
    UniqueFd connection(
        accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    copy_.reset(dup(connection.get()));
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(4 << 20);
    arguments.SetInt(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, (1 << 20) - 1);
    arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 4 << 20);
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    arguments.SetInt("test.connection", ++connections_);  // no two share a subchannel
    channel_ = grpc::CreateCustomInsecureChannelFromFd("shim", connection.release(), arguments);
    stub_ = v1::Shim::NewStub(channel_);
  }

  std::string directory_;
  std::string path_;
  UniqueFd listener_;
  UniqueFd copy_;
  pid_t pid_ = 0;
  int connections_ = 0;
  const std::string key_ = RandomBytes(32);
  std::string nonce_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Shim::Stub> stub_;
};

}  // namespace creel::shim
