#pragma once

#include <cstddef>
#include <functional>

#include "supervisor/base/job_threads.h"

namespace creel {

// Runs job(0) to job(count - 1) beside each other, and returns when all have run. A job that the
// threads do not take any more, as they are stopping, is given to `refused`.
void AtOnce(JobThreads& threads, size_t count, const std::function<void(size_t)>& job,
            const std::function<void(size_t)>& refused);

}  // namespace creel
