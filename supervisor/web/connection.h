#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "supervisor/web/operator_calls.h"
#include "supervisor/web/site.h"

namespace creel::web {

// One connection of a browser or of Prometheus: requests one after the other. Holds itself while
// something is under way.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Site& site, boost::asio::ip::tcp::socket socket);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void Run();
  // Whether a request of a login ever came over it.
  [[nodiscard]] bool let_in() const { return let_in_; }
  // Ends it, whatever is under way.
  void Drop();

 private:
  using Request = boost::beast::http::request<boost::beast::http::string_body>;
  using Response = boost::beast::http::response<boost::beast::http::string_body>;

  void Read();
  void Dispatch();
  // For those who are logged in; false: an answer was given.
  bool LetIn();

  void ServeAsset(std::string_view path);
  void ServeMetrics();
  void LogIn();
  void LogOut();
  void Call(std::string_view method);
  void GoLive();
  void MakeTicket();
  void Download(std::string_view ticket);

  void Answer(unsigned status, std::string_view type, std::string body);
  void AnswerJson(OperatorCalls::Reply reply);
  void Refuse(unsigned status, const std::string& code, const std::string& why);
  template <class Body = boost::beast::http::string_body>
  [[nodiscard]] boost::beast::http::response<Body> Make(unsigned status,
                                                        std::string_view type) const;
  template <class Body>
  void Write(boost::beast::http::response<Body> response);
  void Drain();
  // `page ab12cd from 127.0.0.1`.
  [[nodiscard]] std::string Who() const;

  Site& site_;
  boost::beast::tcp_stream stream_;
  std::string address_;
  boost::beast::flat_buffer buffer_;
  std::optional<boost::beast::http::request_parser<boost::beast::http::string_body>> parser_;
  Request request_;
  std::string cookie_;
  std::string key_;
  std::string login_;  // its name, once it was let in
  bool let_in_ = false;
};

}  // namespace creel::web
