#pragma once

#include "agent-shim/exec/event_loop.h"

namespace creel::shim {

// Where nothing happens nothing is to wake: two hundred idle sandboxes would otherwise cost a few per
// cent of a processor for timers that never have anything to do. gRPC 1.51 wakes a process some seven
// times a second by itself: each of its two callback threads waits for a second and then sleeps for a
// tenth (in which it takes no call), and the threads of its two timer lists look once a second.

// What gRPC runs later, or on another thread, is run by `loop`, which lives as long as the process.
// To be called before anything else of gRPC's. Listening, connecting and resolving by gRPC's newer
// engine, which 1.51 leaves to the older one, end the process.
void RunEventEngineOn(EventLoop& loop);

// Ends the thread of gRPC's older timer list. To be called when the server stands, and where no timer
// of gRPC's is needed: a call whose deadline passes is then ended by its caller alone.
void StopTimerThread();

}  // namespace creel::shim
