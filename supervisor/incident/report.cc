#include "supervisor/incident/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "supervisor/audit/audit_query.h"
#include "supervisor/audit/line.h"
#include "supervisor/base/escape.h"
#include "supervisor/incident/secret_desk.h"

namespace creel {
namespace {

// Of a timeline; the newest are kept.
constexpr size_t kMaxRows = 2000;

struct Row {
  std::string at;
  std::string what;  // a word or two of ours
  std::string who;   // the sender or the session, as they gave it
  std::string text;  // as others gave it
  bool alarming = false;
};

struct Story {
  std::deque<Row> rows;
  size_t rows_left_out = 0;
  std::map<std::string, uint64_t> senders;   // and their calls
  std::map<std::string, uint64_t> tools;     // and how often they ran
  std::map<std::string, uint64_t> refusals;  // by rule
  std::map<std::string, uint64_t> reached;   // targets outside, and how often
  std::map<std::string, uint64_t> hosts;     // rules of egress.hosts that let them through
  // Known secrets: how often each was added to a request, and in what it was seen.
  struct Secret {
    uint64_t uses = 0;
    std::set<std::string> seen{};
    std::string state{};  // revoked or restored since; empty: neither
  };
  std::map<std::string, Secret> secrets;
};

// What the record has in a known secret's place.
constexpr std::string_view kMasked = "[secret ";
constexpr std::string_view kHostRule = "host ";

// Names of services and of what the operator lists; whatever else stands there is no mark of ours.
bool IsSecretName(std::string_view name) {
  return std::all_of(name.begin(), name.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '_' || c == '-';
  });
}

void SeeSecrets(Story& story, std::string_view line, std::string_view event) {
  for (size_t at = line.find(kMasked); at != std::string_view::npos;
       at = line.find(kMasked, at + 1)) {
    const size_t begin = at + kMasked.size();
    const size_t end = line.find(']', begin);
    if (end != std::string_view::npos && end > begin && end - begin <= 128 &&
        IsSecretName(line.substr(begin, end - begin))) {
      story.secrets[std::string(line.substr(begin, end - begin))].seen.insert(
          event.starts_with("call.")     ? "in a tool call"
          : event == "process.ended"     ? "in what a command wrote"
          : event.starts_with("egress.") ? "in a connection"
                                         : "in the record");
    }
  }
}

class Fields {
 public:
  explicit Fields(std::string_view line) : fields_(FieldsOf(line)) {}
  [[nodiscard]] std::string operator[](std::string_view key) const {
    for (const auto& [name, value] : fields_) {
      if (name == key) {
        return value;
      }
    }
    return {};
  }

