#include "supervisor/daemon/policy_findings.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "supervisor/base/escape.h"
#include "supervisor/base/unique_fd.h"
#include "supervisor/policy/levels.h"
#include "supervisor/policy/sender.h"
#include "supervisor/policy/tools.h"

namespace creel {
namespace {

class Findings {
 public:
  explicit Findings(const Config& config) : config_(config), policy_(config.policy) {}

  std::vector<Finding> All() {
    People();
    for (const auto& [name, channel] : policy_.channels) {
      Channel(Printable(name, 80), channel);
    }
    Tools();
    Sessions();
    Egress();
    Roots();
    Files();
    if (found_.empty()) {
      found_.push_back({.id = "policy",
                        .severity = Severity::kOk,
                        .title = "the policy lets nobody in unasked, and its files are closed"});
    }
    return std::move(found_);
  }

 private:
  Finding& Add(std::string id, Severity severity, std::string title, std::string why,
               std::string fix) {
    found_.push_back({.id = std::move(id),
                      .severity = severity,
                      .title = std::move(title),
                      .why = std::move(why),
                      .fix = std::move(fix)});
    return found_.back();
  }

  static bool Has(const std::vector<std::string>& list, const char* entry) {
    return std::find(list.begin(), list.end(), entry) != list.end();
  }

  void People() {
    const std::vector<std::string>& owners = policy_.levels.at(kOwner).members;
    if (owners.empty()) {
      Add("policy.no-owner", Severity::kWarning, "nobody is the owner",
          "levels.owner.members is empty: messages of yours count as a friend's or a stranger's",
          "add your own id: levels: {owner: {members: [\"whatsapp:+…\"]}}");
    }
    if (Has(owners, "*")) {
      Add("policy.owner-star", Severity::kError, "levels.owner.members holds \"*\"",
          "it names nobody, and was meant to name everybody", "name the owners one by one");
    }
    for (const auto& [name, channel] : policy_.channels) {
      if (channel.own_id.empty()) {
        continue;
      }
      const SenderId own = ParseSenderOf(name, channel.own_id);
      for (const std::string& owner : owners) {
        if (ParseSender(owner) == own) {
          Add("policy.own-number", Severity::kWarning,
              fmt::format("the gateway uses the owner's own id on {}", Printable(name, 80)),
              "what the model writes looks as if the owner wrote it, and whoever writes to the "
              "owner "
              "writes to the model",
              "give the gateway a number of its own");
        }
      }
    }
  }

  void Channel(const std::string& name, const ChannelConfig& channel) {
    const bool star = Has(channel.allow_from, "*");
    if (channel.dm_policy == DmPolicy::kOpen) {
      Add("policy.dm-open", Severity::kError, fmt::format("{} is open to everybody", name),
          fmt::format("channels.{}.dm_policy is open{}", name,
                      star ? " and allow_from holds \"*\"" : ""),
          fmt::format("set channels.{}.dm_policy to pairing, and take \"*\" out of allow_from",
                      name));
    } else if (star) {
      Add("policy.allow-star", Severity::kWarning,
          fmt::format("channels.{}.allow_from holds \"*\"", name),
          "it has no effect while dm_policy is not open, and opens the channel the day it is",
          "take it out, and name the senders");
    }
    if (channel.group_policy == GroupPolicy::kOpen) {
      Add("policy.group-open", Severity::kWarning,
          fmt::format("anybody in {} of {} may speak to the model",
                      channel.groups.empty() ? "any group" : "the listed groups", name),
          fmt::format("channels.{}.group_policy is open", name),
          fmt::format("set channels.{}.group_policy to allowlist, and list groups and senders",
                      name));
    }
    if (Has(channel.group_allow_from, "*")) {
      Add("policy.group-star", Severity::kWarning,
          fmt::format("everybody may speak to the model in the groups of {}", name),
          fmt::format("channels.{}.group_allow_from holds \"*\"", name), "name the senders");
    }
    for (const auto& [id, group] : channel.groups) {
      if (!group.require_mention) {
        Add("policy.no-mention", Severity::kWarning,
            fmt::format("every message of group {} of {} reaches the model", Printable(id, 80),
                        name),
            "require_mention is false: all that is said there can steer the model, and costs",
            fmt::format("set channels.{}.groups.\"{}\".require_mention to true", name,
                        Printable(id, 80)));
      }
    }
  }

