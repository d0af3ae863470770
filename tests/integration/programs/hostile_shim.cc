// A shim that has been taken over: it proves itself like a good one, and when it is asked to run a
// command it does to the supervisor what the command's first word says.
#include <fcntl.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_posix.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "creel/shim/v1/shim.grpc.pb.h"
#include "supervisor/base/crypto.h"

namespace creel::testing {
namespace {

using shim::v1::RunRequest;
using shim::v1::RunResponse;
using Stream = grpc::ServerReaderWriter<RunResponse, RunRequest>;

int link_fd = -1;  // a second descriptor of the connection, behind gRPC's back

std::string Frame(uint32_t length, uint8_t type, uint8_t flags, uint32_t stream,
                  const std::string& payload) {
  std::string frame;
  frame += static_cast<char>(length >> 16);
  frame += static_cast<char>(length >> 8);
  frame += static_cast<char>(length);
  frame += static_cast<char>(type);
  frame += static_cast<char>(flags);
  for (int shift = 24; shift >= 0; shift -= 8) {
    frame += static_cast<char>(stream >> shift);
  }
  return frame + payload;
}

// Writes a frame again and again until the supervisor hangs up, or for five seconds.
void Flood(const std::string& frame) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (std::chrono::steady_clock::now() < until) {
    if (send(link_fd, frame.data(), frame.size(), MSG_NOSIGNAL) < 0) {
      return;
    }
  }
}

void Started(Stream& stream) {
  RunResponse response;
  response.mutable_event()->mutable_started()->set_pid(7);
  stream.Write(response);
}

void Output(Stream& stream, uint64_t offset, const std::string& data) {
  RunResponse response;
  auto& output = *response.mutable_event()->mutable_output();
  output.set_stream(shim::v1::OUTPUT_STREAM_STDOUT);
  output.set_offset(offset);
  output.set_data(data);
  stream.Write(response);
}

void Exit(Stream& stream) {
  RunResponse response;
  response.mutable_event()->mutable_exit()->set_code(0);
  stream.Write(response);
}

const std::map<std::string, std::function<void(Stream&)>>& Attacks() {
  static const std::map<std::string, std::function<void(Stream&)>> attacks{
      {"good", [](Stream& stream) { Exit(stream); }},
      {"continuation",
       [](Stream&) {
         Flood(Frame(100, 1, 0, 1, std::string(100, '\x40')));
         Flood(Frame(16000, 9, 0, 1, std::string(16000, 'a')));
       }},
      {"oversized", [](Stream&) { Flood(Frame(0xffffff, 0, 0, 1, std::string(100000, 'x'))); }},
      {"ping", [](Stream&) { Flood(Frame(8, 6, 0, 0, std::string(8, 'p'))); }},
      {"settings", [](Stream&) { Flood(Frame(0, 4, 0, 0, "")); }},
      {"rst", [](Stream&) { Flood(Frame(4, 3, 0, 1, std::string(4, '\0'))); }},
      {"push", [](Stream&) { Flood(Frame(4, 5, 4, 1, std::string(4, '\0'))); }},
      {"unknown", [](Stream&) { Flood(Frame(4, 0x77, 0, 0, "abcd")); }},
      {"garbage", [](Stream&) { Flood(std::string(4096, '\xa5')); }},
      {"lie-offset",
       [](Stream& stream) {
         Output(stream, ~0ull - 10, "far away");
         std::this_thread::sleep_for(std::chrono::seconds(5));
       }},
      {"lie-exit", [](Stream&) {}},
      {"lie-length",
       [](Stream& stream) {
         RunResponse response;
         response.mutable_event()->mutable_exit()->set_code(0);
         response.mutable_event()->mutable_exit()->set_output_bytes(1ull << 50);
         stream.Write(response);
       }},
      {"huge-message", [](Stream& stream) { Output(stream, 0, std::string(64u << 20, 'h')); }},
      {"endless",
       [](Stream& stream) {
         const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(3);
         uint64_t offset = 0;
         const std::string data(64 << 10, 'e');
         while (std::chrono::steady_clock::now() < until) {
           Output(stream, offset, data);
           offset += data.size();
         }
         Exit(stream);
       }},
      {"empty-events",
       [](Stream& stream) {
         for (int i = 0; i < 1'000'000; ++i) {
           RunResponse response;
           response.mutable_event()->mutable_output();
           if (!stream.Write(response)) {
             return;
           }
         }
       }},
      {"escape-codes",
       [](Stream& stream) {
         RunResponse response;
         auto& failure = *response.mutable_event()->mutable_exit()->mutable_start_failure();
         failure.set_message("\x1b]0;owned\x07\x1b[2J" + std::string(100'000, 'x'));
         stream.Write(response);
       }},
  };
  return attacks;
}

class HostileShim final : public shim::v1::Shim::Service {
 public:
  grpc::Status Hello(grpc::ServerContext*, const shim::v1::HelloRequest* request,
                     shim::v1::HelloResponse* response) override {
    if (!request->key().empty()) {
      key_ = request->key();
      sandbox_ = request->setup().sandbox_id();
    }
    response->set_version(CREEL_VERSION);
    response->set_sandbox_id(sandbox_);
    response->set_proof(HmacSha256(key_, "creel-hello-1" + request->nonce()));
    return grpc::Status::OK;
  }

  grpc::Status Run(grpc::ServerContext*, Stream* stream) override {
    RunRequest request;
    if (!stream->Read(&request)) {
      return grpc::Status::CANCELLED;
    }
    Started(*stream);
    const auto attack = Attacks().find(request.start().spec().argv(0));
    if (attack != Attacks().end()) {
      attack->second(*stream);
    }
    return grpc::Status::OK;
  }

  grpc::Status ListProcesses(grpc::ServerContext*, const shim::v1::ListProcessesRequest*,
                             shim::v1::ListProcessesResponse*) override {
    return grpc::Status::OK;
  }

 private:
  std::string key_;
  std::string sandbox_;
};

void Serve() {
  HostileShim service;
  grpc::ServerBuilder builder;
  builder.RegisterService(&service);
  builder.SetMaxSendMessageSize(-1);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  while (true) {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, "/run/creel/shim.sock");
    if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
      close(fd);
      usleep(20'000);
      continue;
    }
    link_fd = dup(fd);
    const int watch = dup(fd);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    grpc::AddInsecureChannelFromFd(server.get(), fd);
    // Until the other side hangs up.
    char byte = 0;
    while (recv(watch, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 0) {
      usleep(20'000);
    }
    close(watch);
    close(link_fd);
  }
}

}  // namespace
}  // namespace creel::testing

int main() { creel::testing::Serve(); }