 private:
  const std::vector<std::pair<std::string, std::string>> fields_;
};

void Add(Story& story, Row row) {
  story.rows.push_back(std::move(row));
  if (story.rows.size() > kMaxRows) {
    story.rows.pop_front();
    ++story.rows_left_out;
  }
}

std::string Joined(const std::string& a, const char* between, const std::string& b) {
  return a.empty() ? b : b.empty() ? a : a + between + b;
}

void Take(Story& story, const LineFrame& frame, std::string_view line) {
  const Fields fields(line);
  const std::string who = fields["sender"].empty() ? fields["session"] : fields["sender"];
  if (!frame.event.starts_with("secret.")) {
    SeeSecrets(story, line, frame.event);
  }
  const std::string at(frame.at.substr(0, 23));
  if (frame.event == "call.allowed") {
    ++story.senders[fields["sender"]];
    ++story.tools[fields["tool"]];
    Add(story, {at, "asked for " + fields["tool"], who, fields["summary"]});
  } else if (frame.event == "call.denied") {
    ++story.senders[fields["sender"]];
    ++story.refusals[fields["rule"]];
    Add(story, {at, "refused " + fields["tool"], who,
                Joined(fields["summary"], " – ", fields["reason"]), true});
  } else if (frame.event == "call.ended") {
    Add(story, {at, fields["tool"] + " ended", who, fields["outcome"]});
  } else if (frame.event.starts_with("egress.")) {
    const std::string target = fields["target"] + fields["path"];
    const std::string rule = fields["rule"];
    if (const std::string used = CredentialUsedBy(frame.event, fields["kind"], rule);
        !used.empty()) {
      ++story.secrets[used].uses;
    }
    if (frame.event == "egress.allowed") {
      ++story.reached[fields["target"]];
      if (rule.starts_with(kHostRule)) {
        ++story.hosts[rule.substr(kHostRule.size())];
      }
    }
    Add(story, {at,
                frame.event == "egress.denied"  ? "connection refused"
                : frame.event == "egress.ended" ? "connection ended"
                                                : "connected",
                fields["session"], Joined(target, " – ", fields["reason"]),
                frame.event == "egress.denied"});
  } else if (frame.event == "process.ended") {
    Add(story, {at, "command ended", who,
                Joined(fields["outcome"], " – ",
                       fmt::format("{} bytes, SHA-256 {}: {}", fields["bytes"],
                                   fields["sha256"].substr(0, 16), fields["head"]))});
  } else if (frame.event.starts_with("secret.")) {
    const std::string state(frame.event.substr(7));
    story.secrets[fields["name"]].state = state;
    Add(story, {at, "credential " + state, "the operator", fields["name"]});
  } else {
    Add(story, {at, std::string(frame.event), who,
                Joined(fields["scope"], " – ",
                       Joined(fields["reason"], " ", Joined(fields["act"], " ", fields["detail"]))),
                frame.event.starts_with("incident.") || frame.event == "session.frozen" ||
                    frame.event == "peer.dropped"});
  }
}

absl::StatusOr<Story> Read(const Incident& incident, const AuditLog& audit) {
  AuditQuery concerns;
  for (const IncidentSandbox& each : incident.sandboxes) {
    concerns.any_session.push_back(each.session);
    concerns.any_sandbox.push_back(each.sandbox_id);
  }
  concerns.FindMasked(audit);
  const AuditQuery of_incident{.incident = incident.id};
  AuditReader reader(audit.directory(), {});
  const std::string opened_at = RecordTime(incident.opened_at);
  Story story;
  while (true) {
    ASSIGN_OR_RETURN(const std::optional<std::string_view> line, reader.Next());
    if (!line) {
      break;
    }
    const std::optional<LineFrame> frame = ParseFrame(*line);
    if (!frame) {
      continue;  // damage, which verifying names
    }
    const bool after = frame->event.starts_with("secret.") && frame->at >= opened_at;
    if ((!concerns.any_session.empty() && concerns.Fits(*line)) || of_incident.Fits(*line) ||
        after) {
      Take(story, *frame, *line);
    }
  }
  for (const IncidentBundle& bundle : incident.bundles) {
    for (const std::string& seen : bundle.seen_secrets) {
      const size_t colon = seen.find(": ");
      if (colon != std::string::npos) {
        story.secrets[seen.substr(0, colon)].seen.insert(seen.substr(colon + 2));
      }
    }
  }
  // A credential that was only revoked is not one that these sessions had to do with.
  std::erase_if(story.secrets,
                [](const auto& each) { return each.second.uses == 0 && each.second.seen.empty(); });
  return story;
}

std::string Millis(std::chrono::microseconds took) {
  return fmt::format("{:.1f} ms", static_cast<double>(took.count()) / 1000);
}

std::string TimeText(std::chrono::system_clock::time_point at) {
  return at == std::chrono::system_clock::time_point() ? "–" : RecordTime(at).substr(0, 19) + "Z";
}

// What the operator may want to change, from what was seen; each with what to type or to write.
std::vector<std::string> Proposals(const Incident& incident, const Story& story) {
  std::vector<std::string> proposals;
  for (const auto& [name, secret] : story.secrets) {
    if (secret.state == "revoked") {
      proposals.push_back(fmt::format(
          "The secret '{}' is revoked. Make a new one where it comes from, put it in the "
          "old one's place, then: creel secrets restore {}",
          name, name));
    } else {
      proposals.push_back(fmt::format(
          "The secret '{}' was {}. Stop its use now: creel secrets revoke {} (one that Creel does "
          "not add itself is changed where it is used). Then make a new one where it comes from",
          name, secret.uses > 0 ? "used" : "seen", name));
    }
  }
  for (const auto& [sender, calls] : story.senders) {
    if (!sender.empty()) {
      proposals.push_back(fmt::format(
          "{} made {} calls. To keep this sender out: creel pairing deny {}, and in the "
          "configuration trust: {{blocked: [\"{}\"]}}",
          sender, calls, sender, sender));
    }
  }
  if (const auto shell = story.tools.find("exec"); shell != story.tools.end()) {
    std::set<std::string> sessions;
    for (const IncidentSandbox& each : incident.sandboxes) {
      sessions.insert(each.session);
    }
    proposals.push_back(fmt::format(
        "Commands ran {} times. To be asked before each: rules: {{ask-after-incident-{}: {{tools: "
        "[group:runtime], {}verdict: ask}}}}",
        shell->second, incident.id,
        sessions.size() == 1 ? fmt::format("sessions: [\"{}\"], ", *sessions.begin()) : ""));
  }
  for (const auto& [host, count] : story.hosts) {
    proposals.push_back(fmt::format(
        "'{}' of egress.hosts let {} connections through. Take it out, or narrow whom it is for, "
        "if that was not meant to be",
        host, count));
  }
  for (const auto& [rule, count] : story.refusals) {
    proposals.push_back(fmt::format(
        "{} refused {} calls: it did its work, and what asked for them is in the timeline", rule,
        count));
  }
  if (incident.state == IncidentState::kOpen) {
    proposals.emplace_back(
        "Until you know more: creel read-only on, which leaves reading and answering only");
  }
  proposals.emplace_back(
      "Check a changed configuration with creel policy check FILE before it is read again");
  return proposals;
}

// Writes either form: headings, lines, lists and tables.
class Page {
 public:
  explicit Page(ReportFormat format) : html_(format == ReportFormat::kHtml) {}

