#include "supervisor/web/connection.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/post.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/file_body.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/span_body.hpp>
#include <boost/beast/http/write.hpp>
#include <chrono>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "supervisor/audit/events.h"
#include "supervisor/base/crypto.h"
#include "supervisor/base/escape.h"
#include "supervisor/web/assets.h"
#include "supervisor/web/live_stream.h"
#include "supervisor/web/request_check.h"
#include "supervisor/web/send_file.h"

namespace creel::web {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;
using std::chrono::steady_clock;

constexpr std::chrono::seconds kRequestWithin{30};
constexpr std::chrono::seconds kIdle{60};
constexpr std::chrono::seconds kWriteWithin{60};
constexpr std::chrono::seconds kLinger{2};
constexpr size_t kDrained = 16u << 10;
constexpr std::chrono::seconds kTicketLife{60};
constexpr size_t kMaxTickets = 64;
constexpr uint32_t kMaxHeader = 16u << 10;
constexpr uint64_t kMaxBody = 256u << 10;
constexpr size_t kMaxKey = 512;
constexpr char kJson[] = "application/json";
constexpr std::string_view kOpenPage = "creel.operator.v1.Page/OpenPage";

// Nothing but the page's own files runs, and nothing that is written into it is markup.
constexpr char kPolicy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'";

std::string_view View(beast::string_view text) { return {text.data(), text.size()}; }

std::string Dump(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string HashOf(std::string_view text) {
  Sha256 hash;
  hash.Update(text);
  return Hex(hash.Finish());
}

// Text of a member of a JSON object; empty if there is none.
std::string TextOf(const nlohmann::json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

uint64_t NumberOf(const nlohmann::json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return found != object.end() && found->is_number_unsigned() ? found->get<uint64_t>() : 0;
}

// What every answer says, whatever it is.
template <class Fields>
void SetHeaders(Fields& fields) {
  fields.set(http::field::server, "creel");
  fields.set("Content-Security-Policy", kPolicy);
  fields.set("X-Content-Type-Options", "nosniff");
  fields.set("X-Frame-Options", "DENY");
  fields.set("Referrer-Policy", "no-referrer");
  fields.set("Cross-Origin-Opener-Policy", "same-origin");
  fields.set("Cross-Origin-Resource-Policy", "same-origin");
  fields.set("Permissions-Policy",
             "camera=(), microphone=(), geolocation=(), clipboard-read=(), usb=()");
  fields.set(http::field::cache_control, "no-store");
}

}  // namespace

void Tell(Site& site, const std::string& act, const std::string& detail, const std::string& by) {
  if (site.audit != nullptr) {
    site.audit->Keep(OperatorAct(act, "", detail, by));
  }
}

template <class Body>
http::response<Body> Connection::Make(unsigned status, std::string_view type) const {
  http::response<Body> response;
  response.version(request_.version());
  response.result(status);
  response.keep_alive(request_.keep_alive());
  SetHeaders(response);
  response.set(http::field::content_type, beast::string_view(type.data(), type.size()));
  return response;
}

template <class Body>
void Connection::Write(http::response<Body> given) {
  auto response = std::make_shared<http::response<Body>>(std::move(given));
  response->prepare_payload();
  if (request_.method() == http::verb::head) {
    response->body() = {};  // its length stays
  }
  stream_.expires_after(kWriteWithin);
  http::async_write(
      stream_, *response, [self = shared_from_this(), response](const error_code& error, size_t) {
        if (error) {
          return;
        }
        if (!response->keep_alive()) {
          error_code ignored;
          self->stream_.socket().shutdown(boost::asio::ip::tcp::socket::shutdown_send, ignored);
          self->stream_.expires_after(kLinger);
          self->Drain();
          return;
        }
        self->Read();
      });
}

Connection::Connection(Site& site, boost::asio::ip::tcp::socket socket)
    : site_(site), stream_(std::move(socket)) {
  ++site_.connections;
  error_code ignored;
  address_ = stream_.socket().remote_endpoint(ignored).address().to_string();
}

Connection::~Connection() { --site_.connections; }

void Connection::Run() { Read(); }

void Connection::Read() {
  parser_.emplace();
  parser_->header_limit(kMaxHeader);
  parser_->body_limit(kMaxBody);
  cookie_.clear();
  key_.clear();
  login_.clear();
  stream_.expires_after(buffer_.size() > 0 ? kRequestWithin : kIdle);
  http::async_read(
      stream_, buffer_, *parser_, [self = shared_from_this()](const error_code& error, size_t) {
        if (error == http::error::end_of_stream || error == beast::error::timeout) {
          error_code ignored;
          self->stream_.socket().shutdown(boost::asio::ip::tcp::socket::shutdown_both, ignored);
          return;
        }
        if (error == http::error::body_limit || error == http::error::header_limit) {
          self->request_ = {};
          self->request_.keep_alive(false);
          self->Refuse(413, "TOO_LARGE", "the request is too large");
          return;
        }
        if (error) {
          return;  // the other side went away, or speaks no HTTP
        }
        self->request_ = self->parser_->release();
        self->Dispatch();
      });
}

void Connection::Dispatch() {
  const bool get = request_.method() == http::verb::get || request_.method() == http::verb::head;
  const bool post = request_.method() == http::verb::post;
  std::string_view path = View(request_.target());
  path = path.substr(0, path.find('?'));
  const bool opens_page = get && FindAsset(path == "/" ? "/index.html" : path) != nullptr;
  const OriginVerdict verdict =
      request_.count(http::field::host) > 1 || request_.count(http::field::origin) > 1
          ? OriginVerdict::kWrongHost
          : CheckOrigin({.host = View(request_[http::field::host]),
                         .origin = View(request_[http::field::origin]),
                         .fetch_site = View(request_["Sec-Fetch-Site"]),
                         .changes = !get,
                         .opens_page = opens_page},
                        site_.hosts);
  if (verdict != OriginVerdict::kGood) {
    uint64_t left_out = 0;
    if (site_.refusals.Allow(left_out)) {
      spdlog::warn("page: refused a request from {} for host \"{}\" of origin \"{}\"{}", address_,
                   Printable(View(request_[http::field::host]), 128),
                   Printable(View(request_[http::field::origin]), 128),
                   left_out > 0 ? fmt::format(", and {} before", left_out) : "");
    }
    if (verdict == OriginVerdict::kWrongHost) {
      Refuse(421, "WRONG_HOST",
             "this is not the name of this page; open the address that `creel page` prints, or add "
             "the name to web.hosts");
    } else {
      Refuse(403, "WRONG_ORIGIN", "only the page itself may ask for this");
    }
    return;
  }
  if (opens_page) {
    ServeAsset(path == "/" ? "/index.html" : path);
  } else if (get && path == "/metrics" && site_.serve_metrics) {
    ServeMetrics();
  } else if (get && path.starts_with("/bundle/")) {
    Download(path.substr(8));
  } else if (!post) {
    Refuse(get ? 404 : 405, "NOT_FOUND", "there is nothing here");
  } else if (View(request_[http::field::content_type]) != kJson) {
    // What a form of another page can send is never JSON.
    Refuse(415, "NOT_JSON", "send JSON");
  } else if (path == "/login") {
    LogIn();
  } else if (!LetIn()) {
    return;
  } else if (path == "/logout") {
    LogOut();
  } else if (path == "/live") {
    GoLive();
  } else if (path == "/ticket") {
    MakeTicket();
  } else if (path.starts_with("/api/")) {
    Call(path.substr(5));
  } else {
    Refuse(404, "NOT_FOUND", "there is nothing here");
  }
}

bool Connection::LetIn() {
  cookie_ = CookieOf(View(request_[http::field::cookie]), site_.cookie_name);
  key_ = View(request_["X-Creel-Key"]);
  const std::optional<std::string> name = site_.logins.Check(cookie_, key_);
  if (!name) {
    Refuse(401, "LOG_IN", "log in: creel page prints an address that does");
    return false;
  }
  login_ = *name;
  let_in_ = true;
  return true;
}

void Connection::Drop() {
  error_code ignored;
  stream_.socket().close(ignored);
}

std::string Connection::Who() const { return fmt::format("page {} from {}", login_, address_); }

void Connection::ServeAsset(std::string_view path) {
  const Asset& asset = *FindAsset(path);
  // The content is nobody's copy.
  auto response = Make<http::span_body<const char>>(200, asset.type);
  const std::string tag = fmt::format("\"{}\"", asset.version);
  response.set(http::field::cache_control, "no-cache");
  response.set(http::field::etag, tag);
  response.set(http::field::vary, "Accept-Encoding");
  if (View(request_[http::field::if_none_match]) == tag) {
    response.result(http::status::not_modified);
    Write(std::move(response));
    return;
  }
  std::string_view content = asset.gzip;
  if (View(request_[http::field::accept_encoding]).find("gzip") != std::string_view::npos) {
    response.set(http::field::content_encoding, "gzip");
  } else {
    content = Unpacked(asset);
  }
  response.body() = {content.data(), content.size()};
  Write(std::move(response));
}

void Connection::ServeMetrics() {
  site_.hub.WhenMeasured([self = shared_from_this()]() mutable {
    auto& io = self->site_.io;
    boost::asio::post(io, [self = std::move(self)] {
      self->Answer(200, "text/plain; version=0.0.4; charset=utf-8", self->site_.metrics.Scrape());
    });
  });
}

void Connection::LogIn() {
  const auto body = nlohmann::json::parse(request_.body(), nullptr, /*allow_exceptions=*/false);
  const std::optional<Logins::Login> login = site_.logins.Redeem(TextOf(body, "token"));
  if (!login) {
    uint64_t left_out = 0;
    if (site_.failed_logins.Allow(left_out)) {
      Tell(site_, "PageLogin failed",
           fmt::format("the address is none, was used, or is too old{}",
                       left_out > 0 ? fmt::format("; {} before", left_out) : ""),
           "page from " + address_);
    }
    Refuse(
        401, "OLD_ADDRESS",
        "this address was used already, or is older than five minutes; creel page prints another");
    return;
  }
  login_ = login->name;
  Tell(site_, "PageLogin", "", Who());
  Response response = Make(200, kJson);
  const bool tls = View(request_[http::field::origin]).starts_with("https:");
  response.set(
      http::field::set_cookie,
      fmt::format("{}={}; HttpOnly; SameSite=Strict; Path=/; Max-Age={}{}", site_.cookie_name,
                  login->cookie, site_.logins.login_lifetime().count(), tls ? "; Secure" : ""));
  response.body() = Dump({{"key", login->key}, {"name", login->name}});
  Write(std::move(response));
}

void Connection::LogOut() {
  site_.logins.End(cookie_);
  Tell(site_, "PageLogout", "", Who());
  Response response = Make(200, kJson);
  response.set(http::field::set_cookie,
               fmt::format("{}=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0", site_.cookie_name));
  response.body() = "{}";
  Write(std::move(response));
}

void Connection::Call(std::string_view method) {
  if (method == kOpenPage) {
    // A login must not make others that outlive it.
    Refuse(403, "PERMISSION_DENIED", "addresses of the page are made by `creel page` alone");
    return;
  }
  stream_.expires_never();
  site_.calls.Unary(method, request_.body(), site_.caller(Who()),
                    [self = shared_from_this()](OperatorCalls::Reply reply) mutable {
                      auto& io = self->site_.io;
                      boost::asio::post(io, [self = std::move(self), reply = std::move(reply)] {
                        self->AnswerJson(reply);
                      });
                    });
}

void Connection::GoLive() {
  const auto body = nlohmann::json::parse(request_.body(), nullptr, /*allow_exceptions=*/false);
  LiveRequest live{.session = TextOf(body, "session"),
                   .process = TextOf(body, "process"),
                   .offset = NumberOf(body, "offset"),
                   .last_bytes = NumberOf(body, "lastBytes")};
  if (live.session.size() > kMaxKey || live.process.size() > kMaxKey) {
    Refuse(400, "INVALID_ARGUMENT", "the session's name is too long");
    return;
  }
  http::response<http::empty_body> head{http::status::ok, 11};
  SetHeaders(head);
  head.set(http::field::content_type, "text/event-stream");
  head.set("X-Accel-Buffering", "no");
  head.chunked(true);
  std::ostringstream text;
  text << head.base();
  std::make_shared<LiveStream>(
      site_.io, std::move(stream_), site_.hub, site_.calls, site_.metrics, site_.caller(Who()),
      [&logins = site_.logins, cookie = cookie_, key = key_] {
        return logins.Check(cookie, key).has_value();
      },
      std::move(live))
      ->Run(text.str());
}

void Connection::MakeTicket() {
  // Through the operator's door, so that it is in the record who took the evidence.
  site_.calls.Unary(
      "creel.operator.v1.Page/OpenBundle", request_.body(), site_.caller(Who()),
      [self = shared_from_this()](OperatorCalls::Reply reply) mutable {
        auto& io = self->site_.io;
        boost::asio::post(io, [self = std::move(self), reply = std::move(reply)]() mutable {
          if (reply.http_status != 200) {
            self->AnswerJson(std::move(reply));
            return;
          }
          Site& site = self->site_;
          const auto now = steady_clock::now();
          std::erase_if(site.tickets, [&](const auto& each) { return each.second.until <= now; });
          if (site.tickets.size() >= kMaxTickets) {
            self->Refuse(429, "RESOURCE_EXHAUSTED", "too many downloads wait; try again");
            return;
          }
          const auto bundle = nlohmann::json::parse(reply.json, nullptr, false);
          const std::string path = TextOf(bundle, "path");
          const std::string name = Hex(RandomBytes(32));
          site.tickets[HashOf(name)] = {.cookie = self->cookie_,
                                        .key = self->key_,
                                        .path = path,
                                        .name = path.substr(path.rfind('/') + 1),
                                        .until = now + kTicketLife};
          self->AnswerJson({.http_status = 200,
                            .json = Dump({{"url", "/bundle/" + name},
                                          {"bytes", bundle.value("bytes", "0")},
                                          {"sha256", TextOf(bundle, "sha256")}})});
        });
      });
}

void Connection::Download(std::string_view name) {
  if (request_.method() == http::verb::head) {
    Refuse(405, "NOT_FOUND", "there is nothing here");
    return;
  }
  const auto found = site_.tickets.find(HashOf(name));
  if (found == site_.tickets.end() || found->second.until <= steady_clock::now() ||
      CookieOf(View(request_[http::field::cookie]), site_.cookie_name) != found->second.cookie ||
      !site_.logins.Check(found->second.cookie, found->second.key)) {
    Refuse(404, "NOT_FOUND", "this download was used already, has expired, or is another's");
    return;
  }
  const Ticket ticket = std::move(found->second);
  site_.tickets.erase(found);
  const int fd = ::open(ticket.path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  struct stat about {};
  const bool good = fd >= 0 && ticket.path.starts_with(site_.state_dir + "/") &&
                    ticket.path.find("/../") == std::string::npos && ::fstat(fd, &about) == 0 &&
                    S_ISREG(about.st_mode);
  if (!good) {
    if (fd >= 0) {
      ::close(fd);
    }
    Refuse(404, "NOT_FOUND", "the bundle is not where it was left");
    return;
  }
  error_code error;
  beast::file_posix file;
  file.native_handle(fd);
  http::response<http::file_body> response;
  response.body().reset(std::move(file), error);
  response.version(request_.version());
  response.keep_alive(request_.keep_alive());
  SetHeaders(response);
  response.set(http::field::content_type, "application/zstd");
  std::string safe;
  for (const char c : ticket.name) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       c == '.' || c == '-' || c == '_';
    safe += plain ? c : '_';
  }
  response.set(http::field::content_disposition, "attachment; filename=\"" + safe + "\"");
  response.prepare_payload();
  const bool goes_on = response.keep_alive();
  SendFile(stream_, std::move(response), kWriteWithin,
           [self = shared_from_this(), goes_on](const error_code& failed) {
             if (!failed && goes_on) {
               self->Read();
             }
           });
}

void Connection::Answer(unsigned status, std::string_view type, std::string body) {
  Response response = Make(status, type);
  response.body() = std::move(body);
  Write(std::move(response));
}

void Connection::AnswerJson(OperatorCalls::Reply reply) {
  Answer(reply.http_status, kJson, std::move(reply.json));
}

void Connection::Refuse(unsigned status, const std::string& code, const std::string& why) {
  Answer(status, kJson, Dump({{"code", code}, {"error", why}}));
}

// Takes what the other side still sends: closing before would have its kernel throw our answer
// away.
void Connection::Drain() {
  buffer_.clear();
  stream_.async_read_some(buffer_.prepare(kDrained),
                          [self = shared_from_this()](const error_code& error, size_t) {
                            if (!error) {
                              self->Drain();
                            }
                          });
}

}  // namespace creel::web
