# The file RPCs as a library of their own; included by CMakeLists.txt beside it.
creel_room(shim_file_handlers
  SOURCES file_handlers.cc watch_call.cc
  HEADERS file_handlers.h file_reactors.h watch_call.h
  PUBLIC creel::shim_files creel::proto)
