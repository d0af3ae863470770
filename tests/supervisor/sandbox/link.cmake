# Prints what the frame guard costs; not a test.
add_executable(guard_bench guard_bench.cc)
target_link_libraries(guard_bench PRIVATE creel::sandbox creel::grpc creel::options
  PkgConfig::FMT)
