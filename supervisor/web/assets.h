#pragma once

#include <string>
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

// Its content, for those who do not take it compressed.
std::string Unpack(const Asset& asset);

}  // namespace creel::web
