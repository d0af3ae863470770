#pragma once

namespace creel {

// gRPC 1.51 runs all reactions of a process on one shared set of threads, and takes it down with the
// last channel or server that used it; when that last one is let go from inside a reaction, the
// threads wait for themselves and gRPC aborts. This keeps the set for the life of the process. Call
// it before the first call whose channel a reaction may let go; more calls do nothing.
void HoldGrpcThreads();

}  // namespace creel
