#include "supervisor/engine/http_client.h"

#include <curl/curl.h>
#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "supervisor/base/mutex.h"

namespace creel {
namespace {

constexpr std::chrono::milliseconds kConnectTimeout{5'000};
constexpr int kCancelTickMs = 200;
// Of connections that wait for the next call.
constexpr size_t kMaxIdle = 8;
constexpr size_t kMaxHeaderBytes = 256 * 1024;
// An error has no need to be longer, wherever its answer goes.
constexpr size_t kMaxErrorBytes = 64 * 1024;

template <auto kFree>
struct FreeWith {
  template <typename T>
  void operator()(T* handle) const {
    kFree(handle);
  }
};
using EasyHandle = std::unique_ptr<CURL, FreeWith<curl_easy_cleanup>>;
using MultiHandle = std::unique_ptr<CURLM, FreeWith<curl_multi_cleanup>>;
using HeaderList = std::unique_ptr<curl_slist, FreeWith<curl_slist_free_all>>;

// Once for the process; what it takes is never given back.
bool InitCurl() {
  static const bool ok = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
  return ok;
}

// What one answer has brought so far, and why its transfer was ended by us.
struct Receiver {
  CURL* easy = nullptr;
  const std::function<bool(std::string_view)>* sink = nullptr;  // empty: into `body`
  const std::function<void()>* connected = nullptr;
  size_t max_body = 0;
  std::string body;
  size_t header_bytes = 0;
  bool headers_whole = false;
  bool ended_by_sink = false;
  bool too_large = false;

  [[nodiscard]] long Status() const {
    long status = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    return status;
  }
  [[nodiscard]] bool Succeeded() const { return Status() >= 200 && Status() < 300; }
};

size_t OnHeader(char* data, size_t size, size_t count, void* receiver) {
  auto& into = *static_cast<Receiver*>(receiver);
  const size_t bytes = size * count;
  into.header_bytes += bytes;
  if (into.header_bytes > kMaxHeaderBytes) {
    into.too_large = true;
    return 0;
  }
  const std::string_view line(data, bytes);
  if (line == "\r\n" || line == "\n") {
    into.headers_whole = true;
    if (into.Succeeded() && into.connected != nullptr && *into.connected) {
      (*into.connected)();
    }
  }
  return bytes;
}

size_t OnBody(char* data, size_t size, size_t count, void* receiver) {
  auto& into = *static_cast<Receiver*>(receiver);
  const size_t bytes = size * count;
  const bool success = into.Succeeded();
  if (success && into.sink != nullptr && *into.sink) {
    if (!(*into.sink)(std::string_view(data, bytes))) {
      into.ended_by_sink = true;
      return bytes == 0 ? 1 : 0;  // any other count than `bytes` ends the transfer
    }
    return bytes;
  }
  if (into.body.size() + bytes > (success ? into.max_body : kMaxErrorBytes)) {
    into.too_large = true;
    return 0;
  }
  into.body.append(data, bytes);
  return bytes;
}

// libcurl does not make its sockets close-on-exec by itself.
curl_socket_t OpenSocket(void* /*unused*/, curlsocktype /*purpose*/, curl_sockaddr* address) {
  return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

void SetCommon(CURL* easy, const EngineAddress& address, const std::string& url,
               Receiver& receiver) {
  curl_easy_setopt(easy, CURLOPT_URL, url.c_str());
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
  curl_easy_setopt(easy, CURLOPT_PROXY, "");  // whatever the environment says
  curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
  curl_easy_setopt(easy, CURLOPT_MAXCONNECTS, 1L);
  curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, OpenSocket);
  if (!address.socket_path.empty()) {
    curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, address.socket_path.c_str());
  }
  if (!address.tls_ca.empty()) {
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    // The engine's own CA, and none that the system trusts besides.
    curl_easy_setopt(easy, CURLOPT_CAPATH, nullptr);
    curl_easy_setopt(easy, CURLOPT_CAINFO, address.tls_ca.c_str());
    curl_easy_setopt(easy, CURLOPT_SSLCERT, address.tls_cert.c_str());
    curl_easy_setopt(easy, CURLOPT_SSLKEY, address.tls_key.c_str());
  }
  receiver.easy = easy;
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, OnHeader);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, &receiver);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, OnBody);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, &receiver);
}

