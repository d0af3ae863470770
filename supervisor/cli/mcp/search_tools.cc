// ls, find and grep: what there is in the sandbox.
#include <fmt/format.h>

#include "supervisor/base/escape.h"
#include "supervisor/cli/mcp/arguments.h"
#include "supervisor/cli/mcp/tools.h"
#include "supervisor/cli/output.h"

namespace creel::cli::mcp {
namespace {

using shim::v1::FileInfo;

constexpr uint64_t kDefaultEntries = 1000;
constexpr uint64_t kDefaultMatches = 200;

const char* TypeName(shim::v1::FileType type) {
  switch (type) {
    case shim::v1::FILE_TYPE_REGULAR:
      return "file";
    case shim::v1::FILE_TYPE_DIRECTORY:
      return "directory";
    case shim::v1::FILE_TYPE_SYMLINK:
      return "link";
    default:
      return "other";
  }
}

// Entries as they come, in words and for programs.
class Listing {
 public:
  void Add(const shim::v1::FileBatch& batch) {
    truncated_ = truncated_ || batch.truncated();
    for (const FileInfo& entry : batch.entries()) {
      entries_.push_back(
          {{"path", entry.path()}, {"type", TypeName(entry.type())}, {"size", entry.size()}});
      text_ += entry.path();
      if (entry.type() == shim::v1::FILE_TYPE_DIRECTORY) {
        text_ += "/";
      } else if (entry.type() == shim::v1::FILE_TYPE_SYMLINK) {
        text_ += " -> " + entry.link_target();
      } else if (entry.type() == shim::v1::FILE_TYPE_REGULAR) {
        text_ += fmt::format("  ({})", Size(entry.size()));
      }
      text_ += "\n";
    }
  }
  ToolResult Finish(const char* nothing, const char* how_on) {
    if (text_.empty()) {
      text_ = nothing;
    }
    if (truncated_) {
      text_ += how_on;
    }
    return ToolResult::OfText(std::move(text_),
                              {{"entries", std::move(entries_)}, {"truncated", truncated_}});
  }

