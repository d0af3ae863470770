#include "supervisor/sandbox/cgroups.h"

#include <doctest/doctest.h>
#include <stdlib.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>

#include "supervisor/sandbox/host_abilities.h"

namespace creel {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

// A made-up /sys/fs/cgroup and /proc, with process 7 in them.
class Tree {
 public:
  Tree() {
    char name[] = "/tmp/creel-cgroups-XXXXXX";
    REQUIRE(::mkdtemp(name) != nullptr);
    path = name;
    root = path + "/cgroup";
    proc = path + "/proc";
  }
  ~Tree() { fs::remove_all(path); }

  void Put(const std::string& file, const std::string& text) const {
    fs::create_directories(fs::path(path + "/" + file).parent_path());
    std::ofstream(path + "/" + file) << text;
  }
  [[nodiscard]] std::string Get(const std::string& file) const {
    std::ifstream in(path + "/" + file);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
  }
  void MakeV1() const {
    Put("proc/7/cgroup",
        "9:name=systemd:/docker/c\n6:freezer:/docker/c\n5:pids:/docker/c\n4:memory:/docker/c\n"
        "2:cpu,cpuacct:/docker/c\n7:blkio:/docker/c\n0::/docker/c\n");
    Put("cgroup/freezer/docker/c/freezer.state", "FROZEN\n");
    Put("cgroup/pids/docker/c/pids.max", "320\n");
    Put("cgroup/memory/docker/c/memory.limit_in_bytes", "1048576\n");
    Put("cgroup/memory/docker/c/memory.memsw.limit_in_bytes", "1048576\n");
    Put("cgroup/memory/docker/c/memory.usage_in_bytes", "900000\n");
    Put("cgroup/memory/docker/c/memory.stat",
        "cache 1\ninactive_file 5\ntotal_inactive_file 100000\n");
    Put("cgroup/pids/docker/c/pids.current", "12\n");
    Put("cgroup/cpu,cpuacct/docker/c/cpuacct.usage", "123456789\n");
    Put("cgroup/blkio/docker/c/blkio.bfq.weight", "500\n");
    Put("cgroup/cpu,cpuacct/docker/c/cpu.shares", "1024\n");
  }
  void MakeV2() const {
    Put("proc/7/cgroup", "0::/system.slice/docker-c.scope\n");
    const std::string folder = "cgroup/system.slice/docker-c.scope/";
    Put(folder + "cgroup.procs", "7\n");
    Put(folder + "cgroup.freeze", "0\n");
    Put(folder + "cgroup.events", "populated 1\nfrozen 1\n");
    Put(folder + "pids.max", "max\n");
    Put(folder + "memory.max", "1048576\n");
    Put(folder + "memory.current", "900000\n");
    Put(folder + "memory.stat", "anon 1\ninactive_file 950000\n");
    Put(folder + "pids.current", "12\n");
    Put(folder + "cpu.stat", "usage_usec 123456\nuser_usec 1\n");
    Put(folder + "memory.swap.max", "0\n");
  }
  [[nodiscard]] absl::StatusOr<ContainerCgroups> Groups() const {
    return ContainerCgroups::OfProcess(7, root, proc);
  }