  std::string Text(std::string_view text) const {
    return html_ ? EscapeHtml(text) : EscapeMarkdown(text);
  }
  void Begin(const std::string& title) {
    if (html_) {
      out_ += fmt::format(
          "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
          "'unsafe-inline'\"><title>{}</title>\n<style>body{{font:15px/1.5 "
          "sans-serif;margin:2em auto;max-width:75em;padding:0 1em}}"
          "table{{border-collapse:collapse;width:100%}}td,th{{border-bottom:1px solid "
          "#ccc;padding:.25em "
          ".6em;text-align:left;vertical-align:top;overflow-wrap:anywhere}}"
          "tr.bad{{background:#fdecea}}td:first-child{{white-space:nowrap}}"
          "@media(prefers-color-scheme:dark){{body{{background:#111;color:#ddd}}"
          "tr.bad{{background:#4a1f1c}}}}</style></head><body>\n<h1>{}</h1>\n",
          EscapeHtml(title), EscapeHtml(title));
    } else {
      out_ += fmt::format("# {}\n", EscapeMarkdown(title));
    }
  }
  void Heading(const char* text) {
    out_ += html_ ? fmt::format("<h2>{}</h2>\n", text) : fmt::format("\n## {}\n\n", text);
  }
  void Paragraph(std::string_view text) {
    out_ += html_ ? fmt::format("<p>{}</p>\n", Text(text)) : fmt::format("{}\n\n", Text(text));
  }
  void Table(const std::vector<const char*>& heading) {
    columns_ = heading.size();
    if (html_) {
      out_ += "<table><tr>";
      for (const char* each : heading) {
        out_ += fmt::format("<th>{}</th>", each);
      }
      out_ += "</tr>\n";
    } else {
      for (const char* each : heading) {
        out_ += fmt::format("| {} ", each);
      }
      out_ += "|\n";
      for (size_t i = 0; i < columns_; ++i) {
        out_ += "| --- ";
      }
      out_ += "|\n";
    }
  }
  void TableRow(const std::vector<std::string>& cells, bool bad = false) {
    out_ += html_ ? (bad ? "<tr class=\"bad\">" : "<tr>") : "";
    for (const std::string& cell : cells) {
      out_ += fmt::format(fmt::runtime(html_ ? "<td>{}</td>" : "| {} "), Text(cell));
    }
    out_ += html_ ? "</tr>\n" : "|\n";
  }
  void EndTable() { out_ += html_ ? "</table>\n" : "\n"; }
  void List(const std::vector<std::string>& items) {
    out_ += html_ ? "<ul>\n" : "";
    for (const std::string& item : items) {
      out_ += html_ ? fmt::format("<li>{}</li>\n", Text(item)) : fmt::format("- {}\n", Text(item));
    }
    out_ += html_ ? "</ul>\n" : "\n";
  }
  std::string End() {
    out_ += html_ ? "</body></html>\n" : "";
    return std::move(out_);
  }

 private:
  const bool html_;
  size_t columns_ = 0;
  std::string out_;
};

}  // namespace