  void Tools() {
    const ToolFacts shell = DescribeTool("exec");
    const ToolFacts write = DescribeTool("write");
    const LevelConfig& stranger = policy_.levels.at(kStranger);
    const ToolSet allowed(stranger.allow);
    if (allowed.Has(shell, {}) || allowed.Has(write, {})) {
      Add("policy.stranger-tools", Severity::kError, "strangers may run or write things",
          "levels.stranger.allow holds a shell or writing tools",
          "leave levels.stranger.allow empty, or to tools that only read");
    }
    const Levels levels(policy_.levels);
    bool host = true;
    for (Level level = levels.highest(); level >= Levels::lowest(); --level) {
      host = host && policy_.levels.at(levels.Name(level)).host;
      if (host && level < levels.highest()) {
        Add("policy.host-level", Severity::kError,
            fmt::format("level {} may run tools on the host", Printable(levels.Name(level), 80)),
            "what they ask for runs with the gateway's own rights",
            fmt::format("set levels.{}.host to false", Printable(levels.Name(level), 80)));
      }
    }
    if (levels.Of(policy_.unnamed) > levels.Of(kFriend)) {
      Add("policy.unnamed", Severity::kError,
          "calls that name nobody count for more than a friend's",
          fmt::format("trust.unnamed is {}", Printable(policy_.unnamed, 80)),
          "set trust.unnamed to friend or stranger");
    }
  }

  void Sessions() {
    if (config_.sandbox.mode == SandboxMode::kOff) {
      Add("policy.sandbox-off", Severity::kError, "no session has a sandbox", "sandbox.mode is off",
          "set sandbox.mode to non-main or all");
    }
    const bool own = config_.provenance.dm_scope == "per-channel-peer" ||
                     config_.provenance.dm_scope == "per-peer" ||
                     config_.provenance.dm_scope == "per-account-channel-peer";
    if (!config_.gateway_import.empty() && !own) {
      Add("policy.dm-scope", Severity::kError,
          "direct messages of others land in the owner's main session",
          fmt::format(
              "the gateway's session.dmScope is {}; Creel refuses others the host there, and "
              "the conversation is shared all the same",
              config_.provenance.dm_scope.empty()
                  ? "not set, which means main"
                  : fmt::format("'{}'", config_.provenance.dm_scope)),
          "set session: {dmScope: \"per-channel-peer\"} in the gateway's configuration");
    }
    const auto& protect = config_.sandbox.protect;
    if (config_.sandbox.workspace_access == WorkspaceAccess::kReadWrite &&
        !Has(protect, ".git/hooks") && !Has(protect, ".git")) {
      Add("policy.git-hooks", Severity::kError,
          "a sandbox can write .git/hooks of a folder that the host uses",
          "sandbox.workspace_access is rw and sandbox.protect does not hold .git/hooks; the next "
          "git "
          "command on the host runs what a sandbox left there",
          "add .git/hooks and .git/config to sandbox.protect");
    }
  }

  // Who but us and root could change or read a file.
  void File(const std::string& file, bool secret) {
    struct stat info {};
    if (file.empty() || ::stat(file.c_str(), &info) != 0) {
      return;
    }
    const bool gateway = std::find(config_.gateway_uids.begin(), config_.gateway_uids.end(),
                                   info.st_uid) != config_.gateway_uids.end();
    const bool foreign = info.st_uid != 0 && info.st_uid != ::geteuid();
    if ((info.st_mode & (S_IWGRP | S_IWOTH)) != 0 || gateway || foreign) {
      Finding& found = Add(
          "files.writable", file == config_.gateway_import ? Severity::kWarning : Severity::kError,
          fmt::format("others than root can change {}", Printable(file, 300)),
          fmt::format(
              "it belongs to uid {} and has mode {:04o}; whoever can write it sets the policy",
              info.st_uid, info.st_mode & 07777),
          file == config_.gateway_import
              ? "write senders and groups into creel.yaml instead of importing them"
              : fmt::format("chown root {0} && chmod go-w {0}", Printable(file, 300)));
      // Whose it should be only the operator knows.
      if (!gateway && !foreign) {
        found.put_right = [file] { return TakeFromMode(file, S_IWGRP | S_IWOTH); };
      }
    }
    if ((info.st_mode & S_IROTH) != 0) {
      Add("files.readable", secret ? Severity::kError : Severity::kWarning,
          fmt::format("everybody on this host can read {}", Printable(file, 300)),
          fmt::format("it {} and has mode {:04o}",
                      secret ? "holds secrets" : "tells who may do what", info.st_mode & 07777),
          fmt::format("chmod o-rwx {}", Printable(file, 300)))
          .put_right = [file] { return TakeFromMode(file, S_IRWXO); };
    }
  }

