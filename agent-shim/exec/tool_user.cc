#include "agent-shim/exec/tool_user.h"

#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace creel::shim {
namespace {

// The raw call: of this thread alone.
int SetFsUid(uid_t uid) { return static_cast<int>(syscall(SYS_setfsuid, uid)); }
int SetFsGid(gid_t gid) { return static_cast<int>(syscall(SYS_setfsgid, gid)); }

constexpr uid_t kSame = static_cast<uid_t>(-1);

}  // namespace

AsToolUser::AsToolUser(const ToolUser& user) {
  if (getuid() != 0 || (user.uid == 0 && user.gid == 0)) {
    return;
  }
  SetFsGid(user.gid);
  SetFsUid(user.uid);
  // The call never fails; asked with an id that cannot be, it tells what holds.
  if (SetFsUid(kSame) == static_cast<int>(user.uid) &&
      SetFsGid(kSame) == static_cast<int>(user.gid)) {
    how_ = How::kFileSystem;
    return;
  }
  SetFsUid(0);
  SetFsGid(0);
  if (syscall(SYS_setresgid, kSame, user.gid, kSame) == 0) {
    how_ = How::kEffective;
    if (syscall(SYS_setresuid, kSame, user.uid, kSame) == 0) {
      return;
    }
  }
  status_ = ErrnoStatus(errno, "take the tool user's identity");
}

AsToolUser::~AsToolUser() {
  if (how_ == How::kFileSystem) {
    SetFsUid(0);
    SetFsGid(0);
  } else if (how_ == How::kEffective) {
    syscall(SYS_setresuid, kSame, 0, kSame);
    syscall(SYS_setresgid, kSame, 0, kSame);
  }
}

}  // namespace creel::shim
