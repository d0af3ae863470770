#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "supervisor/base/mutex.h"
#include "supervisor/base/unique_fd.h"

namespace creel {

struct TestRequest {
  std::string method;
  std::string target;
  std::string headers;
  std::string body;
};

// An HTTP answer with a Content-Length.
inline std::string Answer(int status, std::string_view body) {
  return "HTTP/1.1 " + std::to_string(status) +
         " X\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
         "\r\n\r\n" + std::string(body);
}

// One connection, as a handler sees it.
class TestConnection {
 public:
  TestConnection(int fd, const std::atomic<bool>& stop) : fd_(fd), stop_(stop) {}

  // False once the other side is gone.
  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) {
        return false;
      }
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }

  // Says nothing until the other side or the server ends; false, for a handler to return.
  bool Hang() {
    char byte = 0;
    while (!stop_) {
      pollfd waited{.fd = fd_, .events = POLLIN, .revents = 0};
      if (::poll(&waited, 1, 20) > 0 && ::recv(fd_, &byte, 1, 0) <= 0) {
        break;
      }
    }
    return false;
  }

 private:
  const int fd_;
  const std::atomic<bool>& stop_;
};

// A real HTTP server on a Unix socket, whose every answer is the test's own, byte by byte.
class TestServer {
 public:
  // Answers one request; false closes the connection.
  using Handler = std::function<bool(const TestRequest&, TestConnection&)>;

  explicit TestServer(Handler handler) : handler_(std::move(handler)) {
    char folder[] = "/tmp/creel-test-XXXXXX";
    folder_ = ::mkdtemp(folder);
    Listen();
  }
  TestServer(const TestServer&) = delete;
  TestServer& operator=(const TestServer&) = delete;
  ~TestServer() {
    Stop();
    ::rmdir(folder_.c_str());
  }

  [[nodiscard]] std::string path() const { return folder_ + "/e.sock"; }
  [[nodiscard]] std::string host() const { return "unix://" + path(); }
  [[nodiscard]] int connections() const { return connections_; }

  std::vector<TestRequest> Requests() {
    MutexLock lock(mu_);
    return requests_;
  }

  // As an engine that is stopped: every connection breaks, and no new one is had.
  void Stop() {
    if (!acceptor_.joinable()) {
      return;
    }
    stop_ = true;
    acceptor_.join();
    listener_.reset();
    ::unlink(path().c_str());
    for (std::thread& thread : threads_) {
      thread.join();
    }
    threads_.clear();
  }
  void Start() {
    Stop();
    Listen();
  }

 private:
  void Listen() {
    stop_ = false;
    listener_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path().c_str(), sizeof address.sun_path - 1);
    if (::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(listener_.get(), 64) != 0) {
      std::abort();
    }
    acceptor_ = std::thread([this] { Accept(); });
  }

  void Accept() {
    while (!stop_) {
      pollfd waited{.fd = listener_.get(), .events = POLLIN, .revents = 0};
      if (::poll(&waited, 1, 20) <= 0) {
        continue;
      }
      const int fd = ::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC);
      if (fd >= 0) {
        ++connections_;
        threads_.emplace_back([this, fd] { Serve(UniqueFd(fd)); });
      }
    }
  }

  void Serve(UniqueFd fd) {
    TestConnection connection(fd.get(), stop_);
    std::string pending;
    TestRequest request;
    while (Read(fd.get(), pending, request)) {
      {
        MutexLock lock(mu_);
        requests_.push_back(request);
      }
      if (!handler_(request, connection)) {
        return;
      }
    }
  }

  // False when the connection or the server ended.
  bool Read(int fd, std::string& pending, TestRequest& request) {
    size_t head = std::string::npos;
    size_t length = 0;
    while (true) {
      head = pending.find("\r\n\r\n");
      if (head != std::string::npos) {
        const size_t at = pending.find("Content-Length: ");
        length = at < head ? std::strtoul(pending.c_str() + at + 16, nullptr, 10) : 0;
        if (pending.size() >= head + 4 + length) {
          break;
        }
      }
      pollfd waited{.fd = fd, .events = POLLIN, .revents = 0};
      if (stop_) {
        return false;
      }
      if (::poll(&waited, 1, 20) <= 0) {
        continue;
      }
      char buffer[65536];
      const ssize_t count = ::recv(fd, buffer, sizeof buffer, 0);
      if (count <= 0) {
        return false;
      }
      pending.append(buffer, static_cast<size_t>(count));
    }
    const size_t space = pending.find(' ');
    request.method = pending.substr(0, space);
    request.target = pending.substr(space + 1, pending.find(' ', space + 1) - space - 1);
    request.headers = pending.substr(0, head + 2);
    request.body = pending.substr(head + 4, length);
    pending.erase(0, head + 4 + length);
    return true;
  }

  const Handler handler_;
  std::string folder_;
  UniqueFd listener_;
  std::atomic<bool> stop_ = false;
  std::atomic<int> connections_ = 0;
  std::thread acceptor_;
  std::vector<std::thread> threads_;  // the acceptor's, until it is joined
  Mutex mu_;
  std::vector<TestRequest> requests_ ABSL_GUARDED_BY(mu_);
};

}  // namespace creel