absl::Status SetMethod(CURL* easy, const HttpCall& call, HeaderList& headers) {
  const std::string_view method = call.method;
  if (method == "POST") {
    curl_easy_setopt(easy, CURLOPT_POST, 1L);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(call.body.size()));
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, call.body.empty() ? "" : call.body.data());
  } else if (method != "GET") {
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, call.method);
  }
  // The engine takes an empty body only without a type, and libcurl would wait a second for a
  // "100 Continue" that not every engine sends.
  const std::string type = call.content_type == nullptr
                               ? "Content-Type:"
                               : fmt::format("Content-Type: {}", call.content_type);
  for (const char* header : {type.c_str(), "Expect:"}) {
    curl_slist* const longer = curl_slist_append(headers.get(), header);
    if (longer == nullptr) {
      return absl::ResourceExhaustedError("out of memory");
    }
    static_cast<void>(headers.release());  // it is now a part of `longer`
    headers.reset(longer);
  }
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers.get());
  return absl::OkStatus();
}

// What a transfer that failed means to the caller.
absl::Status TransferError(CURLcode code, const char* detail, const Receiver& receiver,
                           const EngineAddress& address) {
  if (receiver.too_large) {
    return absl::InternalError(
        fmt::format("the engine at {} sent an answer that is too large", address.display));
  }
  if (receiver.ended_by_sink) {
    return absl::CancelledError("the receiver ended the transfer");
  }
  const std::string text = *detail != '\0' ? detail : curl_easy_strerror(code);
  switch (code) {
    case CURLE_OPERATION_TIMEDOUT:
      return absl::DeadlineExceededError(
          fmt::format("the engine at {} did not answer in time", address.display));
    case CURLE_COULDNT_CONNECT:
    case CURLE_COULDNT_RESOLVE_HOST: {
      long error = 0;
      curl_easy_getinfo(receiver.easy, CURLINFO_OS_ERRNO, &error);
      return absl::UnavailableError(
          fmt::format("no engine answers at {}: {}", address.display,
                      error == 0 ? text : std::system_category().message(static_cast<int>(error))));
    }
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
      return absl::UnavailableError(
          fmt::format("no trusted engine answers at {}: {}", address.display, text));
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
      return absl::UnavailableError(
          fmt::format("the engine at {} went away during the call: {}", address.display, text));
    default:
      return absl::InternalError(
          fmt::format("the engine at {} gave no proper answer: {}", address.display, text));
  }
}

// The transfer, driven by us, as libcurl itself looks up only once a second. Nothing if
// `call.cancelled` ended it.
std::optional<CURLcode> RunUntilCancelled(CURLM* multi, const Receiver& receiver,
                                          const HttpClient::StreamCall& call) {
  for (int running = 1; running > 0;) {
    if (call.cancelled && call.cancelled()) {
      return std::nullopt;
    }
    if (!receiver.headers_whole && std::chrono::steady_clock::now() >= call.begin_by) {
      return CURLE_OPERATION_TIMEDOUT;
    }
    if (curl_multi_perform(multi, &running) != CURLM_OK) {
      return CURLE_FAILED_INIT;
    }
    if (running > 0 && curl_multi_poll(multi, nullptr, 0, kCancelTickMs, nullptr) != CURLM_OK) {
      return CURLE_FAILED_INIT;
    }
  }
  int left = 0;
  while (const CURLMsg* message = curl_multi_info_read(multi, &left)) {
    if (message->msg == CURLMSG_DONE) {
      return message->data.result;
    }
  }
  return CURLE_FAILED_INIT;
}

}  // namespace

// libcurl's handles that are not in use. Each keeps the one connection that it made.
class HttpClient::Pool {
 public:
  explicit Pool(EngineAddress address) : address_(std::move(address)) {}

  EasyHandle Take() {
    {
      MutexLock lock(mu_);
      if (!idle_.empty()) {
        EasyHandle easy = std::move(idle_.back());
        idle_.pop_back();
        return easy;
      }
    }
    return EasyHandle(InitCurl() ? curl_easy_init() : nullptr);
  }

  void GiveBack(EasyHandle easy) {
    curl_easy_reset(easy.get());  // keeps the connection
    MutexLock lock(mu_);
    if (idle_.size() < kMaxIdle) {
      idle_.push_back(std::move(easy));
    }
  }

