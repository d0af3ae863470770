// The engine over TCP, with certificates on both sides.

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>

#include "supervisor/base/unique_fd.h"
#include "supervisor/engine/docker_engine.h"

namespace creel {
namespace {

template <auto kFree>
struct FreeWith {
  template <typename T>
  void operator()(T* handle) const {
    kFree(handle);
  }
};
using Key = std::unique_ptr<EVP_PKEY, FreeWith<EVP_PKEY_free>>;
using Certificate = std::unique_ptr<X509, FreeWith<X509_free>>;
using File = std::unique_ptr<FILE, FreeWith<fclose>>;

struct Identity {
  Key key;
  Certificate certificate;
};

void AddExtension(X509* certificate, int kind, const char* value) {
  X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, nullptr, kind, value);
  REQUIRE(extension != nullptr);
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

// Signed by `issuer`, or by itself.
Identity MakeIdentity(const char* name, const Identity* issuer) {
  static std::atomic<long> serial = 1;
  Identity made{Key(EVP_EC_gen("P-256")), Certificate(X509_new())};
  X509* const x = made.certificate.get();
  X509_set_version(x, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(x), serial++);
  X509_gmtime_adj(X509_getm_notBefore(x), -3600);
  X509_gmtime_adj(X509_getm_notAfter(x), 3600);
  X509_set_pubkey(x, made.key.get());
  X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(name), -1, -1, 0);
  X509* const by = issuer == nullptr ? x : issuer->certificate.get();
  X509_set_issuer_name(x, X509_get_subject_name(by));
  AddExtension(x, NID_basic_constraints, issuer == nullptr ? "critical,CA:TRUE" : "CA:FALSE");
  if (issuer != nullptr) {
    AddExtension(x, NID_subject_alt_name, "IP:127.0.0.1");
  }
  REQUIRE(X509_sign(x, (issuer == nullptr ? made : *issuer).key.get(), EVP_sha256()) > 0);
  return made;
}

// A folder with the PEM files of an identity.
class PemFiles {
 public:
  PemFiles(const Identity& ca, const Identity& mine) {
    char folder[] = "/tmp/creel-test-XXXXXX";
    folder_ = ::mkdtemp(folder);
    PEM_write_X509(File(fopen(Ca().c_str(), "w")).get(), ca.certificate.get());
    PEM_write_X509(File(fopen(Cert().c_str(), "w")).get(), mine.certificate.get());
    PEM_write_PrivateKey(File(fopen(KeyFile().c_str(), "w")).get(), mine.key.get(), nullptr,
                         nullptr, 0, nullptr, nullptr);
  }
  PemFiles(const PemFiles&) = delete;
  PemFiles& operator=(const PemFiles&) = delete;
  ~PemFiles() { std::filesystem::remove_all(folder_); }

  [[nodiscard]] std::string Ca() const { return folder_ + "/ca.pem"; }
  [[nodiscard]] std::string Cert() const { return folder_ + "/cert.pem"; }
  [[nodiscard]] std::string KeyFile() const { return folder_ + "/key.pem"; }

