#include "supervisor/web/server.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <exception>
#include <thread>
#include <utility>

#include "supervisor/config/web_keys.h"
#include "supervisor/web/connection.h"
#include "supervisor/web/live_hub.h"
#include "supervisor/web/logins.h"
#include "supervisor/web/record_tail.h"
#include "supervisor/web/site.h"

namespace creel::web {
namespace {

using boost::asio::ip::tcp;
using boost::system::error_code;

constexpr int kMaxConnections = 256;

absl::Status AsStatus(const error_code& error, const std::string& what) {
  return ErrnoStatus(error.value(), what);
}

std::string AsHost(const std::string& address, uint16_t port) {
  // As a browser says it: port 80 is left out.
  const std::string name =
      address.find(':') == std::string::npos ? address : fmt::format("[{}]", address);
  return port == 80 ? name : fmt::format("{}:{}", name, port);
}

}  // namespace

class WebServer::Impl {
 public:
  explicit Impl(const Rooms& rooms)
      : rooms_(rooms),
        logins_({.file = rooms.state_dir.empty() ? "" : rooms.state_dir + "/page-logins"},
                rooms.clock),
        acceptor_(io_),
        pause_(io_) {}

  ~Impl() {
    Stop();
    if (calls_ != nullptr) {
      // What ends now still finds the io_context.
      calls_->Drain();
    }
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  absl::Status Listen() {
    const auto place = SplitListen(rooms_.config.listen);
    if (!place) {
      return absl::InvalidArgumentError(
          fmt::format("'{}' is no address and port", rooms_.config.listen));
    }
    error_code error;
    const auto address = boost::asio::ip::make_address(place->first, error);
    const tcp::endpoint endpoint(address, place->second);
    acceptor_.open(endpoint.protocol(), error);
    if (!error) {
      acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    }
    if (!error) {
      acceptor_.bind(endpoint, error);
    }
    if (!error) {
      acceptor_.listen(64, error);
    }
    if (error) {
      return AsStatus(error, fmt::format("listen at {}", rooms_.config.listen));
    }
    const uint16_t port = acceptor_.local_endpoint(error).port();
    hosts_ = {AsHost(place->first, port), AsHost("localhost", port)};
    if (address.is_unspecified()) {
      hosts_ = {AsHost("127.0.0.1", port), AsHost("localhost", port)};
    }
    url_ = "http://" + hosts_.front();
    hosts_.insert(hosts_.end(), rooms_.config.hosts.begin(), rooms_.config.hosts.end());
    cookie_name_ = fmt::format("creel-{}", port);
    return absl::OkStatus();
  }

  void Serve(const std::shared_ptr<grpc::Channel>& operators,
             std::function<Caller(const std::string&)> caller) {
    calls_ = std::make_unique<OperatorCalls>(operators);
    hub_ = std::make_unique<LiveHub>(operators, rooms_.metrics, rooms_.audit);
    site_.reset(new Site{.io = io_,
                         .hosts = hosts_,
                         .cookie_name = cookie_name_,
                         .state_dir = rooms_.state_dir,
                         .serve_metrics = rooms_.config.metrics,
                         .logins = logins_,
                         .calls = *calls_,
                         .hub = *hub_,
                         .metrics = rooms_.metrics,
                         .audit = rooms_.audit,
                         .caller = std::move(caller)});
    if (rooms_.audit != nullptr) {
      tail_ = std::make_unique<RecordTail>(*rooms_.audit, [this](std::string_view line) {
        rooms_.metrics.OnRecord(line);
        hub_->OnRecord(line);
      });
    }
    Accept();
    serving_.store(true);
    thread_ = std::thread([this] {
      prctl(PR_SET_NAME, "creel-web");
      while (true) {
        try {
          io_.run();
          return;
        } catch (const std::exception& error) {
          // Nothing of ours throws: a library did, for one connection, which is gone with it.
          spdlog::error("page: {}", error.what());
        }
      }
    });
  }

  void Stop() {
    serving_.store(false);
    if (tail_ != nullptr) {
      tail_->Stop();
    }
    if (hub_ != nullptr) {
      hub_->Stop();
      calls_->Stop();
    }
    io_.stop();
    if (thread_.joinable()) {
      thread_.join();
    }
    error_code ignored;
    acceptor_.close(ignored);
  }

  absl::StatusOr<PageDoor::Address> OpenAddress() {
    if (!serving_.load()) {
      return absl::FailedPreconditionError("the page is not served");
    }
    ASSIGN_OR_RETURN(const Logins::Token token, logins_.MakeToken());
    // After `#`, so that it is in no log of a server or proxy.
    return PageDoor::Address{.url = fmt::format("{}/#login={}", url_, token.text),
                             .expires_at = token.expires_at};
  }

  absl::Status CloseLogins() {
    logins_.EndAll();
    return absl::OkStatus();
  }

  [[nodiscard]] const std::string& url() const { return url_; }

 private:
  void Accept() {
    acceptor_.async_accept([this](const error_code& error, tcp::socket socket) {
      if (error == boost::asio::error::operation_aborted) {
        return;
      }
      if (error) {
        // As when no descriptor is left: not again at once.
        pause_.expires_after(std::chrono::milliseconds(200));
        pause_.async_wait([this](const error_code& stopped) {
          if (!stopped) {
            Accept();
          }
        });
        return;
      }
      if (site_->connections < kMaxConnections || DropStranger()) {
        error_code ignored;
        socket.set_option(tcp::no_delay(true), ignored);
        const auto connection = std::make_shared<Connection>(*site_, std::move(socket));
        if (site_->strangers.size() > 4 * static_cast<size_t>(kMaxConnections)) {
          std::erase_if(site_->strangers, [](const auto& each) {
            const auto alive = each.lock();
            return alive == nullptr || alive->let_in();
          });
        }
        site_->strangers.push_back(connection);
        connection->Run();
      }
      Accept();
    });
  }

  // Anybody on this host can connect: that must not keep the operator out.
  bool DropStranger() {
    auto& strangers = site_->strangers;
    while (!strangers.empty()) {
      const std::shared_ptr<Connection> oldest = strangers.front().lock();
      strangers.pop_front();
      if (oldest == nullptr || oldest->let_in()) {
        continue;
      }
      oldest->Drop();
      if (uint64_t left_out = 0; site_->refusals.Allow(left_out)) {
        spdlog::warn("page: {} connections are open; the oldest without a login gives way",
                     site_->connections);
      }
      return true;
    }
    return false;
  }

  const Rooms rooms_;
  Logins logins_;
  std::vector<std::string> hosts_;
  std::string url_;
  std::string cookie_name_;
  std::unique_ptr<OperatorCalls> calls_;
  std::unique_ptr<LiveHub> hub_;
  std::unique_ptr<Site> site_;
  std::unique_ptr<RecordTail> tail_;
  std::atomic<bool> serving_{false};
  // Connections go with it, and before what they use.
  boost::asio::io_context io_;
  tcp::acceptor acceptor_;
  boost::asio::steady_timer pause_;
  std::thread thread_;
};

absl::StatusOr<std::unique_ptr<WebServer>> WebServer::Listen(const Rooms& rooms) {
  auto impl = std::make_unique<Impl>(rooms);
  RETURN_IF_ERROR(impl->Listen());
  return std::unique_ptr<WebServer>(new WebServer(std::move(impl)));
}

WebServer::WebServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
WebServer::~WebServer() { Stop(); }

void WebServer::Serve(std::shared_ptr<grpc::Channel> operators,
                      std::function<Caller(const std::string& who)> caller) {
  impl_->Serve(operators, std::move(caller));
}
void WebServer::Stop() { impl_->Stop(); }
absl::StatusOr<PageDoor::Address> WebServer::OpenAddress() { return impl_->OpenAddress(); }
absl::Status WebServer::CloseLogins() { return impl_->CloseLogins(); }
std::string WebServer::url() const { return impl_->url(); }

}  // namespace creel::web
