#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "supervisor/web/live_hub.h"
#include "supervisor/web/operator_calls.h"

namespace creel::web {

// What one page wants to be told of.
struct LiveRequest {
  std::string session;  // key or sandbox id whose usage and calls it looks at; empty: none
  std::string process;  // the command of that session whose output it looks at; empty: none
  uint64_t offset = 0;  // of that output
  uint64_t last_bytes = 0;
};

// The connection of one page that is open: server-sent events until it goes. Each kind of news
// waits for room in the connection in a place of its own, of bounded size, so that a slow page gets
// the newest and holds nothing up. Lives in the io_context's thread.
class LiveStream final : public LiveHub::Viewer, public std::enable_shared_from_this<LiveStream> {
 public:
  // `stands`: whether the login that asked for it has not ended; once it has, nothing more is told.
  LiveStream(boost::asio::io_context& io, boost::beast::tcp_stream stream, LiveHub& hub,
             OperatorCalls& calls, Metrics& metrics, Caller caller, std::function<bool()> stands,
             LiveRequest request);
  ~LiveStream() override;

  // `head` is what goes before the events.
  void Run(std::string head);
  void Close();

  void OnFrame(std::shared_ptr<const LiveHub::Frame> frame) override;
  void OnLines() override;

 private:
  // A call of the operator's whose answers are passed on as events.
  struct Source {
    explicit Source(boost::asio::io_context& io) : again(io) {}
    std::string event;
    std::string method;
    std::string request;
    bool restarts = false;
    std::shared_ptr<OperatorCalls::Stream> stream{};
    std::string waiting{};  // to be written
    bool has_message = false;
    std::string end{};
    boost::asio::steady_timer again;
  };

  void Watch();
  void Begin(const std::shared_ptr<Source>& source);
  void Ping();
  void Write();
  [[nodiscard]] bool Gather(std::string& out);

  boost::asio::io_context& io_;
  boost::beast::tcp_stream stream_;
  LiveHub& hub_;
  OperatorCalls& calls_;
  Metrics& metrics_;
  const Caller caller_;
  const std::function<bool()> stands_;
  const LiveRequest request_;
  boost::asio::steady_timer ping_;
  char nothing_[256];  // what the page sends after its request is none of our business

  uint64_t member_ = 0;
  std::string sending_;
  bool writing_ = false;
  bool closed_ = false;
  bool pinged_ = false;
  bool lines_ = false;
  std::shared_ptr<const LiveHub::Frame> frame_;
  uint64_t written_frame_ = 0;
  std::vector<std::shared_ptr<Source>> sources_;
  std::vector<std::shared_ptr<Source>> taken_;  // whose message is being written
};

}  // namespace creel::web
