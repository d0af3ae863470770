creel_test(frame_parser_test SOURCES frame_parser_test.cc LINK creel::sandbox creel::grpc)
creel_test(frame_guard_test SOURCES frame_guard_test.cc LINK creel::sandbox creel::grpc)
creel_test(supervisor_link_test SOURCES shim_link_test.cc LINK creel::sandbox creel::grpc)
creel_test(door_listener_test SOURCES door_listener_test.cc LINK creel::sandbox creel::grpc)

# Prints what the frame guard costs; not a test.
add_executable(guard_bench guard_bench.cc)
target_link_libraries(guard_bench PRIVATE creel::sandbox creel::grpc creel::options
  PkgConfig::FMT)
