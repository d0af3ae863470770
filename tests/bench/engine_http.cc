#include "tests/bench/engine_http.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace creel::bench {
namespace {

int ConnectTo(const std::string& socket_path) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, socket_path.c_str(), sizeof(address.sun_path) - 1);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    throw std::runtime_error("no engine at " + socket_path);
  }
  return fd;
}

bool Fill(int fd, std::string* buffer) {
  char piece[65536];
  const ssize_t got = read(fd, piece, sizeof(piece));
  if (got <= 0) {
    return false;
  }
  buffer->append(piece, static_cast<size_t>(got));
  return true;
}

void Send(int fd, const std::string& text) {
  if (write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    throw std::runtime_error("the engine does not take a request");
  }
}

std::string Request(const std::string& method, const std::string& path, const std::string& body,
                    const std::string& more) {
  return method + " /v1.41" + path + " HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n" +
         more + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

}  // namespace

EngineHttp::EngineHttp(std::string socket) : socket_(std::move(socket)) { Connect(); }

EngineHttp::~EngineHttp() { close(fd_); }

void EngineHttp::Connect() {
  if (fd_ >= 0) {
    close(fd_);
  }
  buffer_.clear();
  fd_ = ConnectTo(socket_);
}

std::string EngineHttp::Call(const std::string& method, const std::string& path,
                             const std::string& body) {
  Send(fd_, Request(method, path, body, ""));
  size_t head = std::string::npos;
  while ((head = buffer_.find("\r\n\r\n")) == std::string::npos) {
    if (!Fill(fd_, &buffer_)) {
      throw std::runtime_error("the engine hung up");
    }
  }
  const std::string headers = buffer_.substr(0, head);
  buffer_.erase(0, head + 4);
  const int status = std::atoi(headers.c_str() + 9);
  std::string answer;
  const size_t length_at = headers.find("Content-Length: ");
  if (length_at != std::string::npos) {
    const auto length = static_cast<size_t>(std::atoll(headers.c_str() + length_at + 16));
    while (buffer_.size() < length && Fill(fd_, &buffer_)) {
    }
    answer = buffer_.substr(0, length);
    buffer_.erase(0, length);
  } else if (headers.find("chunked") != std::string::npos) {
    while (true) {
      size_t line = std::string::npos;
      while ((line = buffer_.find("\r\n")) == std::string::npos && Fill(fd_, &buffer_)) {
      }
      const auto size = static_cast<size_t>(std::strtoul(buffer_.c_str(), nullptr, 16));
      while (buffer_.size() < line + 2 + size + 2 && Fill(fd_, &buffer_)) {
      }
      answer += buffer_.substr(line + 2, size);
      buffer_.erase(0, line + 2 + size + 2);
      if (size == 0) {
        break;
      }
    }
  }
  if (status >= 400) {
    throw std::runtime_error(path + ": " + answer);
  }
  return answer;
}

int EngineHttp::Exec(const std::string& container, const std::string& argv_json) {
  const auto made = nlohmann::json::parse(
      Call("POST", "/containers/" + container + "/exec",
           R"({"AttachStdout":true,"AttachStderr":true,"Cmd":)" + argv_json + "}"));
  const std::string id = made.at("Id");
  // The start is a stream that lasts as long as the command, on a connection of its own.
  const int stream = ConnectTo(socket_);
  Send(stream, Request("POST", "/exec/" + id + "/start", R"({"Detach":false,"Tty":false})",
                       "Connection: Upgrade\r\nUpgrade: tcp\r\n"));
  std::string output;
  while (Fill(stream, &output)) {
  }
  close(stream);
  return nlohmann::json::parse(Call("GET", "/exec/" + id + "/json")).at("ExitCode");
}

}  // namespace creel::bench