std::string EscapeHtml(std::string_view text) {
  std::string out;
  for (const char c : Printable(text, 1u << 20)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

// A backslash takes the meaning of any of ASCII's punctuation, and stands only where there is one,
// so that the text can be read as it is, too; `<`, `>` and `&` are written as HTML has them, for
// readers that pass HTML through. Printable text has one line, so what means something at the
// beginning of a line does so here at the beginning alone.
std::string EscapeMarkdown(std::string_view text) {
  constexpr std::string_view kAnywhere = "\\`*_[]()#|~!@$^{}";
  constexpr std::string_view kAtTheBeginning = "-+=";
  std::string out;
  const std::string printable = Printable(text, 1u << 20);
  const size_t number = printable.find_first_not_of("0123456789");
  for (size_t i = 0; i < printable.size(); ++i) {
    const char c = printable[i];
    // Of a numbered list; `www.` and `http://` are links without any mark.
    const bool dot = c == '.' && (i == number || (i > 0 && std::tolower(static_cast<unsigned char>(
                                                               printable[i - 1])) == 'w'));
    const bool colon = c == ':' && i + 1 < printable.size() && printable[i + 1] == '/';
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else {
      if (kAnywhere.find(c) != std::string_view::npos || dot || colon ||
          (i == 0 && kAtTheBeginning.find(c) != std::string_view::npos)) {
        out += '\\';
      }
      out += c;
    }
  }
  return out;
}

absl::StatusOr<std::string> WriteReport(const Incident& incident, const AuditLog& audit,
                                        ReportFormat format) {
  ASSIGN_OR_RETURN(const Story story, Read(incident, audit));
  Page page(format);
  page.Begin(fmt::format("Incident {}: {}", incident.id, incident.reason));
  page.Paragraph(fmt::format(
      "It is about {}, was opened {}, and is {}{}. No new call got through after {}; everything "
      "stood still after {}.",
      incident.scope == HoldRule::Scope::kAll ? "every session" : ScopeText(incident),
      TimeText(incident.opened_at),
      incident.state == IncidentState::kOpen     ? "still open"
      : incident.state == IncidentState::kThawed ? "over (everything went on)"
                                                 : "over (everything was taken down)",
      incident.state == IncidentState::kOpen ? "" : " since " + TimeText(incident.ended_at),
      Millis(incident.gate_took), Millis(incident.freeze_took)));
  if (!incident.gateway_stop.empty()) {
    page.Paragraph("The gateway's stop was run: " + incident.gateway_stop);
  }

  page.Heading("What was frozen");
  page.Table({"session", "opened by", "sandbox", "how"});
  for (const IncidentSandbox& each : incident.sandboxes) {
    const std::string how = each.method == "killed"   ? "could not be frozen, and was killed"
                            : each.method == "before" ? "was frozen before"
                            : each.method == "lost"   ? "was lost before"
                            : each.method.empty()     ? "does not stand still: " + each.error
                                                      : "by " + each.method;
    page.TableRow({each.session, each.sender.empty() ? "–" : each.sender, each.sandbox_id, how},
                  each.method.empty() || each.method == "killed");
  }
  page.EndTable();

  page.Heading("Who asked");
  page.Table({"sender", "calls"});
  for (const auto& [sender, calls] : story.senders) {
    page.TableRow({sender.empty() ? "not named by the gateway" : sender, std::to_string(calls)});
  }
  page.EndTable();

  page.Heading("What ran, and what was refused");
  page.Table({"tool or rule", "times"});
  for (const auto& [tool, times] : story.tools) {
    page.TableRow({tool, std::to_string(times)});
  }
  for (const auto& [rule, times] : story.refusals) {
    page.TableRow({"refused by " + rule, std::to_string(times)}, true);
  }
  page.EndTable();

  page.Heading("What got out");
  if (story.reached.empty()) {
    page.Paragraph("Nothing: no connection of these sandboxes was let through.");
  } else {
    page.Table({"target", "connections"});
    for (const auto& [target, times] : story.reached) {
      page.TableRow({target, std::to_string(times)});
    }
    page.EndTable();
  }

  page.Heading("Credentials");
  if (story.secrets.empty()) {
    page.Paragraph(
        "None was added to a request of these sandboxes, and the value of none was seen in what "
        "was recorded or captured.");
  } else {
    page.Table({"secret", "added to requests", "value seen", "since then"});
    for (const auto& [name, secret] : story.secrets) {
      std::string seen;
      for (const std::string& where : secret.seen) {
        seen += (seen.empty() ? "" : "; ") + where;
      }
      page.TableRow({name, std::to_string(secret.uses), seen.empty() ? "no" : seen,
                     secret.state.empty() ? "still in use" : secret.state},
                    secret.state != "revoked");
    }
    page.EndTable();
  }

  page.Heading("What to change");
  page.List(Proposals(incident, story));

  page.Heading("Evidence");
  if (incident.bundles.empty()) {
    page.Paragraph("There is none yet: creel incident capture " + incident.id);
  }
  for (const IncidentBundle& bundle : incident.bundles) {
    page.Paragraph(fmt::format("{} ({} bytes, {} members), SHA-256 {}", bundle.path, bundle.bytes,
                               bundle.members, bundle.sha256));
    if (!bundle.left_out.empty()) {
      page.Paragraph("Not in it:");
      page.List(bundle.left_out);
    }
  }

  page.Heading("Timeline");
  if (story.rows_left_out > 0) {
    page.Paragraph(fmt::format("{} older entries are left out here; creel audit show has them.",
                               story.rows_left_out));
  }
  page.Table({"time (UTC)", "what", "who", "details"});
  for (const Row& row : story.rows) {
    page.TableRow({row.at, row.what, row.who.empty() ? "–" : row.who, row.text}, row.alarming);
  }
  page.EndTable();
  return page.End();
}

}  // namespace creel
