#include "supervisor/cli/mcp/protocol.h"

#include <fmt/format.h>

#include <array>

#include "supervisor/base/escape.h"

namespace creel::cli::mcp {
namespace {

constexpr char kVersionKey[] = "io.modelcontextprotocol/protocolVersion";
constexpr char kCapabilitiesKey[] = "io.modelcontextprotocol/clientCapabilities";
constexpr char kServerInfoKey[] = "io.modelcontextprotocol/serverInfo";
// The second is close enough to the first that its clients are served as well.
constexpr std::array<const char*, 2> kHandshakeRevisions{kNewestHandshakeRevision, "2025-06-18"};

Json ServerInfo() {
  return {{"name", "creel"}, {"title", "Creel sandbox"}, {"version", CREEL_VERSION}};
}

std::string Instructions(const std::string& session) {
  return fmt::format(
      "Tools of the sandbox of session '{}': a Linux container without a network card, with a "
      "workspace of its own and fixed limits. Paths are absolute or relative to the workspace.",
      Printable(session, 200));
}

}  // namespace

std::variant<Era, RpcError> EraOf(const Message& message) {
  const auto meta = message.params.find("_meta");
  if (meta == message.params.end() || !meta->is_object() || !meta->contains(kVersionKey)) {
    return Era::kHandshake;
  }
  const Json& version = (*meta)[kVersionKey];
  if (!version.is_string()) {
    return RpcError{ErrorCode::kInvalidParams, fmt::format("`{}` must be a text", kVersionKey)};
  }
  if (version != kNewestRevision) {
    return RpcError{ErrorCode::kUnsupportedVersion,
                    fmt::format("protocol version '{}' is not spoken here",
                                Printable(version.get<std::string>(), 40)),
                    {{"supported", {kNewestRevision}}, {"requested", version}}};
  }
  const auto capabilities = meta->find(kCapabilitiesKey);
  if (message.id && (capabilities == meta->end() || !capabilities->is_object())) {
    return RpcError{ErrorCode::kInvalidParams,
                    fmt::format("`{}` must be an object", kCapabilitiesKey)};
  }
  return Era::kPerRequest;
}

std::variant<Json, RpcError> AnswerInitialize(const Json& params, const std::string& session) {
  const auto wanted = params.find("protocolVersion");
  if (wanted == params.end() || !wanted->is_string()) {
    return RpcError{ErrorCode::kInvalidParams, "`protocolVersion` must be a text"};
  }
  const char* chosen = kNewestHandshakeRevision;
  for (const char* const revision : kHandshakeRevisions) {
    chosen = *wanted == revision ? revision : chosen;
  }
  return Json{{"protocolVersion", chosen},
              {"capabilities", {{"tools", Json::object()}}},
              {"serverInfo", ServerInfo()},
              {"instructions", Instructions(session)}};
}

Json AnswerDiscover(const std::string& session) {
  return {{"supportedVersions", {kNewestRevision}},
          {"capabilities", {{"tools", Json::object()}}},
          {"instructions", Instructions(session)}};
}

Json Dress(Json result, Era era, bool cacheable) {
  if (era == Era::kPerRequest) {
    result["resultType"] = "complete";
    result["_meta"][kServerInfoKey] = ServerInfo();
    if (cacheable) {
      result["ttlMs"] = 0;
      result["cacheScope"] = "private";
    }
  }
  return result;
}

}  // namespace creel::cli::mcp
