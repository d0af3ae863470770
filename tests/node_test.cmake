# creel_node_test(NAME FILE… LABELS … TIMEOUT …): files of Node's test runner beside the list, by the
# run.sh there, as one ctest against what was built.
function(creel_node_test NAME)
  cmake_parse_arguments(TEST "" "TIMEOUT" "LABELS" ${ARGN})
  add_test(NAME ${NAME}
    COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/run.sh ${TEST_UNPARSED_ARGUMENTS})
  set_tests_properties(${NAME} PROPERTIES LABELS "${TEST_LABELS}" TIMEOUT ${TEST_TIMEOUT}
    ENVIRONMENT "CREEL_BUILD_DIR=${CMAKE_BINARY_DIR}")
  if("engine" IN_LIST TEST_LABELS)
    # They have the engine for themselves.
    set_tests_properties(${NAME} PROPERTIES RUN_SERIAL TRUE RESOURCE_LOCK engine)
  endif()
endfunction()
