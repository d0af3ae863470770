#pragma once

#include <cstdint>
#include <string>

#include "creel/shim/v1/shim.pb.h"
#include "supervisor/base/status.h"
#include "supervisor/config/config.h"
#include "supervisor/engine/container_config.h"
#include "supervisor/engine/engine.h"
#include "supervisor/sandbox/host_abilities.h"
#include "supervisor/sandbox/sandbox.h"
#include "supervisor/sandbox/workspace.h"

namespace creel {

// Labels by which containers are known.
inline constexpr char kInstallLabel[] = "creel.install";
inline constexpr char kSandboxLabel[] = "creel.sandbox";
inline constexpr char kSpecLabel[] = "creel.spec";

// Processes that a sandbox has on top of what the tools may have: the shim's threads, its nursery,
// and a reaper beside each command. They count in the container's one limit, as it is the kernel's.
inline constexpr uint32_t kShimProcesses = 64;

// Judges what a sandbox is asked to be. kInvalidArgument, kFailedPrecondition.
absl::Status CheckIdentity(const SandboxIdentity& identity, const Config& config,
                           const HostAbilities& abilities);

// The container of a sandbox: all of design's "What a container is made of" as one plain struct,
// the `creel.spec` label with the hash of the rest included.
ContainerConfig MakeContainerConfig(const Sandbox::Host& host, const SandboxIdentity& identity,
                                    const ImageInfo& image, const PreparedMounts& mounts);

// SHA-256, hex, over everything that makes the container but its name and labels. The sandbox's id
// does not count: two sandboxes that were asked to be the same have the same hash.
std::string SpecHash(const ContainerConfig& config, const std::string& id);

// What the shim is told together with its key.
shim::v1::SandboxSetup MakeSetup(const SandboxIdentity& identity, const Config& config);

// Creel's allowlist of system calls, as the engine takes it.
const std::string& SeccompProfile();

}  // namespace creel
