#include "supervisor/egress/stream.h"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <utility>

#include "supervisor/egress/address.h"

namespace creel::egress {
namespace {

// SSL_write wants an int.
constexpr size_t kMostAtOnce = 1u << 20;

class PlainStream final : public Stream {
 public:
  explicit PlainStream(UniqueFd socket) : socket_(std::move(socket)) {}

  Io Read(char* to, size_t most) override {
    ssize_t got = 0;
    do {
      got = recv(socket_.get(), to, most, MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    if (got > 0) {
      return {.kind = Io::Kind::kBytes, .bytes = static_cast<size_t>(got)};
    }
    return {.kind = got == 0          ? Io::Kind::kEnd
                    : errno == EAGAIN ? Io::Kind::kBlocked
                                      : Io::Kind::kFailed};
  }
  Io Write(const char* from, size_t count) override {
    ssize_t put = 0;
    do {
      put = send(socket_.get(), from, count, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (put < 0 && errno == EINTR);
    if (put >= 0) {
      return {.kind = Io::Kind::kBytes, .bytes = static_cast<size_t>(put)};
    }
    return {.kind = errno == EAGAIN ? Io::Kind::kBlocked : Io::Kind::kFailed};
  }
  void EndWrites() override { shutdown(socket_.get(), SHUT_WR); }
  [[nodiscard]] int fd() const override { return socket_.get(); }

 private:
  const UniqueFd socket_;
};

struct FreeSsl {
  void operator()(SSL* ssl) const { SSL_free(ssl); }
};

// The last of OpenSSL's errors on this thread.
std::string LastError() {
  const unsigned long code = ERR_peek_last_error();
  ERR_clear_error();
  const char* const reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  return reason == nullptr ? "the connection broke" : reason;
}

class TlsStream final : public Stream {
 public:
  TlsStream(UniqueFd socket, std::unique_ptr<SSL, FreeSsl> ssl)
      : socket_(std::move(socket)), ssl_(std::move(ssl)) {}
  ~TlsStream() override {
    // Without waiting for an answer.
    if (shaken_ && !failed_) {
      SSL_shutdown(ssl_.get());
      ERR_clear_error();
    }
  }

  Io Handshake() override {
    if (shaken_) {
      return {.kind = Io::Kind::kBytes};
    }
    ERR_clear_error();
    const int result = SSL_connect(ssl_.get());
    if (result == 1) {
      shaken_ = true;
      return {.kind = Io::Kind::kBytes};
    }
    const Io io = Outcome(result);
    if (io.kind != Io::Kind::kBlocked) {
      const long verified = SSL_get_verify_result(ssl_.get());
      error_ = verified == X509_V_OK ? LastError()
                                     : fmt::format("its certificate is not good: {}",
                                                   X509_verify_cert_error_string(verified));
      return {.kind = Io::Kind::kFailed};
    }
    return io;
  }
  Io Read(char* to, size_t most) override {
    ERR_clear_error();
    const int got = SSL_read(ssl_.get(), to, static_cast<int>(std::min(most, kMostAtOnce)));
    return got > 0 ? Io{.kind = Io::Kind::kBytes, .bytes = static_cast<size_t>(got)} : Outcome(got);
  }
  Io Write(const char* from, size_t count) override {
    if (count == 0) {
      return {.kind = Io::Kind::kBytes};
    }
    ERR_clear_error();
    const int put = SSL_write(ssl_.get(), from, static_cast<int>(std::min(count, kMostAtOnce)));
    return put > 0 ? Io{.kind = Io::Kind::kBytes, .bytes = static_cast<size_t>(put)} : Outcome(put);
  }
  void EndWrites() override {
    SSL_shutdown(ssl_.get());
    ERR_clear_error();
  }
  [[nodiscard]] std::string error() const override { return error_; }
  [[nodiscard]] int fd() const override { return socket_.get(); }

 private:
  Io Outcome(int result) {
    switch (SSL_get_error(ssl_.get(), result)) {
      case SSL_ERROR_WANT_READ:
      case SSL_ERROR_WANT_WRITE:
        return {.kind = Io::Kind::kBlocked};
      case SSL_ERROR_ZERO_RETURN:
        return {.kind = Io::Kind::kEnd};
      default:
        // An end without a farewell may be an attacker's: it is not one.
        failed_ = true;
        return {.kind = Io::Kind::kFailed};
    }
  }

  const UniqueFd socket_;
  const std::unique_ptr<SSL, FreeSsl> ssl_;
  bool shaken_ = false;
  bool failed_ = false;
  std::string error_;
};

}  // namespace

std::unique_ptr<Stream> MakePlainStream(UniqueFd socket) {
  return std::make_unique<PlainStream>(std::move(socket));
}

struct TlsClient::Context {
  Context() : context(SSL_CTX_new(TLS_client_method())) {}
  ~Context() { SSL_CTX_free(context); }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  SSL_CTX* const context;
  timespec changed{};  // of the CA file
};

TlsClient::TlsClient() = default;
TlsClient::~TlsClient() = default;

absl::StatusOr<SSL_CTX*> TlsClient::ContextFor(const std::string& ca) {
  struct stat info {};
  if (!ca.empty() && stat(ca.c_str(), &info) != 0) {
    return ErrnoStatus(errno, fmt::format("look at the CA file '{}'", ca));
  }
  const auto known = contexts_.find(ca);
  if (known != contexts_.end() && known->second->changed.tv_sec == info.st_mtim.tv_sec &&
      known->second->changed.tv_nsec == info.st_mtim.tv_nsec) {
    return known->second->context;
  }
  auto made = std::make_unique<Context>();
  made->changed = info.st_mtim;
  SSL_CTX* const context = made->context;
  if (context == nullptr) {
    return absl::ResourceExhaustedError("no memory for TLS");
  }
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
  // Writes are tried again from another place once the buffer has moved.
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                SSL_MODE_RELEASE_BUFFERS);
  const int loaded = ca.empty() ? SSL_CTX_set_default_verify_paths(context)
                                : SSL_CTX_load_verify_locations(context, ca.c_str(), nullptr);
  if (loaded != 1) {
    return absl::FailedPreconditionError(
        fmt::format("the CA file '{}' cannot be used: {}", ca, LastError()));
  }
  contexts_[ca] = std::move(made);
  return context;
}

absl::StatusOr<std::unique_ptr<Stream>> TlsClient::Make(UniqueFd socket, const std::string& host,
                                                        const std::string& ca) {
  ASSIGN_OR_RETURN(SSL_CTX* const context, ContextFor(ca));
  std::unique_ptr<SSL, FreeSsl> ssl(SSL_new(context));
  if (ssl == nullptr || SSL_set_fd(ssl.get(), socket.get()) != 1) {
    return absl::ResourceExhaustedError("no memory for TLS");
  }
  bool named = false;
  if (IpAddress::Parse(host).has_value()) {
    named = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl.get()), host.c_str()) == 1;
  } else {
    SSL_set_hostflags(ssl.get(), X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    named = SSL_set1_host(ssl.get(), host.c_str()) == 1 &&
            SSL_set_tlsext_host_name(ssl.get(), host.c_str()) == 1;
  }
  static constexpr unsigned char kHttp[] = "\x08http/1.1";
  if (!named || SSL_set_alpn_protos(ssl.get(), kHttp, sizeof kHttp - 1) != 0) {
    return absl::InternalError(fmt::format("TLS does not take the name '{}'", host));
  }
  SSL_set_connect_state(ssl.get());
  return std::make_unique<TlsStream>(std::move(socket), std::move(ssl));
}

}  // namespace creel::egress
