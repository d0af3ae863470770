#include "supervisor/web/assets.h"

#include <doctest/doctest.h>

#include <string>
#include <string_view>

#include "supervisor/web/asset_table.h"

using namespace creel::web;  // NOLINT: a test of one room

TEST_SUITE("Assets") {
  TEST_CASE("every file of the page is in the binary, and comes out as it went in") {
    CHECK(AssetTable().size() >= 15);
    for (const Asset& asset : AssetTable()) {
      CAPTURE(std::string(asset.path));
      CHECK(asset.version.size() == 16);
      const std::string_view content = Unpacked(asset);
      CHECK(content.size() > 100);
      // Once for all who ask.
      CHECK(Unpacked(asset).data() == content.data());
      CHECK(FindAsset(asset.path) == &asset);
    }
    REQUIRE(FindAsset("/index.html") != nullptr);
    CHECK(Unpacked(*FindAsset("/index.html")).starts_with("<!doctype html>"));
    CHECK(FindAsset("/index.html")->type == "text/html; charset=utf-8");
    REQUIRE(FindAsset("/vendor/xterm.js") != nullptr);
    CHECK(FindAsset("/vendor/uplot.js")->type == "text/javascript; charset=utf-8");
    CHECK(FindAsset("/nothing") == nullptr);
    CHECK(FindAsset("") == nullptr);
  }
}
