#include "supervisor/web/send_file.h"

#include <boost/beast/http/serializer.hpp>
#include <boost/beast/http/write.hpp>
#include <memory>
#include <utility>

namespace creel::web {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;
using Done = std::function<void(const error_code&)>;

class Sender : public std::enable_shared_from_this<Sender> {
 public:
  Sender(beast::tcp_stream& stream, http::response<http::file_body> response,
         std::chrono::milliseconds piece_within, Done done)
      : stream_(stream),
        response_(std::move(response)),
        piece_within_(piece_within),
        done_(std::move(done)) {}

  void Next() {
    stream_.expires_after(piece_within_);
    http::async_write_some(stream_, serializer_,
                           [self = shared_from_this()](const error_code& error, size_t) {
                             if (error || self->serializer_.is_done()) {
                               self->done_(error);
                             } else {
                               self->Next();
                             }
                           });
  }

 private:
  beast::tcp_stream& stream_;
  http::response<http::file_body> response_;
  http::response_serializer<http::file_body> serializer_{response_};
  const std::chrono::milliseconds piece_within_;
  const Done done_;
};

}  // namespace

void SendFile(beast::tcp_stream& stream, http::response<http::file_body> response,
              std::chrono::milliseconds piece_within, Done done) {
  std::make_shared<Sender>(stream, std::move(response), piece_within, std::move(done))->Next();
}

}  // namespace creel::web
