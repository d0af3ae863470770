#pragma once

#include <openssl/ssl.h>

#include <cstddef>
#include <map>
#include <memory>
#include <string>

#include "supervisor/base/status.h"
#include "supervisor/base/unique_fd.h"

namespace creel::egress {

// What a read or write on a non-blocking stream came to.
struct Io {
  enum class Kind { kBytes, kBlocked, kEnd, kFailed };
  Kind kind = Kind::kFailed;
  size_t bytes = 0;
};

// A non-blocking stream of bytes: a socket, with or without TLS on it.
class Stream {
 public:
  virtual ~Stream() = default;
  virtual Io Read(char* to, size_t most) = 0;
  virtual Io Write(const char* from, size_t count) = 0;
  // Nothing more will be written.
  virtual void EndWrites() = 0;
  // Goes on with what must come before the first byte: kBytes once it is done.
  virtual Io Handshake() { return {.kind = Io::Kind::kBytes}; }
  // Why a handshake failed.
  [[nodiscard]] virtual std::string error() const { return {}; }
  [[nodiscard]] virtual int fd() const = 0;
};

std::unique_ptr<Stream> MakePlainStream(UniqueFd socket);

// TLS to upstreams, always verified, 1.2 and up. Serves one thread.
class TlsClient {
 public:
  TlsClient();
  ~TlsClient();
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  // A stream that will speak TLS with `host`, a name or an address. `ca`: PEM file of the only CAs
  // that count; empty: the machine's. The file is read each time its content has changed on disk.
  absl::StatusOr<std::unique_ptr<Stream>> Make(UniqueFd socket, const std::string& host,
                                               const std::string& ca);

 private:
  struct Context;
  absl::StatusOr<SSL_CTX*> ContextFor(const std::string& ca);
  std::map<std::string, std::unique_ptr<Context>> contexts_;
};

}  // namespace creel::egress