 private:
  Json entries_ = Json::array();
  std::string text_;
  bool truncated_ = false;
};

absl::StatusOr<ToolResult> List(ToolCall& call) {
  const Arguments arguments(call.arguments);
  gateway::v1::ListDirectoryRequest request;
  call.Fill(*request.mutable_context());
  request.mutable_args()->set_path(arguments.Text("path", "."));
  request.mutable_args()->set_recursive(arguments.Flag("recursive"));
  request.mutable_args()->set_max_entries(arguments.Number("max_entries", kDefaultEntries));
  ASSIGN_OR_RETURN(const auto stub, call.door.Stub());
  CancellableContext context(call.cancellation);
  const auto reader = stub->ListDirectory(context.get(), request);
  Listing listing;
  gateway::v1::ListDirectoryResponse response;
  while (reader->Read(&response)) {
    listing.Add(response.batch());
  }
  RETURN_IF_ERROR(FromGrpc(reader->Finish()));
  return listing.Finish("nothing is in it",
                        "[there is more; list a folder below, or give a larger max_entries]");
}

absl::StatusOr<ToolResult> Find(ToolCall& call) {
  const Arguments arguments(call.arguments);
  gateway::v1::GlobRequest request;
  call.Fill(*request.mutable_context());
  request.mutable_args()->set_pattern(arguments.Text("pattern"));
  request.mutable_args()->set_path(arguments.Text("path"));
  request.mutable_args()->set_hidden(arguments.Flag("hidden"));
  request.mutable_args()->set_max_entries(arguments.Number("max_entries", kDefaultEntries));
  ASSIGN_OR_RETURN(const auto stub, call.door.Stub());
  CancellableContext context(call.cancellation);
  const auto reader = stub->Glob(context.get(), request);
  Listing listing;
  gateway::v1::GlobResponse response;
  while (reader->Read(&response)) {
    listing.Add(response.batch());
  }
  RETURN_IF_ERROR(FromGrpc(reader->Finish()));
  return listing.Finish("nothing matches",
                        "[there is more; narrow the pattern, or give a larger max_entries]");
}

absl::StatusOr<ToolResult> Grep(ToolCall& call) {
  const Arguments arguments(call.arguments);
  gateway::v1::GrepRequest request;
  call.Fill(*request.mutable_context());
  shim::v1::GrepArgs& args = *request.mutable_args();
  args.set_pattern(arguments.Text("pattern"));
  args.set_path(arguments.Text("path"));
  args.set_glob(arguments.Text("glob"));
  args.set_ignore_case(arguments.Flag("ignore_case"));
  args.set_literal(arguments.Flag("literal"));
  args.set_context(static_cast<uint32_t>(arguments.Number("context", 0)));
  args.set_max_matches(arguments.Number("max_matches", kDefaultMatches));
  ASSIGN_OR_RETURN(const auto stub, call.door.Stub());
  CancellableContext context(call.cancellation);
  const auto reader = stub->Grep(context.get(), request);
  std::string text;
  Json matches = Json::array();
  bool truncated = false;
  uint64_t skipped = 0;
  gateway::v1::GrepResponse response;
  while (reader->Read(&response)) {
    truncated = truncated || response.batch().truncated();
    skipped += response.batch().files_skipped();
    for (const shim::v1::GrepMatch& match : response.batch().matches()) {
      text += fmt::format("{}{}{}{}{}{}\n", match.path(), match.is_context() ? "-" : ":",
                          match.line_number(), match.is_context() ? "-" : ":", match.line(),
                          match.line_truncated() ? "…" : "");
      if (!match.is_context()) {
        matches.push_back(
            {{"path", match.path()}, {"line_number", match.line_number()}, {"line", match.line()}});
      }
    }
  }
  RETURN_IF_ERROR(FromGrpc(reader->Finish()));
  if (text.empty()) {
    text = "nothing matches";
  }
  if (truncated) {
    text += "[there is more; narrow the search, or give a larger max_matches]";
  }
  return ToolResult::OfText(
      std::move(text),
      {{"matches", std::move(matches)}, {"truncated", truncated}, {"files_skipped", skipped}});
}

}  // namespace

std::vector<Tool> SearchTools() {
  const Json read_only = {{"readOnlyHint", true}, {"openWorldHint", false}};
  return {
      {.name = "ls",
       .title = "List a folder",
       .description = "Lists a folder of the sandbox.",
       .schema = Schema(R"({"properties": {
             "path": {"type": "string", "minLength": 1, "description": "Default: the workspace"},
             "recursive": {"type": "boolean"},
             "max_entries": {"type": "integer", "minimum": 1, "maximum": 10000,
                             "description": "Default: 1000"}}})"),
       .annotations = read_only,
       .run = List},
      {.name = "find",
       .title = "Find files by name",
       .description = "Finds paths by pattern: *, ? and [...] within a name, ** across folders.",
       .schema = Schema(R"({"required": ["pattern"], "properties": {
             "pattern": {"type": "string", "minLength": 1, "description": "Such as **/*.txt"},
             "path": {"type": "string", "description": "Where to look; default: the workspace"},
             "hidden": {"type": "boolean", "description": "Names that start with a dot as well"},
             "max_entries": {"type": "integer", "minimum": 1, "maximum": 10000,
                             "description": "Default: 1000"}}})"),
       .annotations = read_only,
       .run = Find},
      {.name = "grep",
       .title = "Search in files",
       .description = "Finds lines by regular expression (RE2).",
       .schema = Schema(R"({"required": ["pattern"], "properties": {
             "pattern": {"type": "string", "minLength": 1},
             "path": {"type": "string", "description": "A file or folder; default: the workspace"},
             "glob": {"type": "string", "description": "Only files whose path matches, such as *.py"},
             "ignore_case": {"type": "boolean"},
             "literal": {"type": "boolean", "description": "The pattern is plain text"},
             "context": {"type": "integer", "minimum": 0, "maximum": 20,
                         "description": "Lines around each match"},
             "max_matches": {"type": "integer", "minimum": 1, "maximum": 10000,
                             "description": "Default: 200"}}})"),
       .annotations = read_only,
       .run = Grep}};
}

}  // namespace creel::cli::mcp
