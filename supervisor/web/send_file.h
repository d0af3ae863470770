#pragma once

#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/file_body.hpp>
#include <boost/beast/http/message.hpp>
#include <chrono>
#include <functional>

namespace creel::web {

// Writes an answer whose body is a file, however long that takes: each piece of it has to be on its
// way within `piece_within`, or the other side has stalled, and it ends with a timeout. `done` is
// called once, on the stream's thread; `stream` must live until then, which what `done` holds sees
// to.
void SendFile(boost::beast::tcp_stream& stream,
              boost::beast::http::response<boost::beast::http::file_body> response,
              std::chrono::milliseconds piece_within,
              std::function<void(const boost::system::error_code&)> done);

}  // namespace creel::web
