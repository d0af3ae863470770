// creel-verify: checks a record or a bundle of evidence on any machine, with a public key alone.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <optional>
#include <string>

#include "supervisor/audit/audit_log.h"
#include "supervisor/audit/signing_key.h"
#include "supervisor/audit/verify.h"
#include "supervisor/base/escape.h"
#include "supervisor/cli/manual_text.h"
#include "supervisor/cli/reference.h"
#include "supervisor/evidence/bundle_verify.h"

namespace creel {
namespace {

constexpr int kFailed = 1;
constexpr int kMisuse = 2;

int Fail(const absl::Status& status) {
  fmt::print(stderr, "creel-verify: {}\n", Printable(std::string(status.message()), 2048));
  return kFailed;
}

int Record(const std::string& path, const std::string& key, const std::string& head) {
  VerifyOptions options;
  if (!key.empty()) {
    const absl::StatusOr<std::string> raw = ReadPublicKey(key);
    if (!raw.ok()) {
      return Fail(raw.status());
    }
    options.public_keys.push_back(*raw);
  }
  if (!head.empty()) {
    const size_t colon = head.find(':');
    if (colon == std::string::npos || colon == 0) {
      fmt::print(stderr, "creel-verify: --head wants NUMBER:HASH\n");
      return kMisuse;
    }
    options.head =
        AuditHead{.seq = std::strtoull(head.c_str(), nullptr, 10), .hash = head.substr(colon + 1)};
  }
  const absl::StatusOr<VerifyReport> report = VerifyRecord(path, options);
  if (!report.ok()) {
    return Fail(report.status());
  }
  for (const std::string& note : report->notes) {
    fmt::print("note: {}\n", note);
  }
  if (!report->sound) {
    fmt::print("BAD: {} ({}, line {})\n", report->problem, report->file, report->line);
    return kFailed;
  }
  fmt::print("sound: records {} to {}, {} checkpoints, the last at {}; newest hash {}\n",
             report->first_seq, report->last_seq, report->checkpoints, report->last_checkpoint,
             report->last_hash);
  return 0;
}

int Bundle(const std::string& path, const std::string& key) {
  const absl::StatusOr<std::string> raw = ReadPublicKey(key);
  if (!raw.ok()) {
    return Fail(raw.status());
  }
  const absl::StatusOr<BundleReport> report = VerifyBundle(path, *raw);
  if (!report.ok()) {
    return Fail(report.status());
  }
  if (!report->sound) {
    fmt::print("BAD: {}\n", report->problem);
    return kFailed;
  }
  fmt::print("sound: incident {}, made {}, {} members, {} bytes, key {}\n", report->incident,
             report->made_at, report->members, report->bytes, report->key_id);
  for (const std::string& what : report->left_out) {
    fmt::print("left out: {}\n", what);
  }
  return 0;
}

int Main(int argc, char** argv) {
  CLI::App app{"Checks records and bundles of evidence that Creel made"};
  app.require_subcommand(1);
  std::string path;
  std::string key;
  std::string head;
  int code = 0;
  CLI::App* const record = app.add_subcommand("record", "Check a record: its folder, or a file");
  record->add_option("PATH", path, "The folder, or a file that was exported")->required();
  record->add_option("--key", key, "The public key (PEM); without it no signature is checked");
  record->add_option("--head", head, "NUMBER:HASH of the newest record, as it is known elsewhere");
  record->callback([&] { code = Record(path, key, head); });
  CLI::App* const bundle = app.add_subcommand("bundle", "Check a bundle of evidence");
  bundle->add_option("FILE", path, "The bundle")->required();
  bundle->add_option("--key", key, "The public key (PEM)")->required();
  bundle->callback([&] { code = Bundle(path, key); });
  app.set_version_flag("--version", std::string("creel-verify ") + CREEL_VERSION);
  if (const auto printed =
          cli::PrintReference(app, {.section = 1, .more = cli::kVerifyManual}, argc, argv)) {
    return *printed;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    app.exit(e);
    return kMisuse;
  }
  return code;
}

}  // namespace
}  // namespace creel

int main(int argc, char** argv) {
  try {
    return creel::Main(argc, argv);
  } catch (const std::exception& e) {
    fmt::print(stderr, "creel-verify: {}\n", e.what());
    return 1;
  }
}