  std::string path;
  std::string root;
  std::string proc;
};

TEST_SUITE("ContainerCgroups") {
  TEST_CASE("the first version: freezer, limits and weight") {
    const Tree tree;
    tree.MakeV1();
    auto groups = tree.Groups();
    REQUIRE(groups.ok());
    CHECK(groups->Freeze(After(milliseconds(100))).ok());
    CHECK(tree.Get("cgroup/freezer/docker/c/freezer.state").substr(0, 6) == "FROZEN");
    CHECK(*groups->IsFrozen());
    CHECK(*groups->PidsLimit() == 320);
    CHECK(*groups->MemoryLimit() == 1048576);
    CHECK(*groups->SwapLimit() == 0);
    CHECK(*groups->CpuUsed() == std::chrono::nanoseconds(123456789));
    CHECK(*groups->MemoryUsed() == 800000);
    CHECK(*groups->Pids() == 12);
    CHECK(groups->SetBlkioWeight(100).ok());
    CHECK(tree.Get("cgroup/blkio/docker/c/blkio.bfq.weight").substr(0, 3) == "100");
    CHECK(groups->Thaw().ok());
    CHECK(tree.Get("cgroup/freezer/docker/c/freezer.state").substr(0, 6) == "THAWED");
  }

  TEST_CASE("the second version: one folder for all") {
    const Tree tree;
    tree.MakeV2();
    auto groups = tree.Groups();
    REQUIRE(groups.ok());
    CHECK(groups->Freeze(After(milliseconds(100))).ok());
    CHECK(tree.Get("cgroup/system.slice/docker-c.scope/cgroup.freeze").substr(0, 1) == "1");
    CHECK(*groups->PidsLimit() == UINT64_MAX);
    CHECK(*groups->MemoryLimit() == 1048576);
    CHECK(*groups->SwapLimit() == 0);
    CHECK(*groups->CpuUsed() == std::chrono::microseconds(123456));
    // What is cache for another may be more than what is used.
    CHECK(*groups->MemoryUsed() == 0);
    CHECK(*groups->Pids() == 12);
    fs::remove(tree.path + "/cgroup/system.slice/docker-c.scope/cpu.stat");
    CHECK(absl::IsNotFound(groups->CpuUsed().status()));
    CHECK(groups->Thaw().ok());
    CHECK(tree.Get("cgroup/system.slice/docker-c.scope/cgroup.freeze").substr(0, 1) == "0");
  }

  TEST_CASE("processes that do not stop in time are let go on") {
    const Tree tree;
    tree.MakeV2();
    tree.Put("cgroup/system.slice/docker-c.scope/cgroup.events", "populated 1\nfrozen 0\n");
    auto groups = tree.Groups();
    REQUIRE(groups.ok());
    CHECK(groups->Freeze(After(milliseconds(20))).code() == absl::StatusCode::kDeadlineExceeded);
    CHECK(tree.Get("cgroup/system.slice/docker-c.scope/cgroup.freeze").substr(0, 1) == "0");
  }

  TEST_CASE("the root group, a path that leads elsewhere, and no process at all are refused") {
    const Tree tree;
    CHECK(tree.Groups().status().code() == absl::StatusCode::kNotFound);
    tree.Put("proc/7/cgroup", "0::/\n");
    tree.Put("cgroup/cgroup.procs", "1\n");
    CHECK(tree.Groups().status().code() == absl::StatusCode::kFailedPrecondition);
    tree.Put("proc/7/cgroup", "6:freezer:/../../escape\n0::/../escape\n");
    tree.Put("escape/freezer.state", "THAWED\n");
    CHECK(tree.Groups().status().code() == absl::StatusCode::kFailedPrecondition);
  }

  TEST_CASE(
      "a container's groups are had by a process of it alone, and where they can be written") {
    Tree tree;
    tree.MakeV1();
    HostAbilities abilities;
    abilities.cgroup_root = tree.root;
    abilities.cgroup_freezer_why = "it is read-only";
    const absl::Status read_only =
        ContainerCgroups::OfContainer(abilities, "c", 7, tree.proc).status();
    CHECK(std::string(read_only.message()).find("it is read-only") != std::string::npos);
    abilities.cgroup_freezer = true;
    CHECK(ContainerCgroups::OfContainer(abilities, "docker/c", 7, tree.proc).ok());
    for (const auto& [container, pid] :
         {std::pair("docker/another", 7), std::pair("", 7), std::pair("docker/c", 0),
          std::pair("docker/c", 8), std::pair("docker/c", -1)}) {
      CAPTURE(container);
      CAPTURE(pid);
      CHECK(ContainerCgroups::OfContainer(abilities, container, pid, tree.proc).status().code() ==
            absl::StatusCode::kFailedPrecondition);
    }
  }
}

}  // namespace
}  // namespace creel
