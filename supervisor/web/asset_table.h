#pragma once

#include <span>

#include "supervisor/web/assets.h"

namespace creel::web {

// All of them; the build writes its body from the files, see embed.cmake.
std::span<const Asset> AssetTable();

}  // namespace creel::web
