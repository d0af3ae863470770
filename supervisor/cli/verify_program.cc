#include "supervisor/cli/verify_program.h"

#include <unistd.h>

#include <array>

#include "supervisor/cli/output.h"

namespace creel::cli {

int BecomeVerify(const std::vector<std::string>& arguments) {
  std::vector<char*> argv;
  std::string name = "creel-verify";
  argv.push_back(name.data());
  for (const std::string& argument : arguments) {
    argv.push_back(const_cast<char*>(argument.c_str()));
  }
  argv.push_back(nullptr);
  std::array<char, 4096> self{};
  const ssize_t size = ::readlink("/proc/self/exe", self.data(), self.size() - 1);
  std::string folder(self.data(), size > 0 ? static_cast<size_t>(size) : 0);
  folder = folder.substr(0, folder.rfind('/'));
  for (const std::string& path :
       {folder + "/creel-verify", std::string("/usr/lib/creel/creel-verify")}) {
    ::execv(path.c_str(), argv.data());
  }
  ::execvp("creel-verify", argv.data());
  return Fail("creel-verify is not installed; it comes with Creel, beside creeld");
}

}  // namespace creel::cli
