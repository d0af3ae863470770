#include "supervisor/daemon/page_wiring.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cstdint>
#include <string>

#include "supervisor/config/web_keys.h"

namespace creel {

MaybePage ListenForPage(const Config& config, const Clock& clock, web::Metrics& metrics,
                        AuditLog& audit) {
  const WebConfig wanted = WebConfigOf(config);
  if (!wanted.enabled) {
    return absl::FailedPreconditionError(
        "no page is served: web.enabled is off in the configuration");
  }
  MaybePage page = web::WebServer::Listen({.config = wanted,
                                           .state_dir = config.paths.state_dir,
                                           .clock = clock,
                                           .metrics = metrics,
                                           .audit = &audit});
  if (!page.ok()) {
    page = absl::FailedPreconditionError(
        fmt::format("no page is served: {}; choose another address (web.listen)",
                    std::string(page.status().message())));
    spdlog::error("{}", std::string(page.status().message()));
  }
  return page;
}

PageDoor DoorOf(const MaybePage& page) {
  return {.open = [&page]() -> absl::StatusOr<PageDoor::Address> {
            if (!page.ok()) {
              return page.status();
            }
            return (*page)->OpenAddress();
          },
          .close = [&page] { return page.ok() ? (*page)->CloseLogins() : page.status(); }};
}

void ServePage(const MaybePage& page, ApiServer& api) {
  if (!page.ok()) {
    return;
  }
  auto operators = api.OperatorChannel();
  if (!operators.ok()) {
    spdlog::error("the page is not served: {}", std::string(operators.status().message()));
    return;
  }
  (*page)->Serve(*std::move(operators),
                 [&api](const std::string& who) { return api.PageCaller(who); });
  spdlog::info("the page is at {}; creel page opens it", (*page)->url());
}

Finding PageFinding(const MaybePage& page, const Config& config) {
  const WebConfig wanted = WebConfigOf(config);
  Finding finding{.id = "page", .severity = Severity::kOk, .title = {}};
  if (page.ok()) {
    finding.title = fmt::format("the page is at {}", (*page)->url());
    constexpr uint16_t kFirstOfAll = 1024;
    const auto place = SplitListen(wanted.listen);
    if (place && place->second >= kFirstOfAll) {
      finding.severity = Severity::kWarning;
      finding.why = "any user of this host can take that port while creeld is away, and pose as it";
      finding.fix = "choose a port below 1024 (web.listen), or keep other users from this host";
    }
  } else if (wanted.enabled) {
    finding.severity = Severity::kWarning;
    finding.title = "there is no page";
    finding.why = std::string(page.status().message());
    finding.fix = "choose an address that is free (web.listen), or web.enabled: false";
  } else {
    finding.title = "there is no page, as configured";
  }
  return finding;
}

}  // namespace creel
