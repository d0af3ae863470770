#pragma once

#include <string_view>

namespace creel::web {

// A file of the page as it stands in the binary.
struct Asset {
  std::string_view path;     // as in the URL, such as `/page.js`
  std::string_view type;     // its media type
  std::string_view version;  // changes with its content
  std::string_view gzip;     // the content, compressed
};

// Null: there is no such file.
const Asset* FindAsset(std::string_view path);

// The content of a file of the page, for those who do not take it compressed: unpacked when it is
// first asked for, and kept, as there are only so many. Good for ever. Thread-safe.
std::string_view Unpacked(const Asset& asset);

}  // namespace creel::web
