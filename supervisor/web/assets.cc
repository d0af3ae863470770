#include "supervisor/web/assets.h"

#include <zlib.h>

#include <algorithm>
#include <map>
#include <string>

#include "supervisor/base/mutex.h"
#include "supervisor/web/asset_table.h"

namespace creel::web {

const Asset* FindAsset(std::string_view path) {
  const auto table = AssetTable();
  const auto found = std::find_if(table.begin(), table.end(),
                                  [&](const Asset& asset) { return asset.path == path; });
  return found == table.end() ? nullptr : &*found;
}

namespace {

std::string Unpack(const Asset& asset) {
  std::string content;
  z_stream stream{};
  constexpr int kGzip = 16 + MAX_WBITS;
  if (inflateInit2(&stream, kGzip) != Z_OK) {
    return content;
  }
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(asset.gzip.data()));
  stream.avail_in = static_cast<uInt>(asset.gzip.size());
  int result = Z_OK;
  while (result == Z_OK) {
    char piece[16384];
    stream.next_out = reinterpret_cast<Bytef*>(piece);
    stream.avail_out = sizeof(piece);
    result = inflate(&stream, Z_NO_FLUSH);
    content.append(piece, sizeof(piece) - stream.avail_out);
  }
  inflateEnd(&stream);
  return content;
}

// What was asked for so far, by the path.
struct UnpackedAssets {
  Mutex mu;
  std::map<std::string_view, std::string> contents ABSL_GUARDED_BY(mu);
};

}  // namespace

std::string_view Unpacked(const Asset& asset) {
  static UnpackedAssets& all = *new UnpackedAssets;
  MutexLock hold(all.mu);
  auto found = all.contents.find(asset.path);
  if (found == all.contents.end()) {
    found = all.contents.emplace(asset.path, Unpack(asset)).first;
  }
  return found->second;
}

}  // namespace creel::web
