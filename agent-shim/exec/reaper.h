#pragma once

namespace creel::shim {

// The nursery process: for each message on `socket` (one byte and a descriptor) it forks a reaper
// that serves that descriptor. Ends with the socket. Calls only what is async-signal-safe, since
// the process it was forked from may have had threads.
//
// A reaper is the parent of one command at a time. It is a subreaper, so everything that the command
// starts stays below it whatever it does (setsid, double fork, an emptied environment), and once it
// has no child the kernel vouches that nothing is left. It keeps uid 0, so that tools can neither
// signal nor starve it, and is used again for the next command.
//
// Where the kernel has no subreapers, orphans fall to PID 1 and the reaper knows only of the command
// itself. It then takes no launch without a mark, by which PID 1 finds the rest.
[[noreturn]] void RunNursery(int socket);

}  // namespace creel::shim