  [[nodiscard]] const EngineAddress& address() const { return address_; }

 private:
  const EngineAddress address_;
  Mutex mu_;
  std::vector<EasyHandle> idle_ ABSL_GUARDED_BY(mu_);
};

HttpClient::HttpClient(EngineAddress address) : pool_(std::make_unique<Pool>(std::move(address))) {}
HttpClient::~HttpClient() = default;

const EngineAddress& HttpClient::address() const { return pool_->address(); }

absl::StatusOr<HttpAnswer> HttpClient::Do(const HttpCall& call) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(call.deadline -
                                                                 std::chrono::steady_clock::now());
  if (left.count() <= 0) {
    return absl::DeadlineExceededError(
        fmt::format("no time left to ask the engine at {}", address().display));
  }
  EasyHandle easy = pool_->Take();
  if (easy == nullptr) {
    return absl::ResourceExhaustedError("libcurl has no handle to give");
  }
  Receiver receiver;
  receiver.sink = &call.sink;
  receiver.max_body = call.max_answer;
  char detail[CURL_ERROR_SIZE] = "";
  curl_easy_setopt(easy.get(), CURLOPT_ERRORBUFFER, detail);
  SetCommon(easy.get(), address(), address().base_url + call.target, receiver);
  HeaderList headers;
  RETURN_IF_ERROR(SetMethod(easy.get(), call, headers));
  curl_easy_setopt(easy.get(), CURLOPT_FRESH_CONNECT, call.repeatable ? 0L : 1L);
  // A day is more than any caller waits, and less than what overflows on the way to the kernel.
  const auto timeout = std::min<std::chrono::milliseconds>(left, std::chrono::hours(24));
  curl_easy_setopt(easy.get(), CURLOPT_TIMEOUT_MS, static_cast<long>(timeout.count()));
  curl_easy_setopt(easy.get(), CURLOPT_CONNECTTIMEOUT_MS,
                   static_cast<long>(std::min(timeout, kConnectTimeout).count()));

  const CURLcode code = curl_easy_perform(easy.get());
  if (code != CURLE_OK) {
    // The handle goes, and its connection, which may be in the middle of an answer.
    return TransferError(code, detail, receiver, address());
  }
  if (!receiver.headers_whole) {
    // libcurl takes a header that breaks off for the end of it.
    return TransferError(CURLE_PARTIAL_FILE, detail, receiver, address());
  }
  HttpAnswer answer{.status = receiver.Status(), .body = std::move(receiver.body)};
  pool_->GiveBack(std::move(easy));
  return answer;
}

absl::StatusOr<HttpAnswer> HttpClient::Stream(const StreamCall& call) {
  const EasyHandle easy(InitCurl() ? curl_easy_init() : nullptr);
  const MultiHandle multi(curl_multi_init());
  if (easy == nullptr || multi == nullptr) {
    return absl::ResourceExhaustedError("libcurl has no handle to give");
  }
  Receiver receiver;
  receiver.sink = &call.sink;
  receiver.connected = &call.connected;
  char detail[CURL_ERROR_SIZE] = "";
  curl_easy_setopt(easy.get(), CURLOPT_ERRORBUFFER, detail);
  SetCommon(easy.get(), address(), address().base_url + call.target, receiver);
  curl_easy_setopt(easy.get(), CURLOPT_CONNECTTIMEOUT_MS,
                   static_cast<long>(kConnectTimeout.count()));
  if (curl_multi_add_handle(multi.get(), easy.get()) != CURLM_OK) {
    return absl::InternalError("libcurl does not take the stream");
  }
  const std::optional<CURLcode> code = RunUntilCancelled(multi.get(), receiver, call);
  curl_multi_remove_handle(multi.get(), easy.get());
  if (!code || receiver.ended_by_sink) {
    return HttpAnswer{.status = 200, .body = ""};
  }
  if (*code != CURLE_OK) {
    return TransferError(*code, detail, receiver, address());
  }
  if (!receiver.Succeeded()) {
    return HttpAnswer{.status = receiver.Status(), .body = std::move(receiver.body)};
  }
  return absl::UnavailableError(
      fmt::format("the engine at {} ended the stream", address().display));
}

std::string EscapeQuery(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '.' || c == '_' || c == '~' || c == '/';
    if (plain) {
      out += c;
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

}  // namespace creel
