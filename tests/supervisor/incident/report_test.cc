#include "supervisor/incident/report.h"

#include <doctest/doctest.h>
#include <stdlib.h>

#include <filesystem>
#include <string>

#include "supervisor/audit/events.h"

namespace creel {
namespace {

constexpr char kHostile[] =
    "</td></table><script>alert(1)</script> | [x](javascript:alert(1)) `code` ![i](http://e/) "
    "\n# heading\x1b[31m & <img src=x onerror=alert(1)>";

struct ReportWorld {
  ReportWorld() {
    char pattern[] = "/tmp/creel-report-XXXXXX";
    REQUIRE(::mkdtemp(pattern) != nullptr);
    top = pattern;
    absl::StatusOr<std::unique_ptr<AuditLog>> opened =
        AuditLog::Open({.directory = top + "/record", .install_id = "i"}, clock);
    REQUIRE(opened.ok());
    audit = *std::move(opened);
    incident.id = "3";
    incident.reason = kHostile;
    incident.scope = HoldRule::Scope::kSession;
    incident.who = "agent:main:dm:1";
    incident.sandboxes.push_back({.session = "agent:main:dm:1",
                                  .sender = kHostile,
                                  .sandbox_id = "0123456789abcdef",
                                  .method = "cgroup"});
    CallFacts call{.number = 1,
                   .session = "agent:main:dm:1",
                   .sender = kHostile,
                   .tool = "exec",
                   .summary = kHostile,
                   .tool_call_id = "c",
                   .rule = "placement.non-main"};
    REQUIRE(audit->Append(CallAllowed(call)).ok());
    audit->Keep(CallEnded(call, "0123456789abcdef", kHostile, {}));
    audit->Keep(CallDenied(call, kHostile));
    call.session = "another";
    call.summary = "of-another-session";
    REQUIRE(audit->Append(CallAllowed(call)).ok());
    audit->Keep(IncidentEvent("opened", "3", kHostile, {"agent:main:dm:1"}));
  }
  ~ReportWorld() {
    audit.reset();
    std::filesystem::remove_all(top);
  }
  std::string Write(ReportFormat format) {
    absl::StatusOr<std::string> text = WriteReport(incident, *audit, format);
    REQUIRE(text.ok());
    return *text;
  }
  std::string top;
  SystemClock clock;
  std::unique_ptr<AuditLog> audit;
  Incident incident;
};

TEST_SUITE("Report") {
  TEST_CASE("a session whose name the record masks is told of too") {
    ReportWorld world;
    world.audit->SetSecrets({{"key", "hunter2-hunter2"}});
    world.incident.sandboxes[0].session = "agent:main:dm:hunter2-hunter2";
    REQUIRE(world.audit
                ->Append(CallDenied({.number = 2,
                                     .session = "agent:main:dm:hunter2-hunter2",
                                     .tool = "write",
                                     .summary = "of-the-masked-session"},
                                    "no"))
                .ok());
    CHECK(world.Write(ReportFormat::kMarkdown).find("of-the-masked-session") != std::string::npos);
  }

  TEST_CASE("the page tells who asked, what ran and what was refused, and nothing of others") {
    ReportWorld world;
    for (const ReportFormat format : {ReportFormat::kHtml, ReportFormat::kMarkdown}) {
      const std::string text = world.Write(format);
      for (const char* wanted : {"asked for exec", "refused exec", "exec ended", "Timeline",
                                 "What to change", "Credentials"}) {
        CAPTURE(wanted);
        CHECK(text.find(wanted) != std::string::npos);
      }
      CHECK(text.find("of-another-session") == std::string::npos);
      CHECK(text.find("of\\-another") == std::string::npos);
    }
  }

  TEST_CASE("hostile text is shown as text in HTML") {
    ReportWorld world;
    const std::string html = world.Write(ReportFormat::kHtml);
    CHECK(html.find("<script") == std::string::npos);
    CHECK(html.find("<img") == std::string::npos);
    CHECK(html.find('\x1b') == std::string::npos);
    CHECK(html.find("&lt;script&gt;") != std::string::npos);
    // Every `<` that is left is one of ours.
    for (size_t at = html.find('<'); at != std::string::npos; at = html.find('<', at + 1)) {
      const std::string tag = html.substr(at, 5);
      const bool ours =
          tag.starts_with("<!doc") || tag.starts_with("<html") || tag.starts_with("<head") ||
          tag.starts_with("<meta") || tag.starts_with("<titl") || tag.starts_with("<styl") ||
          tag.starts_with("<body") || tag.starts_with("<h1>") || tag.starts_with("<h2>") ||
          tag.starts_with("<p>") || tag.starts_with("<tabl") || tag.starts_with("<tr") ||
          tag.starts_with("<td>") || tag.starts_with("<th>") || tag.starts_with("<ul>") ||
          tag.starts_with("<li>") || tag[1] == '/';
      CAPTURE(tag);
      CHECK(ours);
    }
    CHECK(html.find("default-src 'none'") != std::string::npos);
  }

  TEST_CASE("hostile text is shown as text in Markdown") {
    ReportWorld world;
    const std::string text = world.Write(ReportFormat::kMarkdown);
    CHECK(text.find('<') == std::string::npos);
    CHECK(text.find("](javascript") == std::string::npos);
    CHECK(text.find("\n# heading") == std::string::npos);
    CHECK(EscapeMarkdown("[a](b) `c` | <d>") == "\\[a\\]\\(b\\) \\`c\\` \\| &lt;d&gt;");
    CHECK(EscapeMarkdown("www.a.example http://b.example c@d.example") ==
          "www\\.a.example http\\://b.example c\\@d.example");
    CHECK(EscapeMarkdown("- a") == "\\- a");
    CHECK(EscapeMarkdown("1. a") == "1\\. a");
    CHECK(EscapeMarkdown("===") == "\\===");
    // What means nothing is left to be read.
    CHECK(EscapeMarkdown("2026-12-01T12:32:45.3 sh -c 'a=b'; 0.3 ms") ==
          "2026-12-01T12:32:45.3 sh -c 'a=b'; 0.3 ms");
    CHECK(EscapeHtml("<a href='x'>&\"") == "&lt;a href=&#39;x&#39;&gt;&amp;&quot;");
  }
}

}  // namespace
}  // namespace creel
