#pragma once

#include <string>

namespace creel::bench {

// The engine's API over its Unix socket with nothing in between, so that what Creel is compared
// with is the engine and not a client of it. One kept connection; not thread-safe.
class EngineHttp {
 public:
  explicit EngineHttp(std::string socket);
  ~EngineHttp();
  EngineHttp(const EngineHttp&) = delete;
  EngineHttp& operator=(const EngineHttp&) = delete;

  // Returns the body. Throws std::runtime_error for a status of 400 or more.
  std::string Call(const std::string& method, const std::string& path, const std::string& body = "");

  // Runs a command by the exec API and waits for its end; returns the exit code.
  int Exec(const std::string& container, const std::string& argv_json);

 private:
  void Connect();
  std::string socket_;
  std::string buffer_;
  int fd_ = -1;
};

}  // namespace creel::bench