  // Of the file itself: no link is followed, and nothing but a file is touched.
  static absl::Status TakeFromMode(const std::string& file, mode_t bits) {
    const UniqueFd fd(::open(file.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    struct stat info {};
    if (!fd.valid() || ::fstat(fd.get(), &info) != 0) {
      return ErrnoStatus(errno, fmt::format("open '{}'", file));
    }
    if (!S_ISREG(info.st_mode)) {
      return absl::FailedPreconditionError(fmt::format("'{}' is no file", file));
    }
    return ::fchmod(fd.get(), info.st_mode & 07777 & ~bits) == 0
               ? absl::OkStatus()
               : ErrnoStatus(errno, fmt::format("change the mode of '{}'", file));
  }

  // Whether a rule is for strangers too.
  static bool ForAll(const EgressWho& who) {
    return Has(who.levels, kStranger) || (who.levels.empty() && Has(who.sessions, "*"));
  }

  void Egress() {
    for (const EgressService& service : config_.egress.services) {
      const std::string name = Printable(service.name, 80);
      if (service.url.starts_with("unix:") &&
          (service.url.find("docker.sock") != std::string::npos ||
           service.url.find("containerd.sock") != std::string::npos ||
           service.url.find("podman.sock") != std::string::npos)) {
        Add("egress.engine-socket", Severity::kError,
            fmt::format("service {} leads to the engine's socket", name),
            "whoever may speak to the engine is root on this host",
            fmt::format("take the service {} out of egress.services", name));
      }
      const bool any_path =
          std::any_of(service.allow.begin(), service.allow.end(), [](const EgressRoute& route) {
            return (route.path == "/**" || route.path == "**") &&
                   std::any_of(route.methods.begin(), route.methods.end(),
                               [](const std::string& method) {
                                 return method != "GET" && method != "HEAD";
                               });
          });
      if (any_path) {
        Add("egress.service-star", Severity::kWarning,
            fmt::format("service {} takes any change of anything", name),
            "a route with the path /** allows more methods than GET and HEAD, so that whoever "
            "talks the model into it may do all that the credential can",
            fmt::format("name the paths that are needed in egress.services ({})", name));
      }
      if (ForAll(service.who)) {
        Add("egress.strangers", Severity::kError,
            fmt::format("strangers may use the service {}", name),
            "it is for every level, and its credential is added for whoever asks",
            fmt::format("write levels: [owner, friend] in the service {}", name));
      }
    }
    for (const EgressHost& host : config_.egress.hosts) {
      const std::string name = Printable(host.name, 120);
      // `*.com` is refused by the configuration itself.
      if (host.name.starts_with("*.")) {
        Add("egress.host-star", Severity::kWarning,
            fmt::format("sandboxes may reach every host {}", name),
            "what a sandbox knows can be told in a name alone to whoever answers for that zone, and "
            "to anybody who may have a host there",
            "name the hosts one by one in egress.hosts");
      }
      if (ForAll(host.who)) {
        Add("egress.strangers", Severity::kWarning,
            fmt::format("strangers' sandboxes may reach {}", name), "it is for every level",
            fmt::format("write levels: [owner, friend] in the rule of {}", name));
      }
    }
  }

  // Whether something below one of the folders that a gateway may name is the engine's.
  void Roots() {
    std::string socket = config_.engine.host;
    if (socket.empty()) {
      socket = "unix:///var/run/docker.sock";
    }
    if (!socket.starts_with("unix://")) {
      return;
    }
    socket.erase(0, 7);
    for (const std::string& root : config_.sandbox.workspace_roots) {
      if (socket.starts_with(root + "/") || (root == "/run" && socket.starts_with("/var/run/"))) {
        Add("sandbox.engine-socket", Severity::kError,
            fmt::format("the engine's socket lies below the workspace root {}",
                        Printable(root, 200)),
            "a folder that a gateway may name as a workspace holds it; mounts of it are refused "
            "one by one, and it is not to depend on that",
            "name the folders that hold workspaces in sandbox.workspace_roots, and no more");
      }
    }
  }

  void Files() {
    File(config_.file, /*secret=*/false);
    File(config_.gateway_import, /*secret=*/!config_.provenance.secrets.empty());
    for (const std::string& file : policy_.secret_files) {
      File(file, /*secret=*/true);
    }
    for (const EgressService& service : config_.egress.services) {
      File(service.credential.file, /*secret=*/true);
    }
  }

  const Config& config_;
  const PolicyConfig& policy_;
  std::vector<Finding> found_;
};

}  // namespace

std::vector<Finding> PolicyFindings(const Config& config) { return Findings(config).All(); }

}  // namespace creel
