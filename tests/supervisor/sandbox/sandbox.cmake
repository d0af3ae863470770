creel_test(dir_tree_test SOURCES dir_tree_test.cc LINK creel::sandbox creel::grpc)
creel_test(mount_rules_test SOURCES mount_rules_test.cc LINK creel::sandbox creel::grpc)
creel_test(container_spec_test SOURCES container_spec_test.cc LINK creel::sandbox creel::grpc)
creel_test(cgroups_test SOURCES cgroups_test.cc LINK creel::sandbox creel::grpc)
creel_test(host_parts_test SOURCES host_parts_test.cc LINK creel::sandbox creel::grpc)

if(NOT CREEL_SANITIZER)
  # A container of each kind from a real engine; the shim and the program are static.
  add_executable(program_filtered_calls programs/filtered_calls.c)
  target_compile_options(program_filtered_calls PRIVATE -Wall -Wextra -O1)
  target_link_options(program_filtered_calls PRIVATE -static)
  set_target_properties(program_filtered_calls PROPERTIES
    OUTPUT_NAME filtered_calls RUNTIME_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/programs)
  creel_test(sandbox_integration_test SOURCES sandbox_integration_test.cc
    LINK creel::sandbox creel::grpc LABELS engine TIMEOUT 600)
  target_compile_definitions(sandbox_integration_test PRIVATE
    CREEL_TEST_SHIM="${CMAKE_BINARY_DIR}/creel-shim"
    CREEL_TEST_FILTERED_CALLS="$<TARGET_FILE:program_filtered_calls>")
  add_dependencies(sandbox_integration_test creel-shim program_filtered_calls)
  set_tests_properties(sandbox_integration_test PROPERTIES RESOURCE_LOCK engine)
endif()
