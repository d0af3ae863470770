#pragma once

namespace creel::bench {

// Processor time, in milliseconds, that the frame guard adds to a GiB received as gRPC receives it:
// the same frames through the same calls, on a socket that is under guard and on one that is not.
// Throws std::runtime_error.
double GuardMsPerGib();

}  // namespace creel::bench