 private:
  std::string folder_;
};

// Answers each connection once, if its client has a certificate of `ca`.
class TlsServer {
 public:
  TlsServer(const Identity& ca, const Identity& mine) : context_(SSL_CTX_new(TLS_server_method())) {
    // OpenSSL writes to a connection that is gone.
    ::signal(SIGPIPE, SIG_IGN);
    SSL_CTX_use_certificate(context_, mine.certificate.get());
    SSL_CTX_use_PrivateKey(context_, mine.key.get());
    X509_STORE_add_cert(SSL_CTX_get_cert_store(context_), ca.certificate.get());
    SSL_CTX_set_verify(context_, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
    listener_.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    REQUIRE(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), size) == 0);
    REQUIRE(::listen(listener_.get(), 8) == 0);
    ::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Run(); });
  }
  TlsServer(const TlsServer&) = delete;
  TlsServer& operator=(const TlsServer&) = delete;
  ~TlsServer() {
    stop_ = true;
    thread_.join();
    SSL_CTX_free(context_);
  }

  [[nodiscard]] std::string Host(const char* name = "127.0.0.1") const {
    return fmt::format("tcp://{}:{}", name, port_);
  }
  [[nodiscard]] int answered() const { return answered_; }

 private:
  void Run() {
    while (!stop_) {
      pollfd waited{.fd = listener_.get(), .events = POLLIN, .revents = 0};
      if (::poll(&waited, 1, 20) <= 0) {
        continue;
      }
      const UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      SSL* const ssl = SSL_new(context_);
      SSL_set_fd(ssl, fd.get());
      char buffer[4096];
      if (SSL_accept(ssl) == 1 && SSL_read(ssl, buffer, sizeof buffer) > 0) {
        const std::string body = R"({"ApiVersion":"1.41","MinAPIVersion":"1.12"})";
        const std::string answer =
            fmt::format("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{}",
                        body.size(), body);
        ++answered_;
        SSL_write(ssl, answer.data(), static_cast<int>(answer.size()));
        SSL_shutdown(ssl);
      }
      SSL_free(ssl);
    }
  }

  SSL_CTX* const context_;
  UniqueFd listener_;
  int port_ = 0;
  std::atomic<bool> stop_ = false;
  std::atomic<int> answered_ = 0;
  std::thread thread_;
};

}  // namespace

TEST_SUITE("DockerEngine over TLS") {
  TEST_CASE("both sides must have a certificate of the one CA") {
    const Identity ca = MakeIdentity("ca", nullptr);
    const Identity other_ca = MakeIdentity("other", nullptr);
    const Identity server_identity = MakeIdentity("server", &ca);
    const Identity client = MakeIdentity("client", &ca);
    const Identity stranger = MakeIdentity("client", &other_ca);
    const PemFiles good(ca, client);
    const PemFiles wrong_client(ca, stranger);
    const PemFiles wrong_ca(other_ca, client);
    TlsServer server(ca, server_identity);
    const auto connect = [](const std::string& host, const PemFiles& files) {
      return DockerEngine::Connect({.host = host,
                                    .tls_ca = files.Ca(),
                                    .tls_cert = files.Cert(),
                                    .tls_key = files.KeyFile()},
                                   After(std::chrono::seconds(10)))
          .status();
    };
    const absl::Status connected = connect(server.Host(), good);
    CHECK_MESSAGE(connected.ok(), connected.ToString());
    CHECK(server.answered() == 1);

    CHECK(absl::IsUnavailable(connect(server.Host(), wrong_client)));
    CHECK(absl::IsUnavailable(connect(server.Host(), wrong_ca)));
    // The certificate is for another name.
    CHECK(absl::IsUnavailable(connect(server.Host("localhost"), good)));
    // Without TLS the server has no answer.
    CHECK_FALSE(
        DockerEngine::Connect({.host = server.Host()}, After(std::chrono::seconds(10))).ok());
    CHECK(server.answered() == 1);
  }

  TEST_CASE("certificates that cannot be read are named") {
    const Identity ca = MakeIdentity("ca", nullptr);
    const Identity server_identity = MakeIdentity("server", &ca);
    const PemFiles good(ca, server_identity);
    const TlsServer server(ca, server_identity);
    const EngineOptions all{.host = server.Host(),
                            .tls_ca = good.Ca(),
                            .tls_cert = good.Cert(),
                            .tls_key = good.KeyFile()};
    for (std::string EngineOptions::*const part :
         {&EngineOptions::tls_ca, &EngineOptions::tls_cert, &EngineOptions::tls_key}) {
      EngineOptions options = all;
      options.*part = "/no/such.pem";
      const absl::Status status =
          DockerEngine::Connect(options, After(std::chrono::seconds(10))).status();
      CHECK(absl::IsUnavailable(status));
      CHECK_MESSAGE(status.message().find("/no/such.pem") != std::string::npos, status.ToString());
    }
  }
}

}  // namespace creel
